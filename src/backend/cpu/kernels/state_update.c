/* Steps of the selective scan: dt and the gate with channels in lanes, then each channel's states in lanes, as they
 * lie in memory. Numbers that are stored otherwise, or elsewhere, are gathered first. */
#include "storage.h"

#define CHANNELS 128 /* of a task */

typedef struct update_task {
  const state_update_shape *s;
  const clm_selective_state_update_args *a;
  int64_t strips, states; /* states: rounded up to whole vectors */
  float *scratch;         /* of each worker: A, state, B, C      */
  int64_t scratch_row;
} update_task;

/* The channels c0 on of a tensor whose dimensions from `dim` on are (n_heads, head_dim). Runs of one stride. */
static void walk(const state_update_shape *s, const clm_tensor *t, int64_t at, int dim, int64_t c0, int64_t n,
                 float *values, bool write) {
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

static void gather(const state_update_shape *s, const clm_tensor *t, int64_t b, int64_t step, int64_t c0, int64_t n,
                   float *out) {
  if (!t->buffer) memset(out, 0, (size_t)n * sizeof *out);
  else if (t->rank == 2) walk(s, t, 0, 0, c0, n, out, false);
  else walk(s, t, b * t->stride[0] + step * t->stride[1], 2, c0, n, out, false);
}

/* The states of one channel; returns sum of C h. */
INLINE float update_states(int64_t N, bool is_log, float dt, float dtu, const float *A, const float *B,
                           const float *C, float *state) {
  vec y = vec_set(0);
  for (int64_t n = 0; n < N; n += LANES) {
    vec rate = vec_load_part(A + n, N - n);
    if (is_log) rate = -vec_exp(rate);
    vec decay = vec_exp2_product(vec_set(dt), rate * vec_set(LOG2E));
    vec h = decay * vec_load_part(state + n, N - n) + vec_set(dtu) * vec_load_part(B + n, N - n);
    vec_store_part(state + n, h, N - n);
    y = h * vec_load_part(C + n, N - n) + y;
  }
  return vec_sum(y);
}

static void update_step(const update_task *task, int64_t b, int64_t row, int64_t step, int64_t c0, int64_t n,
                        float *scratch) {
  const state_update_shape *s = task->s;
  const clm_selective_state_update_args *a = task->a;
  _Alignas(64) float u[CHANNELS], dt[CHANNELS], bias[CHANNELS], D[CHANNELS], z[CHANNELS], y[CHANNELS];
  gather(s, &a->u, b, step, c0, n, u);
  gather(s, &a->delta, b, step, c0, n, dt);
  gather(s, &a->delta_bias, b, step, c0, n, bias);
  gather(s, &a->D, b, step, c0, n, D);
  for (int64_t c = 0; c < n; c += LANES) {
    vec argument = vec_load_part(dt + c, n - c) + vec_load_part(bias + c, n - c);
    vec_store_part(dt + c, a->delta_softplus ? vec_softplus(argument) : argument, n - c);
  }
  const float *B = NULL, *C = NULL;
  const int64_t N = s->d_state, group_heads = s->n_heads / s->n_groups;
  for (int64_t c = 0, last = -1; c < n; c++) {
    const int64_t head = (c0 + c) / s->head_dim, dim = (c0 + c) % s->head_dim, group = head / group_heads;
    if (group != last) {
      const clm_tensor *const inputs[] = {&a->B, &a->C};
      const float **const into[] = {&B, &C};
      for (int i = 0; i < 2; i++) {
        const clm_tensor *t = inputs[i];
        const int64_t at = b * t->stride[0] + step * t->stride[1] + group * t->stride[2];
        *into[i] = line_load(line_at(t, at, t->stride[3]), N, scratch + (2 + i) * task->states);
      }
      last = group;
    }
    const line A = line_at(&a->A, head * a->A.stride[0] + dim * a->A.stride[1], a->A.stride[2]);
    const line state =
        line_at(&a->state, row * a->state.stride[0] + head * a->state.stride[1] + dim * a->state.stride[2],
                a->state.stride[3]);
    float *h = line_target(state, scratch + task->states);
    const float *rates = line_load(A, N, scratch);
    if (!line_is_plain(state)) line_read(state, N, h);
    y[c] = D[c] * u[c] + update_states(N, a->A_is_log, dt[c], dt[c] * u[c], rates, B, C, h);
    line_store(state, N, h);
  }
  if (present(a->z)) {
    gather(s, &a->z, b, step, c0, n, z);
    for (int64_t c = 0; c < n; c += LANES) {
      vec gate = vec_load_part(z + c, n - c);
      vec_store_part(y + c, vec_load_part(y + c, n - c) * (gate * vec_sigmoid(gate)), n - c);
    }
  }
  walk(s, &a->out, b * a->out.stride[0] + step * a->out.stride[1], 2, c0, n, y, true);
}

static void update_channels(void *arg, int64_t index, int worker) {
  const update_task *task = arg;
  const state_update_shape *s = task->s;
  const clm_selective_state_update_args *a = task->a;
  const int64_t b = index / task->strips, c0 = index % task->strips * CHANNELS;
  const int64_t n = min_of(CHANNELS, s->n_heads * s->head_dim - c0);
  int64_t row = b;
  if (present(a->state_indices))
    row = *(const int32_t *)(const void *)(element_data(&a->state_indices) + b * a->state_indices.stride[0] * 4);
  for (int64_t step = 0; step < s->steps; step++) {
    if (row >= 0 && row < s->pool) {
      update_step(task, b, row, step, c0, n, task->scratch + worker * task->scratch_row);
    } else {
      float zeros[CHANNELS] = {0};
      walk(s, &a->out, b * a->out.stride[0] + step * a->out.stride[1], 2, c0, n, zeros, true);
    }
  }
}

clm_status KERNEL(selective_state_update)(clm_context *ctx, const state_update_shape *s,
                                          const clm_selective_state_update_args *a) {
  /* A state of 16 bits is rounded once a call: here it is after each step. */
  const bool rounds = s->steps > 1 && a->state.dtype != CLM_F32;
  if (!ALL_STORAGE(a->state, a->u, a->delta, a->A, a->B, a->C, a->D, a->z, a->delta_bias, a->out) || rounds)
    return ref_selective_state_update(ctx, s, a);
  update_task task = {
      .s = s, .a = a, .strips = div_up(s->n_heads * s->head_dim, CHANNELS), .states = round_up(s->d_state, LANES)};
  clm_status status = kernel_scratch(ctx, 4 * task.states, &task.scratch_row, &task.scratch);
  if (status) return status;
  cpu_pool_run(cpu_context_pool(ctx), s->batch * task.strips, update_channels, &task);
  context_explain(ctx, "selective_state_update: cpu %s, %d channels a task, %d states in lanes",
                  cpu_context_level(ctx), CHANNELS, LANES);
  return CLM_OK;
}
