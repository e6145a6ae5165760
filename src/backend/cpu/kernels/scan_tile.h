/* What the selective scan and its gradient share: channels are cut into blocks of LANES (a block never crosses a
 * group of B and C), the sequence into tiles; a tile's operands are read in place where their layout allows, else
 * packed. */
#ifndef CLM_CPU_SCAN_TILE_H
#define CLM_CPU_SCAN_TILE_H

#include "kernels.h"

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

/* Rows of a tile: row t is at data + t * stride. */
typedef struct tile_rows {
  const float *data;
  int64_t stride;
} tile_rows;

/* Channels of steps [t0, t0 + steps) of a (batch, length, channel) tensor, one vector each; padding lanes are 0. */
INLINE tile_rows scan_tile_channels(const clm_tensor *x, int64_t b, int64_t t0, int steps, scan_block k,
                                    vec *scratch) {
  const float *p =
      (const float *)(const void *)element_data(x) + b * x->stride[0] + t0 * x->stride[1] + k.channel * x->stride[2];
  if (x->stride[2] == 1 && k.lanes == LANES) return (tile_rows){p, x->stride[1]};
  float *out = (float *)scratch;
  if (k.lanes < LANES) memset(scratch, 0, (size_t)steps * sizeof(vec));
  for (int lane = 0; lane < k.lanes; lane++)
    for (int t = 0; t < steps; t++) out[t * LANES + lane] = p[lane * x->stride[2] + t * x->stride[1]];
  return (tile_rows){out, LANES};
}

/* Where a tile of outputs goes: in place or into scratch, from where scan_tile_unpack scatters it. */
INLINE float *scan_tile_target(const clm_tensor *x, int64_t b, int64_t t0, scan_block k, vec *scratch,
                               int64_t *stride) {
  if (x->stride[2] == 1 && k.lanes == LANES) {
    *stride = x->stride[1];
    return (float *)(void *)element_data(x) + b * x->stride[0] + t0 * x->stride[1] + k.channel;
  }
  *stride = LANES;
  return (float *)scratch;
}

INLINE void scan_tile_unpack(const clm_tensor *x, int64_t b, int64_t t0, int steps, scan_block k,
                             const vec *scratch) {
  if (x->stride[2] == 1 && k.lanes == LANES) return;
  const float *in = (const float *)scratch;
  float *p = (float *)(void *)element_data(x) + b * x->stride[0] + t0 * x->stride[1] + k.channel * x->stride[2];
  for (int lane = 0; lane < k.lanes; lane++)
    for (int t = 0; t < steps; t++) p[lane * x->stride[2] + t * x->stride[1]] = in[t * LANES + lane];
}

/* The states of steps [t0, t0 + steps) of a (batch, length, group, state) tensor, padded. */
INLINE tile_rows scan_tile_states(const clm_tensor *x, const scan_blocks *s, int64_t d_state, int64_t b, int64_t t0,
                                  int steps, int64_t group, float *scratch) {
  const float *p =
      (const float *)(const void *)element_data(x) + b * x->stride[0] + t0 * x->stride[1] + group * x->stride[2];
  if (x->stride[3] == 1 && d_state == s->states) return (tile_rows){p, x->stride[1]};
  for (int t = 0; t < steps; t++)
    for (int64_t n = 0; n < s->states; n++)
      scratch[t * s->states + n] = n < d_state ? p[t * x->stride[1] + n * x->stride[3]] : 0;
  return (tile_rows){scratch, s->states};
}

/* A (channel, state) matrix at row `offset`, as one vector of channels for each padded state. */
INLINE void scan_gather(const float *p, int64_t channel_stride, int64_t state_stride, int64_t d_state, int64_t states,
                        scan_block k, vec *out) {
  float *o = (float *)out;
  memset(out, 0, (size_t)states * sizeof(vec));
  if (!p) return;
  for (int lane = 0; lane < k.lanes; lane++)
    for (int64_t n = 0; n < d_state; n++) o[n * LANES + lane] = p[lane * channel_stride + n * state_stride];
}

INLINE void scan_scatter(float *p, int64_t channel_stride, int64_t state_stride, int64_t d_state, scan_block k,
                         const vec *in) {
  const float *o = (const float *)in;
  for (int lane = 0; lane < k.lanes; lane++)
    for (int64_t n = 0; n < d_state; n++) p[lane * channel_stride + n * state_stride] = o[n * LANES + lane];
}

INLINE void scan_gather_fixed(const clm_tensor *x, const scan_blocks *s, int64_t d_state, scan_block k, vec *out) {
  const float *p = kernel_data(*x);
  scan_gather(p ? p + k.channel * x->stride[0] : NULL, x->stride[0], x->stride[1], d_state, s->states, k, out);
}

/* States of batch row b: (batch, channel, state); zeros if the tensor is absent. */
INLINE void scan_gather_state(const clm_tensor *x, const scan_blocks *s, int64_t d_state, int64_t b, scan_block k,
                              vec *out) {
  const float *p = kernel_data(*x);
  if (p) p += b * x->stride[0] + k.channel * x->stride[1];
  scan_gather(p, x->stride[1], x->stride[2], d_state, s->states, k, out);
}

INLINE void scan_scatter_state(const clm_tensor *x, int64_t d_state, int64_t b, scan_block k, const vec *in) {
  float *p = kernel_data(*x);
  if (p) scan_scatter(p + b * x->stride[0] + k.channel * x->stride[1], x->stride[1], x->stride[2], d_state, k, in);
}

/* A times log2 e, so that a decay is 2^(dt A2). */
INLINE void scan_gather_A(const clm_tensor *A, bool is_log, const scan_blocks *s, int64_t d_state, scan_block k,
                          vec *A2) {
  scan_gather_fixed(A, s, d_state, k, A2);
  for (int64_t n = 0; n < s->states; n++) {
    if (is_log) A2[n] = -vec_exp(A2[n]);
    A2[n] = n < d_state ? A2[n] * vec_set(LOG2E) : vec_set(0);
  }
}

INLINE vec scan_channel_vector(const clm_tensor *x, scan_block k) {
  float lane[LANES] = {0};
  const float *p = kernel_data(*x);
  for (int i = 0; p && i < k.lanes; i++) lane[i] = p[(k.channel + i) * x->stride[0]];
  return vec_load(lane);
}

INLINE vec scan_dt(vec delta, bool softplus) { return softplus ? vec_softplus(delta) : delta; }

#endif
