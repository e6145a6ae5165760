/* Steps of the selective scan: dt and the gate with channels in lanes, then each channel's states in lanes, as they
 * lie in memory. Numbers that are stored otherwise, or elsewhere, are gathered first. */
#include "transpose.h"
#include "update_rows.h"

#define CHANNELS  128 /* of a task */
#define AHEAD     64  /* channels: their states and their part of A are asked for */
#define MAX_PARTS 4   /* vectors of states that are taken in one go */

typedef struct update_task update_task;
/* A step of LANES channels of a state's row. */
typedef struct lanes_step {
  int64_t row;
  update_channel channel; /* the first                                        */
  int64_t ahead;          /* memory is asked for so many channels further on */
  const float *dt, *dtu, *B, *C;
  float *y;
} lanes_step;
typedef void (*lanes_fn)(const update_task *, const lanes_step *);

struct update_task {
  state_update_shape s;
  clm_selective_state_update_args a;
  int64_t strips, plane; /* plane: states rounded up to whole vectors */
  int threads;
  bool held;      /* states are kept as planes over the steps  */
  lanes_fn lanes; /* of LANES channels at once, or NULL        */
  float *scratch; /* of each worker: A, B, C, then states held */
  int64_t scratch_row;
};

/* Where numbers lie: in their tensor or in scratch. */
typedef struct planes {
  float *at;
  int64_t plane;
} planes;

INLINE number load(bool complex, planes p, int64_t n, int64_t N) {
  return (number){vec_load_part(p.at + n, N - n), complex ? vec_load_part(p.at + p.plane + n, N - n) : vec_set(0)};
}

/* What a channel's states are given at a step. */
typedef struct channel_inputs {
  float dt, dtu;
  planes B, C;
} channel_inputs;

/* The states of one channel; returns sum of C h. */
INLINE float update_states(bool complex, int64_t N, bool is_log, const channel_inputs *x, planes A, planes state) {
  vec y = vec_set(0);
  for (int64_t n = 0; n < N; n += LANES) {
    const number decay = update_decay(complex, x->dt, update_rate(complex, is_log, load(complex, A, n, N)));
    const number in = number_scale(complex, vec_set(x->dtu), load(complex, x->B, n, N)),
                 c = load(complex, x->C, n, N);
    const number h = number_plus(complex, number_times(complex, decay, load(complex, state, n, N)), in);
    vec_store_part(state.at + n, h.re, N - n);
    if (complex) vec_store_part(state.at + state.plane + n, h.im, N - n);
    y = h.re * c.re + y;
    if (complex) y = y - h.im * c.im;
  }
  return complex ? 2 * vec_sum(y) : vec_sum(y);
}

INLINE planes planes_at(const update_task *task, const clm_tensor *t, int64_t at, float *scratch) {
  const line l = line_at(t, at, t->stride[t->rank - 1]);
  if (!task->s.complex && line_is_plain(l)) return (planes){(float *)(void *)l.data, 0};
  planes_read(task->s.complex, t, at, task->s.d_state, task->plane, scratch);
  return (planes){scratch, task->plane};
}

/* In place, or held in the slot: a state that is rounded as it is stored is so after the last step. */
INLINE float update_states_of(const update_task *task, int64_t row, int64_t step, update_channel channel,
                              int64_t slot, const channel_inputs *x, float *scratch) {
  const state_update_shape *s = &task->s;
  const clm_selective_state_update_args *a = &task->a;
  const int64_t N = s->d_state, numbers = (1 + s->complex) * task->plane;
  const int64_t at = update_state_at(&a->state, row, channel);
  const planes A = planes_at(task, &a->A, update_matrix_at(&a->A, channel), scratch);
  if (!task->held) {
    const planes state = {(float *)(void *)line_at(&a->state, at, 1).data, 0};
    return update_states(false, N, a->A_is_log, x, A, state);
  }
  const planes state = {scratch + 3 * numbers + (s->steps > 1 ? slot : 0) * numbers, task->plane};
  if (step == 0) planes_read(s->complex, &a->state, at, N, task->plane, state.at);
  const float y = s->complex ? update_states(true, N, a->A_is_log, x, A, state)
                             : update_states(false, N, a->A_is_log, x, A, state);
  if (step == s->steps - 1) planes_write(s->complex, &a->state, at, N, task->plane, state.at);
  return y;
}

/* LANES channels in a row of one group, at one stride, whose numbers lie in memory as they are computed with: their
 * sums over states are taken together. `parts` vectors are a channel's states. */
INLINE void update_lanes(int parts, bool is_log, const update_task *task, const lanes_step *x) {
  const clm_selective_state_update_args *a = &task->a;
  const int64_t ahead = x->ahead;
  const float *rates = kernel_data(a->A), *dt = x->dt, *dtu = x->dtu;
  float *states = kernel_data(a->state);
  vec B[MAX_PARTS], C[MAX_PARTS], sums[LANES];
  UNROLL for (int k = 0; k < parts; k++) B[k] = vec_load(x->B + k * LANES), C[k] = vec_load(x->C + k * LANES);
  const bool single = task->s.head_dim == 1;
  float *state = states + update_state_at(&a->state, x->row, x->channel);
  const float *A = rates + update_matrix_at(&a->A, x->channel);
  const int64_t state_step = a->state.stride[single ? 1 : 2], A_step = a->A.stride[single ? 0 : 1];
  UNROLL for (int i = 0; i < LANES; i++, state += state_step, A += A_step) {
    sums[i] = vec_set(0);
    UNROLL for (int k = 0; k < parts * LANES; k += 16) { /* lines of memory */
      __builtin_prefetch(state + ahead * state_step + k);
      __builtin_prefetch(A + ahead * A_step + k);
    }
    UNROLL for (int k = 0; k < parts; k++) {
      vec decay =
          update_decay(false, dt[i], update_rate(false, is_log, (number){vec_load(A + k * LANES), vec_set(0)})).re;
      vec h = decay * vec_load(state + k * LANES) + vec_set(dtu[i]) * B[k];
      vec_store(state + k * LANES, h);
      sums[i] = h * C[k] + sums[i];
    }
  }
  sum_lanes(sums, x->y);
}

#define LANES_FN(name, parts, is_log)                                                                                \
  static void name(const update_task *task, const lanes_step *x) { update_lanes(parts, is_log, task, x); }
LANES_FN(update_1, 1, false)
LANES_FN(update_2, 2, false)
LANES_FN(update_4, 4, false)
LANES_FN(update_1_log, 1, true)
LANES_FN(update_2_log, 2, true)
LANES_FN(update_4_log, 4, true)

/* Whether LANES channels, counted from a multiple of LANES or from a group's first, never change the stride: a head
 * is one channel, or so many that none of them reaches into the next, or the next follows as a channel would. */
static bool one_stride(const state_update_shape *s, const clm_selective_state_update_args *a) {
  if (s->head_dim == 1 || s->head_dim % LANES == 0) return true;
  return a->A.stride[0] == a->A.stride[1] * s->head_dim && a->state.stride[1] == a->state.stride[2] * s->head_dim;
}

/* NULL where channels are taken one by one. */
static lanes_fn lanes_fn_of(const state_update_shape *s, const clm_selective_state_update_args *a, bool held) {
  if (held || a->A.stride[2] != 1 || !one_stride(s, a)) return NULL;
  switch (s->d_state) {
  case LANES: return a->A_is_log ? update_1_log : update_1;
  case 2 * LANES: return a->A_is_log ? update_2_log : update_2;
  case 4 * LANES: return a->A_is_log ? update_4_log : update_4;
  default: return NULL;
  }
}

/* `follows`: the channels after these are the worker's next. */
static void update_step(const update_task *task, update_span at, int64_t row, bool follows, float *scratch) {
  const state_update_shape *s = &task->s;
  const clm_selective_state_update_args *a = &task->a;
  const int64_t b = at.b, step = at.step, c0 = at.c0, n = at.n;
  const int64_t numbers = (1 + s->complex) * task->plane, group_heads = s->n_heads / s->n_groups;
  _Alignas(64) float u[CHANNELS], dt[CHANNELS], bias[CHANNELS], D[CHANNELS], dtu[CHANNELS], z[CHANNELS], y[CHANNELS];
  update_gather(s, &a->delta_bias, at, bias);
  update_sizes(s, a, at, bias, dt, u);
  for (int64_t c = 0; c < n; c += LANES) vec_store(dtu + c, vec_load(dt + c) * vec_load(u + c));
  planes B = {0}, C = {0};
  update_channel channel = update_channel_at(s, c0);
  for (int64_t c = 0, next = 0; c < n;) {
    if (c >= next) {
      const int64_t group = channel.head / group_heads;
      B = planes_at(task, &a->B, update_input_at(&a->B, b, step, group), scratch + numbers);
      C = planes_at(task, &a->C, update_input_at(&a->C, b, step, group), scratch + 2 * numbers);
      next = min_of(n, (group + 1) * group_heads * s->head_dim - c0);
    }
    if (task->lanes && c + LANES <= next) {
      const int64_t ahead = follows || c + AHEAD < n ? AHEAD : 0;
      task->lanes(task, &(lanes_step){.row = row,
                                      .channel = channel,
                                      .ahead = ahead,
                                      .dt = dt + c,
                                      .dtu = dtu + c,
                                      .B = B.at,
                                      .C = C.at,
                                      .y = y + c});
      c += LANES;
      channel = update_channel_at(s, c0 + c);
    } else {
      y[c] = update_states_of(task, row, step, channel, c, &(channel_inputs){dt[c], dtu[c], B, C}, scratch);
      c++;
      update_next(s, &channel);
    }
  }
  update_gather(s, &a->D, at, D);
  if (present(a->z)) update_gather(s, &a->z, at, z);
  for (int64_t c = 0; c < n; c += LANES) {
    vec sum = vec_load(D + c) * vec_load(u + c) + vec_load(y + c);
    if (present(a->z)) sum *= vec_load(z + c) * vec_sigmoid(vec_load(z + c));
    vec_store(y + c, sum);
  }
  update_scatter(s, &a->out, at, y);
}

static void update_channels(void *arg, int64_t index, int worker) {
  const update_task *task = arg;
  const state_update_shape *s = &task->s;
  const int64_t b = index / task->strips, c0 = index % task->strips * CHANNELS;
  const int64_t n = min_of(CHANNELS, s->n_heads * s->head_dim - c0), row = update_row(s, &task->a, b);
  const bool follows = cpu_pool_goes_on(s->batch * task->strips, task->threads, worker, index);
  float zeros[CHANNELS] = {0}, *scratch = task->scratch + worker * task->scratch_row;
  for (int64_t step = 0; step < s->steps; step++) {
    const update_span at = {b, step, c0, n};
    if (row >= 0) update_step(task, at, row, follows, scratch);
    else update_scatter(s, &task->a.out, at, zeros);
  }
}

/* Task for task, its states and its part of A. */
static cpu_range update_reads(const void *arg, int64_t begin, int64_t end, int i) {
  const update_task *task = arg;
  const state_update_shape *s = &task->s;
  const int64_t index = begin + i / 2, b = index / task->strips, row = update_row(s, &task->a, b);
  const update_channel channel = update_channel_at(s, index % task->strips * CHANNELS);
  if (index >= end || row < 0) return (cpu_range){0};
  const clm_tensor *t = i % 2 ? &task->a.A : &task->a.state;
  const int64_t at = i % 2 ? update_matrix_at(t, channel) : update_state_at(t, row, channel);
  const int64_t bytes = storage_bytes(t->dtype) * (1 + s->complex);
  return (cpu_range){element_data(t) + at * bytes, CHANNELS * s->d_state * bytes};
}

clm_status KERNEL(selective_state_update)(clm_context *ctx, const state_update_shape *s,
                                          const clm_selective_state_update_args *a) {
  if (s->dtype == CLM_F64) return ctx->plan ? CLM_UNSUPPORTED : ref_selective_state_update(ctx, s, a);
  update_task task = {.s = *s,
                      .a = *a,
                      .strips = div_up(s->n_heads * s->head_dim, CHANNELS),
                      .plane = round_up(s->d_state, LANES),
                      .threads = cpu_pool_threads(cpu_context_pool(ctx)),
                      .held = s->complex || a->state.dtype != CLM_F32 || a->state.stride[3] != 1};
  task.lanes = lanes_fn_of(s, a, task.held);
  const int64_t slots = task.held && s->steps > 1 ? CHANNELS : 1;
  clm_status status =
      kernel_scratch(ctx, (3 + slots) * (1 + s->complex) * task.plane, &task.scratch_row, &task.scratch);
  if (status) return status;
  context_explain(ctx, "selective_state_update: cpu %s, %d channels a task, %d states in lanes",
                  cpu_context_level(ctx), CHANNELS, LANES);
  return cpu_submit(ctx, &(cpu_stage){.tasks = s->batch * task.strips,
                                      .run = update_channels,
                                      .arg = &task,
                                      .arg_bytes = sizeof task,
                                      .reads = update_reads});
}
