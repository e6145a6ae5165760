/* One step of the selective scan: dt and the gate with channels in lanes, then each channel's states in lanes, as
 * they lie in memory. */
#include "kernels.h"

#define CHANNELS 128 /* of a task */

typedef struct update_task {
  const selective_scan_shape *s;
  const clm_selective_state_update_args *a;
  int64_t strips;
} update_task;

static void gather(const clm_tensor *x, int64_t b, int64_t c0, int64_t n, float *out) {
  const float *p = kernel_data(*x);
  if (p && x->rank == 2) p += b * x->stride[0];
  int64_t stride = x->rank == 2 ? x->stride[1] : x->stride[0];
  for (int64_t c = 0; c < n; c++) out[c] = p ? p[(c0 + c) * stride] : 0;
}

/* The states of one channel; returns sum of C h. */
INLINE float update_channel(const update_task *task, int64_t b, int64_t d, float dt, float dtu) {
  const clm_selective_state_update_args *a = task->a;
  int64_t N = task->s->d_state, group = d / (task->s->d_inner / task->s->n_groups);
  float *state = kernel_data(a->state) + b * a->state.stride[0] + d * a->state.stride[1];
  const float *A = kernel_data(a->A) + d * a->A.stride[0];
  const float *B = kernel_data(a->B) + b * a->B.stride[0] + group * a->B.stride[1];
  const float *C = kernel_data(a->C) + b * a->C.stride[0] + group * a->C.stride[1];
  vec y = vec_set(0);
  for (int64_t n = 0; n < N; n += LANES) {
    vec rate = vec_load_part(A + n, N - n);
    if (a->A_is_log) rate = -vec_exp(rate);
    vec decay = vec_exp2_product(vec_set(dt), rate * vec_set(LOG2E));
    vec h = decay * vec_load_part(state + n, N - n) + vec_set(dtu) * vec_load_part(B + n, N - n);
    vec_store_part(state + n, h, N - n);
    y = h * vec_load_part(C + n, N - n) + y;
  }
  return vec_sum(y);
}

static void update_channels(void *arg, int64_t index, int worker) {
  const update_task *task = arg;
  const clm_selective_state_update_args *a = task->a;
  int64_t b = index / task->strips, c0 = index % task->strips * CHANNELS, n = min_of(CHANNELS, task->s->d_inner - c0);
  _Alignas(64) float u[CHANNELS], dt[CHANNELS], bias[CHANNELS], D[CHANNELS], z[CHANNELS], y[CHANNELS];
  (void)worker;
  gather(&a->u, b, c0, n, u);
  gather(&a->delta, b, c0, n, dt);
  gather(&a->delta_bias, b, c0, n, bias);
  gather(&a->D, b, c0, n, D);
  gather(&a->z, b, c0, n, z);
  for (int64_t c = 0; c < n; c += LANES) {
    vec argument = vec_load_part(dt + c, n - c) + vec_load_part(bias + c, n - c);
    vec_store_part(dt + c, a->delta_softplus ? vec_softplus(argument) : argument, n - c);
  }
  for (int64_t c = 0; c < n; c++) y[c] = D[c] * u[c] + update_channel(task, b, c0 + c, dt[c], dt[c] * u[c]);
  for (int64_t c = 0; c < n && present(a->z); c += LANES) {
    vec gate = vec_load_part(z + c, n - c);
    vec_store_part(y + c, vec_load_part(y + c, n - c) * (gate * vec_sigmoid(gate)), n - c);
  }
  for (int64_t c = 0; c < n; c++) kernel_data(a->out)[b * a->out.stride[0] + (c0 + c) * a->out.stride[1]] = y[c];
}

static bool states_last(const clm_tensor *t, int dim) { return t->shape[dim] == 1 || t->stride[dim] == 1; }

clm_status KERNEL(selective_state_update)(clm_context *ctx, const selective_scan_shape *s,
                                          const clm_selective_state_update_args *a) {
  if (!ALL_F32(a->state, a->u, a->delta, a->A, a->B, a->C, a->D, a->z, a->delta_bias, a->out) ||
      !states_last(&a->state, 2) || !states_last(&a->A, 1) || !states_last(&a->B, 2) || !states_last(&a->C, 2))
    return ref_selective_state_update(ctx, s, a);
  update_task task = {s, a, div_up(s->d_inner, CHANNELS)};
  cpu_pool_run(cpu_context_pool(ctx), s->batch * task.strips, update_channels, &task);
  context_explain(ctx, "selective_state_update: cpu %s, %d channels a task, %d states in lanes",
                  cpu_context_level(ctx), CHANNELS, LANES);
  return CLM_OK;
}
