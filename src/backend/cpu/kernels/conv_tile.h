/* Pieces of a causal convolution as rows of f32 channels, whatever their storage, layout and past: what a step of
 * several sequences in one row may see of the steps before it. */
#ifndef CLM_CPU_CONV_TILE_H
#define CLM_CPU_CONV_TILE_H

#include "ops/rows.h"
#include "storage.h"
#include "transpose.h"

#define STEPS    64
#define CHANNELS 128
#define BLOCKS   (CHANNELS / LANES)
#define WIDTHS   32 /* maximum of the public header */
#define ROWS     (STEPS + 2 * (WIDTHS - 1))

/* How many steps back a step may look (-1: it is padding), which state its sequence has, and how far before the end
 * of its sequence it stands where it is in the final state, else 0. */
typedef struct conv_mark {
  int32_t reach, row, tail;
} conv_mark;

typedef struct conv_call {
  const causal_conv1d_shape *s;
  const clm_causal_conv1d_args *f;
  const clm_causal_conv1d_backward_args *b;
  conv_mark *marks; /* (batch, length + 1), or NULL: one sequence in each row */
  int64_t pieces, strips;
  float *parts; /* (batch * pieces, width + 1, channels): dweight by k, then dbias */
} conv_call;

typedef struct conv_tile {
  int64_t b, t0, c0, channels;
  int steps, blocks, width, before;
  vec weight[WIDTHS][BLOCKS], bias[BLOCKS];
} conv_tile;

/* Rows of channels: of a copy, or where they lie already. */
typedef struct conv_rows {
  const float *row[ROWS];
  _Alignas(64) float copy[ROWS][CHANNELS];
} conv_rows;

static inline conv_mark mark_of(const conv_call *call, int64_t b, int64_t t) {
  const causal_conv1d_shape *s = call->s;
  if (call->marks) return call->marks[b * (s->length + 1) + t];
  return (conv_mark){(int32_t)s->width - 1, (int32_t)b, s->length - t < s->width ? (int32_t)(s->length - t) : 0};
}

static inline bool sees(conv_mark m, int before, int k) { return before - k <= m.reach; }

/* n numbers of a state (rows, channels, width - 1) at place i. */
static inline void read_state(const clm_tensor *t, int64_t row, const conv_tile *k, int64_t i, float *out) {
  if (t->buffer)
    line_read(line_at(t, row * t->stride[0] + k->c0 * t->stride[1] + i * t->stride[2], t->stride[1]), k->channels,
              out);
  else memset(out, 0, (size_t)k->channels * sizeof *out);
}

static inline void write_state(const clm_tensor *t, int64_t row, const conv_tile *k, int64_t i, const float *in) {
  line_write(line_at(t, row * t->stride[0] + k->c0 * t->stride[1] + i * t->stride[2], t->stride[1]), k->channels, in);
}

static inline line line_of_step(const clm_tensor *t, const conv_tile *k, int64_t step) {
  return line_at(t, k->b * t->stride[0] + step * t->stride[1] + k->c0 * t->stride[2], t->stride[2]);
}

static inline bool steps_lie_together(const clm_tensor *t) {
  return t->shape[1] > 1 && t->shape[2] > 1 && t->stride[1] == 1 && t->stride[2] != 1;
}

/* Steps [first, first + count) of a tensor into `to` on: those outside the sequence are rows of 0. */
static inline void load_steps(const conv_call *call, const conv_tile *k, const clm_tensor *t, int64_t first,
                              int count, conv_rows *r, int to) {
  const int64_t length = call->s->length;
  const bool whole = k->channels % LANES == 0, padded = !whole && k->channels < CHANNELS;
  int begin = first < 0 ? (int)-first : 0, end = (int)max_of(begin, min_of(count, length - first));
  const bool together = steps_lie_together(t);
  for (int i = 0; i < count; i++) {
    float *copy = r->copy[to + i];
    r->row[to + i] = copy;
    if (padded || i < begin || i >= end) memset(copy, 0, CHANNELS * sizeof *copy);
    if (i < begin || i >= end || together) continue;
    line l = line_of_step(t, k, first + i);
    if (whole && line_is_plain(l)) r->row[to + i] = (const float *)(const void *)l.data;
    else line_read(l, k->channels, copy);
  }
  for (int64_t c = 0; together && c < k->channels; c += LANES) {
    float block[LANES][ROWS + LANES];
    const int64_t n = min_of(LANES, k->channels - c);
    for (int64_t i = 0; i < n; i++) {
      line l = line_at(t, k->b * t->stride[0] + (first + begin) * t->stride[1] + (k->c0 + c + i) * t->stride[2], 1);
      line_read(l, end - begin, block[i]);
    }
    for (int i = begin; i < end; i += LANES)
      transpose_block(&block[0][i - begin], ROWS + LANES, n, min_of(LANES, end - i), &r->copy[to + i][c], CHANNELS);
  }
}

/* What a step writes, and the write: `out` is row i of a tile of results. */
static inline float *target_of(const conv_tile *k, const clm_tensor *t, int64_t step, float *scratch) {
  line l = line_of_step(t, k, step);
  return k->channels % LANES == 0 && line_is_plain(l) ? (float *)(void *)l.data : scratch;
}

static inline void store_steps(const conv_tile *k, const clm_tensor *t, int count, float (*rows)[CHANNELS]) {
  if (!steps_lie_together(t)) {
    for (int i = 0; i < count; i++) {
      float *to = target_of(k, t, k->t0 + i, rows[i]);
      if (to == rows[i]) line_write(line_of_step(t, k, k->t0 + i), k->channels, rows[i]);
    }
    return;
  }
  for (int64_t c = 0; c < k->channels; c += LANES) {
    float block[LANES][STEPS + LANES];
    for (int i = 0; i < count; i += LANES)
      transpose_block(&rows[i][c], CHANNELS, min_of(LANES, count - i), LANES, &block[0][i], STEPS + LANES);
    for (int64_t i = 0; i < min_of(LANES, k->channels - c); i++)
      line_write(line_at(t, k->b * t->stride[0] + k->t0 * t->stride[1] + (k->c0 + c + i) * t->stride[2], 1), count,
                 block[i]);
  }
}

static inline vec silu_gradient(vec sum) {
  vec sigmoid = vec_sigmoid(sum);
  return sigmoid * (vec_set(1.0f) + sum * (vec_set(1.0f) - sigmoid));
}

/* causal_conv1d without its final state, where conv_streams says so: rows of f32 channels, one sequence each. */
bool KERNEL(conv_streams)(const causal_conv1d_shape *, const clm_causal_conv1d_args *);
clm_status KERNEL(conv_stream)(clm_context *, const causal_conv1d_shape *, const clm_causal_conv1d_args *);

/* causal_conv1d and its gradients where steps lie side by side, and each row is one sequence. `parts`: (batch, width
 * + 1, channels) as in a conv_call, or NULL. */
clm_status KERNEL(conv_rows)(clm_context *, const causal_conv1d_shape *, const clm_causal_conv1d_args *);
void KERNEL(conv_rows_backward)(clm_context *, const causal_conv1d_shape *, const clm_causal_conv1d_backward_args *,
                                float *parts);

#endif
