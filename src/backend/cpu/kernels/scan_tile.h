/* What the selective scan and its gradient share: channels are cut into blocks of LANES (a block never crosses a
 * group of B and C), the sequence into tiles; a tile's operands are read in place where they lie so, else packed. */
#ifndef CLM_CPU_SCAN_TILE_H
#define CLM_CPU_SCAN_TILE_H

#include "storage.h"
#include "transpose.h"

#define STATE_QUANTUM 4 /* states are padded with zeros to a multiple of this */

typedef struct scan_blocks {
  int64_t per_group;        /* channels of a group                        */
  int64_t blocks_per_group; /* blocks of LANES in it                      */
  int64_t count;            /* blocks of a batch row                      */
  int64_t d_state, states;  /* as given, and padded                       */
  int64_t parts, numbers;   /* 2 where states are complex; states x parts */
} scan_blocks;

static inline scan_blocks scan_blocks_of(const selective_scan_shape *s) {
  scan_blocks b = {.per_group = s->d_inner / s->n_groups,
                   .d_state = s->d_state,
                   .states = round_up(s->d_state, STATE_QUANTUM),
                   .parts = s->complex ? 2 : 1};
  b.blocks_per_group = div_up(b.per_group, LANES);
  b.count = b.blocks_per_group * s->n_groups;
  b.numbers = b.states * b.parts;
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
  return x->dtype == CLM_F32 && x->stride[2] == 1 && s->block[s->count - 1].lanes == LANES;
}

/* Of the strip's first channel at step t0: an element's number. */
static inline int64_t scan_tile_start(const clm_tensor *x, int64_t b, int64_t t0, const scan_strip *s) {
  return b * x->stride[0] + t0 * x->stride[1] + s->block[0].channel * x->stride[2];
}

static inline int scan_strip_lanes(const scan_strip *s) {
  return (s->count - 1) * LANES + s->block[s->count - 1].lanes;
}

/* A tile in memory and as rows of channels in scratch: by lines of channels, or by squares of LANES steps and
 * channels where the sequence lies closer together. A sequence that runs backwards is read forwards and stored
 * backwards. */
static inline bool scan_by_steps(const clm_tensor *x) {
  return (x->stride[1] == 1 || x->stride[1] == -1) && x->stride[2] != 1;
}

typedef struct scan_square {
  int64_t at; /* the element lowest in memory            */
  int64_t channels, steps;
  int64_t first, row; /* in scratch: its place, and to the next step */
} scan_square;

static inline scan_square scan_square_at(const clm_tensor *x, int64_t start, int64_t c, int64_t t, int lanes,
                                         int steps, int64_t width) {
  scan_square q = {.channels = min_of(LANES, lanes - c), .steps = min_of(LANES, steps - t), .row = width};
  int64_t lowest = x->stride[1] < 0 ? t + q.steps - 1 : t;
  q.at = start + c * x->stride[2] + lowest * x->stride[1];
  q.first = lowest * width + c;
  if (x->stride[1] < 0) q.row = -width;
  return q;
}

static inline void scan_read_square(const clm_tensor *x, const scan_square *q, float *out) {
  if (x->dtype == CLM_F32) {
    transpose_block(kernel_data(*x) + q->at, x->stride[2], q->channels, q->steps, out + q->first, q->row);
    return;
  }
  float lines[LANES * LANES];
  for (int64_t i = 0; i < q->channels; i++)
    line_read(line_at(x, q->at + i * x->stride[2], 1), q->steps, lines + i * LANES);
  transpose_block(lines, LANES, q->channels, q->steps, out + q->first, q->row);
}

static inline void scan_write_square(const clm_tensor *x, const scan_square *q, const float *in) {
  if (x->dtype == CLM_F32 && q->steps == LANES) {
    transpose_block(in + q->first, q->row, LANES, q->channels, kernel_data(*x) + q->at, x->stride[2]);
    return;
  }
  float lines[LANES * LANES];
  transpose_block(in + q->first, q->row, q->steps, q->channels, lines, LANES);
  for (int64_t i = 0; i < q->channels; i++)
    line_write(line_at(x, q->at + i * x->stride[2], 1), q->steps, lines + i * LANES);
}

/* Steps [t0, t0 + steps) of a (batch, length, channel) tensor, in place or packed into scratch; padding lanes are 0.
 */
static inline tile_rows scan_tile_pack(const clm_tensor *x, int64_t b, int64_t t0, int steps, const scan_strip *s,
                                       vec *scratch) {
  int64_t start = scan_tile_start(x, b, t0, s);
  if (scan_in_place(x, s)) return (tile_rows){kernel_data(*x) + start, x->stride[1]};
  float *out = (float *)scratch;
  int lanes = scan_strip_lanes(s), width = s->count * LANES;
  if (scan_by_steps(x)) {
    for (int c = 0; c < lanes; c += LANES)
      for (int t = 0; t < steps; t += LANES) {
        scan_square q = scan_square_at(x, start, c, t, lanes, steps, width);
        scan_read_square(x, &q, out);
      }
  } else {
    for (int t = 0; t < steps; t++) {
      line_read(line_at(x, start + t * x->stride[1], x->stride[2]), lanes, out + t * width);
      for (int c = lanes; c < width; c++) out[t * width + c] = 0;
    }
  }
  return (tile_rows){out, width};
}

/* Where a tile of outputs goes: in place, or into scratch, from where scan_tile_unpack takes it. */
static inline float *scan_tile_target(const clm_tensor *x, int64_t b, int64_t t0, const scan_strip *s, vec *scratch,
                                      int64_t *stride) {
  bool in_place = scan_in_place(x, s);
  *stride = in_place ? x->stride[1] : s->count * LANES;
  return in_place ? kernel_data(*x) + scan_tile_start(x, b, t0, s) : (float *)scratch;
}

static inline void scan_tile_unpack(const clm_tensor *x, int64_t b, int64_t t0, int steps, const scan_strip *s,
                                    const vec *scratch) {
  if (scan_in_place(x, s)) return;
  const float *in = (const float *)scratch;
  int64_t start = scan_tile_start(x, b, t0, s);
  int lanes = scan_strip_lanes(s), width = s->count * LANES;
  if (scan_by_steps(x)) {
    for (int c = 0; c < lanes; c += LANES)
      for (int t = 0; t < steps; t += LANES) {
        scan_square q = scan_square_at(x, start, c, t, lanes, steps, width);
        scan_write_square(x, &q, in);
      }
  } else {
    for (int t = 0; t < steps; t++)
      line_write(line_at(x, start + t * x->stride[1], x->stride[2]), lanes, in + t * width);
  }
}

/* The next tile's rows, asked for line by line while this one is computed. */
typedef struct tile_ahead {
  const char *next, *row; /* the current line, and the beginning of its row */
  int64_t stride;         /* between rows, in bytes                         */
  int line, lines, left;  /* of a row; rows left of the current tensor      */
  int tensor, tensors, rows;
  const char *first[8];
  int64_t strides[8];
} tile_ahead;

static inline void tile_ahead_start(tile_ahead *ahead, int rows, const scan_strip *s, clm_dtype dtype) {
  *ahead = (tile_ahead){.rows = rows, .lines = (int)div_up(s->count * LANES * storage_bytes(dtype), 64)};
}

static inline void tile_ahead_add(tile_ahead *ahead, const clm_tensor *x, int64_t b, int64_t t0,
                                  const scan_strip *s) {
  if (!x->buffer || x->stride[2] != 1 || ahead->rows <= 0) return;
  ahead->first[ahead->tensors] = element_data(x) + scan_tile_start(x, b, t0, s) * storage_bytes(x->dtype);
  ahead->strides[ahead->tensors++] = storage_bytes(x->dtype) * x->stride[1];
}

static inline void tile_ahead_row(tile_ahead *ahead) {
  ahead->line = ahead->lines;
  if (--ahead->left > 0) ahead->row += ahead->stride;
  else if (ahead->tensor < ahead->tensors) {
    ahead->row = ahead->first[ahead->tensor];
    ahead->stride = ahead->strides[ahead->tensor++];
    ahead->left = ahead->rows;
  } else ahead->line = 0;
  ahead->next = ahead->row;
}

INLINE void tile_prefetch(tile_ahead *ahead) {
  if (ahead->line <= 0) return;
  __builtin_prefetch(ahead->next);
  ahead->next += 64;
  if (--ahead->line == 0) tile_ahead_row(ahead);
}

INLINE vec scan_dt(vec delta, bool softplus) { return softplus ? vec_softplus(delta) : delta; }

#endif
