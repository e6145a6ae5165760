/* What the state update and its gradients share: channels as (n_heads, head_dim), which state a row of the batch has,
 * numbers of states as planes of real and imaginary parts. */
#ifndef CLM_CPU_UPDATE_ROWS_H
#define CLM_CPU_UPDATE_ROWS_H

#include "number.h"

/* The n channels from c0 on of row b of the batch, at a step. */
typedef struct update_span {
  int64_t b, step, c0, n;
} update_span;

/* The channels c0 on of a tensor whose dimensions from `dim` on are (n_heads, head_dim). Runs of one stride. */
static inline void update_walk(const state_update_shape *s, const clm_tensor *t, int64_t at, int dim, int64_t c0,
                               int64_t n, float *values, bool write) {
  const int64_t outer = t->stride[dim], inner = s->head_dim == 1 ? outer : t->stride[dim + 1];
  const int64_t run = s->head_dim == 1 || outer == inner * s->head_dim ? s->n_heads * s->head_dim : s->head_dim;
  for (int64_t c = 0; c < n;) {
    const int64_t head = (c0 + c) / run, from = (c0 + c) % run, count = min_of(run - from, n - c);
    const line l = line_at(t, at + head * outer + from * inner, inner);
    if (write) line_write(l, count, values + c);
    else line_read(l, count, values + c);
    c += count;
  }
}

/* Of a step's tensor, or of one that all steps share (rank 2); zeros if it is absent. */
static inline void update_gather(const state_update_shape *s, const clm_tensor *t, update_span x, float *out) {
  if (!t->buffer) memset(out, 0, (size_t)x.n * sizeof *out);
  else if (t->rank == 2) update_walk(s, t, 0, 0, x.c0, x.n, out, false);
  else update_walk(s, t, x.b * t->stride[0] + x.step * t->stride[1], 2, x.c0, x.n, out, false);
}

static inline void update_scatter(const state_update_shape *s, const clm_tensor *t, update_span x, float *values) {
  if (t->buffer) update_walk(s, t, x.b * t->stride[0] + x.step * t->stride[1], 2, x.c0, x.n, values, true);
}

/* Which state row `b` works on; -1: it is padding. */
static inline int64_t update_row(const state_update_shape *s, const clm_selective_state_update_args *a, int64_t b) {
  if (!a->state_indices.buffer) return b;
  const int64_t row =
      *(const int32_t *)(const void *)(element_data(&a->state_indices) + b * a->state_indices.stride[0] * 4);
  return row >= 0 && row < s->pool ? row : -1;
}

static inline void update_sizes(const state_update_shape *s, const clm_selective_state_update_args *a, update_span x,
                                const float *bias, float *dt, float *u) {
  update_gather(s, &a->u, x, u);
  update_gather(s, &a->delta, x, dt);
  for (int64_t c = 0; c < x.n; c += LANES) {
    vec argument = vec_load_part(dt + c, x.n - c) + vec_load_part(bias + c, x.n - c);
    vec_store_part(dt + c, a->delta_softplus ? vec_softplus(argument) : argument, x.n - c);
  }
}

/* A channel, and where its states lie in (rows, n_heads, head_dim, d_state) and in the same without rows. */
typedef struct update_channel {
  int64_t head, dim;
} update_channel;

static inline update_channel update_channel_at(const state_update_shape *s, int64_t c) {
  return (update_channel){c / s->head_dim, c % s->head_dim};
}
INLINE void update_next(const state_update_shape *s, update_channel *c) {
  if (++c->dim < s->head_dim) return;
  c->dim = 0;
  c->head++;
}
INLINE int64_t update_state_at(const clm_tensor *t, int64_t row, update_channel c) {
  return row * t->stride[0] + c.head * t->stride[1] + c.dim * t->stride[2];
}
INLINE int64_t update_matrix_at(const clm_tensor *t, update_channel c) {
  return c.head * t->stride[0] + c.dim * t->stride[1];
}
static inline int64_t update_input_at(const clm_tensor *t, int64_t b, int64_t step, int64_t group) {
  return b * t->stride[0] + step * t->stride[1] + group * t->stride[2];
}

/* n numbers along the last dimension from element `at` on, into planes of `plane` floats, the rest of them 0. */
static inline void planes_read(bool complex, const clm_tensor *t, int64_t at, int64_t n, int64_t plane, float *out) {
  for (int part = 0; part <= complex; part++) {
    const int64_t first = t->buffer ? n : 0;
    memset(out + part * plane + first, 0, (size_t)(plane - first) * sizeof *out);
  }
  if (!t->buffer) return;
  const int64_t stride = t->stride[t->rank - 1];
  if (!complex) {
    line_read(line_at(t, at, stride), n, out);
    return;
  }
  const float *pairs = (const float *)(const void *)element_data(t) + 2 * at;
  if (stride == 1) /* known to the compiler */
    for (int64_t i = 0; i < n; i++) out[i] = pairs[2 * i], out[plane + i] = pairs[2 * i + 1];
  else
    for (int64_t i = 0; i < n; i++) out[i] = pairs[2 * i * stride], out[plane + i] = pairs[2 * i * stride + 1];
}

static inline void planes_write(bool complex, const clm_tensor *t, int64_t at, int64_t n, int64_t plane,
                                const float *in) {
  if (!t->buffer) return;
  const int64_t stride = t->stride[t->rank - 1];
  if (!complex) {
    line_write(line_at(t, at, stride), n, in);
    return;
  }
  float *pairs = (float *)(void *)element_data(t) + 2 * at;
  if (stride == 1)
    for (int64_t i = 0; i < n; i++) pairs[2 * i] = in[i], pairs[2 * i + 1] = in[plane + i];
  else
    for (int64_t i = 0; i < n; i++) pairs[2 * i * stride] = in[i], pairs[2 * i * stride + 1] = in[plane + i];
}

INLINE number planes_load(bool complex, const float *p, int64_t plane) {
  return (number){vec_load(p), complex ? vec_load(p + plane) : vec_set(0)};
}
INLINE void planes_store(bool complex, float *p, int64_t plane, number x) {
  vec_store(p, x.re);
  if (complex) vec_store(p + plane, x.im);
}

/* A of a channel from what is stored, and exp(dt A). */
INLINE number update_rate(bool complex, bool is_log, number a) {
  return is_log ? number_scale(complex, vec_set(-1), number_exp(complex, a)) : a;
}
INLINE number update_decay(bool complex, float dt, number rate) {
  if (!complex) return (number){vec_exp2_product(vec_set(dt), rate.re * vec_set(LOG2E)), rate.im};
  return number_exp(true, number_scale(true, vec_set(dt), rate));
}

#endif
