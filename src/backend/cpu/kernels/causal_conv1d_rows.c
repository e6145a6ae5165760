/* Causal convolution over tensors whose steps, not channels, lie side by side: a task is one channel of one batch
 * row, copied behind its past, lanes are steps. And the single step of generation. */
#include "kernels.h"

#define PIECE  1024 /* steps at a time, a multiple of LANES */
#define WIDTHS 32

typedef struct rows_task {
  const causal_conv1d_shape *s;
  const clm_causal_conv1d_args *a;
} rows_task;

static void convolve_row(void *arg, int64_t index, int worker) {
  const rows_task *task = arg;
  const causal_conv1d_shape *s = task->s;
  const clm_causal_conv1d_args *a = task->a;
  int64_t b = index / s->channels, c = index % s->channels, before = s->width - 1;
  const float *x = kernel_data(a->x) + b * a->x.stride[0] + c * a->x.stride[2];
  float *out = kernel_data(a->out) + b * a->out.stride[0] + c * a->out.stride[2];
  const float *initial = kernel_data(a->initial_state), *weight = kernel_data(a->weight) + c * a->weight.stride[0];
  float e[WIDTHS + PIECE + LANES] = {0}, sums[PIECE],
                           bias = present(a->bias) ? kernel_data(a->bias)[c * a->bias.stride[0]] : 0;
  (void)worker;
  for (int64_t i = 0; initial && i < before; i++)
    e[i] = initial[b * a->initial_state.stride[0] + c * a->initial_state.stride[1] + i * a->initial_state.stride[2]];
  for (int64_t t0 = 0; t0 < s->length; t0 += PIECE) {
    int64_t n = min_of(PIECE, s->length - t0);
    for (int64_t t = 0; t < n; t++) e[before + t] = x[(t0 + t) * a->x.stride[1]];
    for (int64_t t = 0; t < n; t += LANES) {
      vec sum = vec_set(bias);
      for (int64_t k = 0; k <= before; k++)
        sum = vec_set(weight[k * a->weight.stride[1]]) * vec_load(e + t + k) + sum;
      if (a->silu) sum *= vec_sigmoid(sum);
      vec_store(sums + t, sum);
    }
    for (int64_t t = 0; t < n; t++) out[(t0 + t) * a->out.stride[1]] = sums[t];
    memmove(e, e + n, (size_t)before * sizeof *e);
  }
  float *final = kernel_data(a->final_state);
  for (int64_t i = 0; final && i < before; i++)
    final[b * a->final_state.stride[0] + c * a->final_state.stride[1] + i * a->final_state.stride[2]] = e[i];
}

clm_status KERNEL(conv_rows)(clm_context *ctx, const causal_conv1d_shape *s, const clm_causal_conv1d_args *a) {
  rows_task task = {s, a};
  cpu_pool_run(cpu_context_pool(ctx), s->batch * s->channels, convolve_row, &task);
  context_explain(ctx, "causal_conv1d: cpu %s, one channel a task, %d steps in lanes", cpu_context_level(ctx), LANES);
  return CLM_OK;
}

#define CHANNELS 256

typedef struct update_task {
  const conv_update_shape *s;
  const clm_causal_conv1d_update_args *a;
  int64_t strips;
} update_task;

static void update_channels(void *arg, int64_t index, int worker) {
  const update_task *task = arg;
  const clm_causal_conv1d_update_args *a = task->a;
  int64_t b = index / task->strips, c0 = index % task->strips * CHANNELS, before = task->s->width - 1;
  int64_t n = min_of(CHANNELS, task->s->channels - c0), step = a->state.stride[2];
  float sums[CHANNELS];
  (void)worker;
  for (int64_t c = 0; c < n; c++) {
    float x = kernel_data(a->x)[b * a->x.stride[0] + (c0 + c) * a->x.stride[2]];
    float *state = kernel_data(a->state) + b * a->state.stride[0] + (c0 + c) * a->state.stride[1];
    const float *weight = kernel_data(a->weight) + (c0 + c) * a->weight.stride[0];
    float sum = present(a->bias) ? kernel_data(a->bias)[(c0 + c) * a->bias.stride[0]] : 0;
    for (int64_t k = 0; k < before; k++) {
      sum += weight[k * a->weight.stride[1]] * state[k * step];
      state[k * step] = k + 1 < before ? state[(k + 1) * step] : x;
    }
    sums[c] = sum + weight[before * a->weight.stride[1]] * x;
  }
  for (int64_t c = 0; c < n && a->silu; c += LANES) {
    vec sum = vec_load_part(sums + c, n - c);
    vec_store_part(sums + c, sum * vec_sigmoid(sum), n - c);
  }
  for (int64_t c = 0; c < n; c++) kernel_data(a->out)[b * a->out.stride[0] + (c0 + c) * a->out.stride[2]] = sums[c];
}

clm_status KERNEL(causal_conv1d_update)(clm_context *ctx, const conv_update_shape *s,
                                        const clm_causal_conv1d_update_args *a) {
  if (!ALL_F32(a->state, a->x, a->weight, a->bias, a->out) || s->steps > 1 || present(a->cache_seqlens) ||
      present(a->state_indices))
    return ref_causal_conv1d_update(ctx, s, a);
  update_task task = {s, a, div_up(s->channels, CHANNELS)};
  cpu_pool_run(cpu_context_pool(ctx), s->batch * task.strips, update_channels, &task);
  context_explain(ctx, "causal_conv1d_update: cpu %s, %d channels a task", cpu_context_level(ctx), CHANNELS);
  return CLM_OK;
}
