/* Causal convolution over tensors whose steps, not channels, lie side by side: a task is one channel of one batch
 * row, copied after its past, lanes are steps. */
#include "conv_tile.h"

#define PIECE 1024 /* steps at a time, a multiple of LANES */

typedef struct rows_task {
  const causal_conv1d_shape *s;
  const clm_causal_conv1d_args *a;
  const clm_causal_conv1d_backward_args *b;
  float *parts; /* (batch, width + 1, channels): dweight by k, then dbias; or NULL */
} rows_task;

static line state_line(const clm_tensor *t, int64_t b, int64_t c) {
  return line_at(t, b * t->stride[0] + c * t->stride[1], t->stride[2]);
}

static line steps_line(const clm_tensor *t, int64_t b, int64_t c, int64_t t0) {
  return line_at(t, b * t->stride[0] + t0 * t->stride[1] + c * t->stride[2], t->stride[1]);
}

static void read_filter(const rows_task *task, int64_t c, float *weight, float *bias) {
  const clm_tensor *w = &task->a->weight, *b = &task->a->bias;
  line_read(line_at(w, c * w->stride[0], w->stride[1]), task->s->width, weight);
  if (present(*b)) line_read(line_at(b, c * b->stride[0], 1), 1, bias);
}

INLINE vec weighted(const float *weight, float bias, int64_t width, const float *e) {
  vec sum = vec_set(bias);
  for (int64_t k = 0; k < width; k++) sum = vec_set(weight[k]) * vec_load(e + k) + sum;
  return sum;
}

static void convolve_row(void *arg, int64_t index, int worker) {
  const rows_task *task = arg;
  const causal_conv1d_shape *s = task->s;
  const clm_causal_conv1d_args *a = task->a;
  const int64_t b = index / s->channels, c = index % s->channels, before = s->width - 1;
  float e[WIDTHS + PIECE + LANES] = {0}, sums[PIECE], weight[WIDTHS], bias = 0;
  (void)worker;
  read_filter(task, c, weight, &bias);
  if (present(a->initial_state)) line_read(state_line(&a->initial_state, b, c), before, e);
  for (int64_t t0 = 0; t0 < s->length; t0 += PIECE) {
    const int64_t n = min_of(PIECE, s->length - t0);
    line_read(steps_line(&a->x, b, c, t0), n, e + before);
    for (int64_t t = 0; t < n; t += LANES) {
      vec sum = weighted(weight, bias, s->width, e + t);
      if (a->silu) sum *= vec_sigmoid(sum);
      vec_store(sums + t, sum);
    }
    line_write(steps_line(&a->out, b, c, t0), n, sums);
    memmove(e, e + n, (size_t)before * sizeof *e);
  }
  if (present(a->final_state)) line_write(state_line(&a->final_state, b, c), before, e);
}

clm_status KERNEL(conv_rows)(clm_context *ctx, const causal_conv1d_shape *s, const clm_causal_conv1d_args *a) {
  rows_task task = {.s = s, .a = a};
  cpu_pool_run(cpu_context_pool(ctx), s->batch * s->channels, convolve_row, &task);
  context_explain(ctx, "causal_conv1d: cpu %s, one channel a task, %d steps in lanes", cpu_context_level(ctx), LANES);
  return CLM_OK;
}

/* ---- Backward ---- */

/* The steps [from, from + count) of a row, 0 outside of it. */
static void read_steps(const causal_conv1d_shape *s, const clm_tensor *t, int64_t b, int64_t c, int64_t from,
                       int64_t count, float *out) {
  const int64_t skip = max_of(0, -from), n = max_of(0, min_of(count, s->length - from) - skip);
  memset(out, 0, (size_t)skip * sizeof *out);
  if (n > 0) line_read(steps_line(t, b, c, from + skip), n, out + skip);
  memset(out + skip + n, 0, (size_t)(count - skip - n) * sizeof *out);
}

/* de[i] = sum of weight[k] ds[i - k], LANES of them from i on: ds has width - 1 zeros or steps before it. */
INLINE vec spread_back(const float *weight, int64_t width, const float *ds) {
  vec sum = vec_set(0);
  for (int64_t k = 0; k < width; k++) sum = vec_set(weight[k]) * vec_load(ds - k) + sum;
  return sum;
}

/* Adds ds e of n steps to the gradients of the weight and, after them, of the bias. */
INLINE void add_weights(int64_t width, const float *ds, const float *e, int64_t n, vec *dweight) {
  vec sum[WIDTHS + 1];
  for (int64_t k = 0; k <= width; k++) sum[k] = dweight[k];
  for (int64_t t = 0; t < n; t += LANES) {
    const vec d = vec_keep(vec_load(ds + t), n - t);
    for (int64_t k = 0; k < width; k++) sum[k] = d * vec_load(e + t + k) + sum[k];
    sum[width] += d;
  }
  for (int64_t k = 0; k <= width; k++) dweight[k] = sum[k];
}

/* A piece's own steps are n; ds goes on for the width - 1 steps after them, which look back at it. */
INLINE void gradient_row_of(const rows_task *task, int64_t index, int64_t width) {
  const causal_conv1d_shape *s = task->s;
  const clm_causal_conv1d_args *a = task->a;
  const clm_causal_conv1d_backward_args *g = task->b;
  const int64_t b = index / s->channels, c = index % s->channels, before = width - 1;
  float e[PIECE + 2 * WIDTHS + LANES], ds_memory[PIECE + 2 * WIDTHS + LANES] = {0}, *ds = ds_memory + before;
  float sums[PIECE], weight[WIDTHS], bias = 0, past[WIDTHS] = {0}, final[WIDTHS] = {0};
  vec dweight[WIDTHS + 1] = {{0}};
  read_filter(task, c, weight, &bias);
  if (present(a->initial_state)) line_read(state_line(&a->initial_state, b, c), before, past);
  if (present(g->dfinal_state)) line_read(state_line(&g->dfinal_state, b, c), before, final);
  for (int64_t t0 = 0; t0 < s->length; t0 += PIECE) {
    const int64_t n = min_of(PIECE, s->length - t0), all = n + before;
    read_steps(s, &a->x, b, c, t0 - before, all + before, e);
    memset(e + all + before, 0, LANES * sizeof *e);
    if (t0 == 0) memcpy(e, past, (size_t)before * sizeof *e);
    read_steps(s, &g->dout, b, c, t0, all, ds);
    for (int64_t t = 0; t < all && a->silu; t += LANES)
      vec_store(ds + t, vec_load(ds + t) * silu_gradient(weighted(weight, bias, width, e + t)));
    memset(ds + all, 0, LANES * sizeof *ds);
    if (task->parts) add_weights(width, ds, e, n, dweight);
    if (t0 == 0 && present(g->dinitial_state)) {
      for (int64_t i = 0; i < before; i += LANES)
        vec_store_part(past + i, spread_back(weight, width, ds + i), before - i);
      for (int64_t i = s->length; i < before; i++) past[i] += final[i - s->length];
      line_write(state_line(&g->dinitial_state, b, c), before, past);
    }
    if (!present(g->dx)) continue;
    for (int64_t t = 0; t < n; t += LANES) vec_store(sums + t, spread_back(weight, width, ds + before + t));
    for (int64_t i = max_of(0, before - (s->length - t0)); i < before; i++) {
      const int64_t t = s->length - before + i - t0;
      if (t < n) sums[t] += final[i];
    }
    line_write(steps_line(&g->dx, b, c, t0), n, sums);
  }
  for (int64_t k = 0; k <= width && task->parts; k++)
    task->parts[(b * (width + 1) + k) * s->channels + c] = vec_sum(dweight[k]);
}

static void gradient_row(void *arg, int64_t index, int worker) {
  const rows_task *task = arg;
  (void)worker;
  if (task->s->width == 4) gradient_row_of(task, index, 4);
  else gradient_row_of(task, index, task->s->width);
}

void KERNEL(conv_rows_backward)(clm_context *ctx, const causal_conv1d_shape *s,
                                const clm_causal_conv1d_backward_args *b, float *parts) {
  rows_task task = {s, &b->forward, b, parts};
  cpu_pool_run(cpu_context_pool(ctx), s->batch * s->channels, gradient_row, &task);
}
