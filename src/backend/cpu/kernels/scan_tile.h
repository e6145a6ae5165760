/* What the selective scan and its gradient share: channels are cut into blocks of LANES (a block never crosses a
 * group of B and C), the sequence into tiles; a tile's operands are read in place where their layout allows, else
 * packed. */
#ifndef CLM_CPU_SCAN_TILE_H
#define CLM_CPU_SCAN_TILE_H

#include "kernels.h"
#include "transpose.h"

#define STATE_QUANTUM 4 /* states are padded with zeros to a multiple of this */

typedef struct scan_blocks {
  int64_t per_group;        /* channels of a group     */
  int64_t blocks_per_group; /* blocks of LANES in it   */
  int64_t count;            /* blocks of a batch row   */
  int64_t states;           /* d_state padded          */
} scan_blocks;

static inline scan_blocks scan_blocks_of(const selective_scan_shape *s) {
  scan_blocks b = {.per_group = s->d_inner / s->n_groups, .states = round_up(s->d_state, STATE_QUANTUM)};
  b.blocks_per_group = div_up(b.per_group, LANES);
  b.count = b.blocks_per_group * s->n_groups;
  return b;
}

typedef struct scan_block {
  int64_t group, channel; /* the first one */
  int lanes;              /* channels in it */
} scan_block;

static inline scan_block scan_block_at(const scan_blocks *b, int64_t index) {
  int64_t group = index / b->blocks_per_group, first = index % b->blocks_per_group * LANES;
  return (scan_block){group, group * b->per_group + first, (int)min_of(LANES, b->per_group - first)};
}

/* Consecutive blocks of one group, worked on together so that memory is walked in rows of some hundred bytes: single
 * cache lines a row apart come in at a fifth of the bandwidth. */
#define STRIP 8
typedef struct scan_strip {
  scan_block block[STRIP];
  int count;
} scan_strip;

static inline int64_t scan_strips(const scan_blocks *b, int64_t width) {
  return div_up(b->blocks_per_group, width) * (b->count / b->blocks_per_group);
}

static inline scan_strip scan_strip_at(const scan_blocks *b, int64_t width, int64_t index) {
  int64_t per_group = div_up(b->blocks_per_group, width), first = index % per_group * width;
  scan_strip s = {.count = (int)min_of(width, b->blocks_per_group - first)};
  for (int i = 0; i < s.count; i++)
    s.block[i] = scan_block_at(b, index / per_group * b->blocks_per_group + first + i);
  return s;
}

/* Row t of channels is at data + t * stride, block i of the strip i * LANES further on. */
typedef struct tile_rows {
  const float *data;
  int64_t stride;
} tile_rows;

static inline bool scan_in_place(const clm_tensor *x, const scan_strip *s) {
  return x->stride[2] == 1 && s->block[s->count - 1].lanes == LANES;
}

static inline float *scan_tile_start(const clm_tensor *x, int64_t b, int64_t t0, const scan_strip *s) {
  return kernel_data(*x) + b * x->stride[0] + t0 * x->stride[1] + s->block[0].channel * x->stride[2];
}

static inline int scan_strip_lanes(const scan_strip *s) {
  return (s->count - 1) * LANES + s->block[s->count - 1].lanes;
}

/* Steps [t0, t0 + steps) of a (batch, length, channel) tensor, in place or packed into scratch; padding lanes are 0.
 */
static inline tile_rows scan_tile_pack(const clm_tensor *x, int64_t b, int64_t t0, int steps, const scan_strip *s,
                                       vec *scratch) {
  const float *p = scan_tile_start(x, b, t0, s);
  if (scan_in_place(x, s)) return (tile_rows){p, x->stride[1]};
  float *out = (float *)scratch;
  int lanes = scan_strip_lanes(s), width = s->count * LANES;
  if (x->stride[2] == 1)
    for (int t = 0; t < steps; t++)
      for (int c = 0; c < width; c++) out[t * width + c] = c < lanes ? p[t * x->stride[1] + c] : 0;
  else if (x->stride[1] == 1)
    for (int c = 0; c < width; c += LANES)
      for (int t = 0; t < steps; t += LANES)
        transpose_block(p + c * x->stride[2] + t, x->stride[2], min_of(LANES, lanes - c), min_of(LANES, steps - t),
                        out + t * width + c, width);
  else
    for (int c = 0; c < width; c++)
      for (int t = 0; t < steps; t++) out[t * width + c] = c < lanes ? p[c * x->stride[2] + t * x->stride[1]] : 0;
  return (tile_rows){out, width};
}

/* Where a tile of outputs goes: in place, or into scratch, from where scan_tile_unpack takes it. */
static inline float *scan_tile_target(const clm_tensor *x, int64_t b, int64_t t0, const scan_strip *s, vec *scratch,
                                      int64_t *stride) {
  bool in_place = scan_in_place(x, s);
  *stride = in_place ? x->stride[1] : s->count * LANES;
  return in_place ? scan_tile_start(x, b, t0, s) : (float *)scratch;
}

static inline void scan_tile_unpack(const clm_tensor *x, int64_t b, int64_t t0, int steps, const scan_strip *s,
                                    const vec *scratch) {
  if (scan_in_place(x, s)) return;
  const float *in = (const float *)scratch;
  float *p = scan_tile_start(x, b, t0, s);
  int lanes = scan_strip_lanes(s), width = s->count * LANES;
  if (x->stride[2] == 1)
    for (int t = 0; t < steps; t++) memcpy(p + t * x->stride[1], in + t * width, (size_t)lanes * sizeof *p);
  else {
    bool by_steps = x->stride[1] == 1;
    for (int c = 0; c < lanes; c += LANES)
      for (int t = 0; t < steps; t += LANES) {
        int64_t rows = min_of(LANES, steps - t), columns = min_of(LANES, lanes - c);
        float *out = p + c * x->stride[2] + t * x->stride[1];
        if (by_steps && rows == LANES) transpose_block(in + t * width + c, width, rows, columns, out, x->stride[2]);
        else
          for (int64_t i = 0; i < columns; i++)
            for (int64_t k = 0; k < rows; k++) out[i * x->stride[2] + k * x->stride[1]] = in[(t + k) * width + c + i];
      }
  }
}

/* The next tile's rows, asked for line by line while this one is computed. */
typedef struct tile_ahead {
  const char *row[8];
  int64_t bytes[8]; /* between rows */
  int tensors, line, lines, rows;
} tile_ahead;

static inline void tile_ahead_start(tile_ahead *ahead, int rows, const scan_strip *s) {
  *ahead = (tile_ahead){.rows = rows, .lines = s->count * VEC_BYTES / 64};
}

static inline void tile_ahead_add(tile_ahead *ahead, const clm_tensor *x, int64_t b, int64_t t0,
                                  const scan_strip *s) {
  if (!x->buffer || x->stride[2] != 1) return;
  ahead->row[ahead->tensors] = (const char *)scan_tile_start(x, b, t0, s);
  ahead->bytes[ahead->tensors++] = 4 * x->stride[1];
}

INLINE void tile_prefetch(tile_ahead *ahead) {
  if (ahead->rows <= 0) return;
  for (int i = 0; i < ahead->tensors; i++) __builtin_prefetch(ahead->row[i] + ahead->line * 64);
  if (++ahead->line < ahead->lines) return;
  ahead->line = 0;
  ahead->rows--;
  for (int i = 0; i < ahead->tensors; i++) ahead->row[i] += ahead->bytes[i];
}

/* The states of steps [t0, t0 + steps) of a (batch, length, group, state) tensor, padded. */
static inline tile_rows scan_tile_states(const clm_tensor *x, const scan_blocks *s, int64_t d_state, int64_t b,
                                         int64_t t0, int steps, int64_t group, float *scratch) {
  const float *p = kernel_data(*x) + b * x->stride[0] + t0 * x->stride[1] + group * x->stride[2];
  if (x->stride[3] == 1 && d_state == s->states) return (tile_rows){p, x->stride[1]};
  for (int t = 0; t < steps; t++)
    for (int64_t n = 0; n < s->states; n++)
      scratch[t * s->states + n] = n < d_state ? p[t * x->stride[1] + n * x->stride[3]] : 0;
  return (tile_rows){scratch, s->states};
}

/* A (channel, state) matrix at row `offset`, as one vector of channels for each padded state. */
static inline void scan_gather(const float *p, int64_t channel_stride, int64_t state_stride, int64_t d_state,
                               int64_t states, scan_block k, vec *out) {
  float *o = (float *)out;
  memset(out, 0, (size_t)states * sizeof(vec));
  if (!p) return;
  for (int lane = 0; lane < k.lanes; lane++)
    for (int64_t n = 0; n < d_state; n++) o[n * LANES + lane] = p[lane * channel_stride + n * state_stride];
}

static inline void scan_scatter(float *p, int64_t channel_stride, int64_t state_stride, int64_t d_state, scan_block k,
                                const vec *in) {
  const float *o = (const float *)in;
  for (int lane = 0; lane < k.lanes; lane++)
    for (int64_t n = 0; n < d_state; n++) p[lane * channel_stride + n * state_stride] = o[n * LANES + lane];
}

static inline void scan_gather_fixed(const clm_tensor *x, const scan_blocks *s, int64_t d_state, scan_block k,
                                     vec *out) {
  const float *p = kernel_data(*x);
  scan_gather(p ? p + k.channel * x->stride[0] : NULL, x->stride[0], x->stride[1], d_state, s->states, k, out);
}

/* States of batch row b: (batch, channel, state); zeros if the tensor is absent. */
static inline void scan_gather_state(const clm_tensor *x, const scan_blocks *s, int64_t d_state, int64_t b,
                                     scan_block k, vec *out) {
  const float *p = kernel_data(*x);
  if (p) p += b * x->stride[0] + k.channel * x->stride[1];
  scan_gather(p, x->stride[1], x->stride[2], d_state, s->states, k, out);
}

static inline void scan_scatter_state(const clm_tensor *x, int64_t d_state, int64_t b, scan_block k, const vec *in) {
  float *p = kernel_data(*x);
  if (p) scan_scatter(p + b * x->stride[0] + k.channel * x->stride[1], x->stride[1], x->stride[2], d_state, k, in);
}

/* A times log2 e, so that a decay is 2^(dt A2). */
static inline void scan_gather_A(const clm_tensor *A, bool is_log, const scan_blocks *s, int64_t d_state,
                                 scan_block k, vec *A2) {
  scan_gather_fixed(A, s, d_state, k, A2);
  for (int64_t n = 0; n < s->states; n++) {
    if (is_log) A2[n] = -vec_exp(A2[n]);
    A2[n] = n < d_state ? A2[n] * vec_set(LOG2E) : vec_set(0);
  }
}

static inline vec scan_channel_vector(const clm_tensor *x, scan_block k) {
  float lane[LANES] = {0};
  const float *p = kernel_data(*x);
  for (int i = 0; p && i < k.lanes; i++) lane[i] = p[(k.channel + i) * x->stride[0]];
  return vec_load(lane);
}

INLINE vec scan_dt(vec delta, bool softplus) { return softplus ? vec_softplus(delta) : delta; }

#endif
