/* Causal convolution over tensors whose steps, not channels, lie side by side: a task is one channel of one batch
 * row, copied behind its past, lanes are steps. */
#include "conv_tile.h"

#define PIECE 1024 /* steps at a time, a multiple of LANES */

typedef struct rows_task {
  const causal_conv1d_shape *s;
  const clm_causal_conv1d_args *a;
} rows_task;

static line state_line(const clm_tensor *t, int64_t b, int64_t c) {
  return line_at(t, b * t->stride[0] + c * t->stride[1], t->stride[2]);
}

static line steps_line(const clm_tensor *t, int64_t b, int64_t c, int64_t t0) {
  return line_at(t, b * t->stride[0] + t0 * t->stride[1] + c * t->stride[2], t->stride[1]);
}

static void convolve_row(void *arg, int64_t index, int worker) {
  const rows_task *task = arg;
  const causal_conv1d_shape *s = task->s;
  const clm_causal_conv1d_args *a = task->a;
  const int64_t b = index / s->channels, c = index % s->channels, before = s->width - 1;
  float e[WIDTHS + PIECE + LANES] = {0}, sums[PIECE], weight[WIDTHS], bias = 0;
  (void)worker;
  line_read(line_at(&a->weight, c * a->weight.stride[0], a->weight.stride[1]), s->width, weight);
  if (present(a->bias)) line_read(line_at(&a->bias, c * a->bias.stride[0], 1), 1, &bias);
  if (present(a->initial_state)) line_read(state_line(&a->initial_state, b, c), before, e);
  for (int64_t t0 = 0; t0 < s->length; t0 += PIECE) {
    const int64_t n = min_of(PIECE, s->length - t0);
    line_read(steps_line(&a->x, b, c, t0), n, e + before);
    for (int64_t t = 0; t < n; t += LANES) {
      vec sum = vec_set(bias);
      for (int64_t k = 0; k <= before; k++) sum = vec_set(weight[k]) * vec_load(e + t + k) + sum;
      if (a->silu) sum *= vec_sigmoid(sum);
      vec_store(sums + t, sum);
    }
    line_write(steps_line(&a->out, b, c, t0), n, sums);
    memmove(e, e + n, (size_t)before * sizeof *e);
  }
  if (present(a->final_state)) line_write(state_line(&a->final_state, b, c), before, e);
}

clm_status KERNEL(conv_rows)(clm_context *ctx, const causal_conv1d_shape *s, const clm_causal_conv1d_args *a) {
  rows_task task = {s, a};
  cpu_pool_run(cpu_context_pool(ctx), s->batch * s->channels, convolve_row, &task);
  context_explain(ctx, "causal_conv1d: cpu %s, one channel a task, %d steps in lanes", cpu_context_level(ctx), LANES);
  return CLM_OK;
}
