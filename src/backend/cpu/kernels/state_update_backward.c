/* Gradients of the state update. A task owns a strip of channels of one group and walks the rows of a piece of the
 * batch: for each channel, its states in lanes, it goes through the steps keeping states and decays, then back.
 *
 * Many channels add to one dB and dC: a task sums over its strip and leaves its part in the workspace, parts are
 * added in the order of the strips. Likewise dA, dD and ddelta_bias over the pieces of the batch. Strips and pieces
 * depend on the shape alone, so the gradients do not depend on the number of threads. */
#include "update_rows.h"

#define CHANNELS 64 /* of a task */
#define PIECES   8  /* maximum, of the batch */

typedef struct gradient_task {
  const state_update_shape *s;
  const clm_selective_state_update_args *f;
  const clm_selective_state_update_backward_args *a;
  int64_t plane, numbers;   /* floats of a state's plane, of all its planes                         */
  int64_t of_group, strips; /* channels, strips of a group                                          */
  int64_t pieces;           /* of the batch                                                         */
  float *dB, *dC;           /* parts: (strip, batch, step, group, numbers)                          */
  float *dA, *dD, *dbias;   /* parts: (piece, channel, numbers), (piece, channel)                   */
  float *scratch;
  int64_t scratch_row;
} gradient_task;

/* One worker's scratch: rows of CHANNELS for each step, then numbers for each step. */
typedef struct gradient_scratch {
  float *dt, *u, *dy, *y, *du, *ddt; /* (step, CHANNELS)     */
  float *B, *C, *h, *decay;          /* (step, numbers); h: one more, the state before */
  float *state, *rate, *dh, *da;     /* numbers              */
} gradient_scratch;

static int64_t scratch_layout(const gradient_task *task, float *memory, gradient_scratch *k) {
  float **rows[] = {&k->dt, &k->u, &k->dy, &k->y, &k->du, &k->ddt};
  float **steps[] = {&k->B, &k->C, &k->decay, &k->h}, **states[] = {&k->state, &k->rate, &k->dh, &k->da};
  int64_t used = 0;
  for (int i = 0; i < 6; i++, used += task->s->steps * CHANNELS) *rows[i] = memory ? memory + used : NULL;
  for (int i = 0; i < 4; i++, used += task->s->steps * task->numbers) *steps[i] = memory ? memory + used : NULL;
  used += task->numbers;
  for (int i = 0; i < 4; i++, used += task->numbers) *states[i] = memory ? memory + used : NULL;
  return used;
}

/* What the steps of a strip share: sums over its channels, of this row. NULL: not asked for. */
typedef struct strip_sums {
  float *dB, *dC;
  int64_t stride; /* from step to step */
} strip_sums;

INLINE void add_number(bool complex, float *sum, int64_t plane, number x) {
  planes_store(complex, sum, plane, number_plus(complex, planes_load(complex, sum, plane), x));
}

/* States n on of one channel, number `c` of its strip. */
INLINE void states_backward(bool complex, const gradient_task *task, gradient_scratch *k, const strip_sums *sums,
                            int64_t c, int64_t n) {
  const int64_t steps = task->s->steps, plane = task->plane, numbers = task->numbers;
  const vec twice = vec_set(complex ? 2 : 1);
  const number stored = planes_load(complex, k->rate + n, plane);
  const number rate = update_rate(complex, task->f->A_is_log, stored);
  number h = planes_load(complex, k->state + n, plane);
  planes_store(complex, k->h + n, plane, h);
  for (int64_t t = 0; t < steps; t++) {
    const float dt = k->dt[t * CHANNELS + c], u = k->u[t * CHANNELS + c];
    const number decay = update_decay(complex, dt, rate);
    h = number_plus(complex, number_times(complex, decay, h),
                    number_scale(complex, vec_set(dt * u), planes_load(complex, k->B + t * numbers + n, plane)));
    planes_store(complex, k->decay + t * numbers + n, plane, decay);
    planes_store(complex, k->h + (t + 1) * numbers + n, plane, h);
  }
  number dh = planes_load(complex, k->dh + n, plane), da = number_set(0);
  for (int64_t t = steps - 1; t >= 0; t--) {
    const int64_t at = t * CHANNELS + c;
    const vec dt = vec_set(k->dt[at]), u = vec_set(k->u[at]), dy = twice * vec_set(k->dy[at]);
    const number B = planes_load(complex, k->B + t * numbers + n, plane);
    const number C = planes_load(complex, k->C + t * numbers + n, plane);
    const number decay = planes_load(complex, k->decay + t * numbers + n, plane);
    const number kept = number_times(complex, decay, planes_load(complex, k->h + t * numbers + n, plane));
    k->y[at] += vec_sum(twice * number_times(complex, C, h).re);
    if (sums->dC)
      add_number(complex, sums->dC + t * sums->stride + n, plane,
                 number_scale(complex, dy, number_conjugate(complex, h)));
    dh = number_plus(complex, dh, number_scale(complex, dy, number_conjugate(complex, C)));
    if (sums->dB) add_number(complex, sums->dB + t * sums->stride + n, plane, number_scale(complex, dt * u, dh));
    const number through = number_times(complex, number_conjugate(complex, B), dh);
    const number along = number_times(complex, number_conjugate(complex, kept), dh);
    k->du[at] += vec_sum(dt * through.re);
    k->ddt[at] += vec_sum(u * through.re + number_times(complex, number_conjugate(complex, rate), along).re);
    da = number_plus(complex, da, number_scale(complex, dt, along));
    dh = number_times(complex, dh, number_conjugate(complex, decay));
    h = planes_load(complex, k->h + t * numbers + n, plane);
  }
  if (task->f->A_is_log) da = number_times(complex, number_conjugate(complex, rate), da);
  add_number(complex, k->da + n, plane, da);
  planes_store(complex, k->dh + n, plane, dh);
}

/* dt, u, dy of the steps, and B and C of the group. */
static void begin_strip(const gradient_task *task, gradient_scratch *k, int64_t b, int64_t group, int64_t c0,
                        int64_t n) {
  const state_update_shape *s = task->s;
  const clm_selective_state_update_args *f = task->f;
  float bias[CHANNELS], z[CHANNELS];
  update_gather(s, &f->delta_bias, (update_span){b, 0, c0, n}, bias);
  for (int64_t t = 0; t < s->steps; t++) {
    const update_span at = {b, t, c0, n};
    float *dy = k->dy + t * CHANNELS;
    update_sizes(s, f, at, bias, k->dt + t * CHANNELS, k->u + t * CHANNELS);
    update_gather(s, &task->a->dout, at, dy);
    if (present(f->z)) update_gather(s, &f->z, at, z);
    for (int64_t c = 0; c < n && present(f->z); c += LANES) {
      vec gate = vec_load_part(z + c, n - c);
      vec_store_part(dy + c, vec_load_part(dy + c, n - c) * (gate * vec_sigmoid(gate)), n - c);
    }
    planes_read(s->complex, &f->B, update_input_at(&f->B, b, t, group), s->d_state, task->plane,
                k->B + t * task->numbers);
    planes_read(s->complex, &f->C, update_input_at(&f->C, b, t, group), s->d_state, task->plane,
                k->C + t * task->numbers);
  }
  float *const sums[] = {k->y, k->du, k->ddt};
  for (int i = 0; i < 3; i++) memset(sums[i], 0, (size_t)(s->steps * CHANNELS) * sizeof(float));
}

/* From sums over the states to the gradients of a step's channels. */
static void end_strip(const gradient_task *task, gradient_scratch *k, int64_t b, int64_t c0, int64_t n, float *dD,
                      float *dbias) {
  const state_update_shape *s = task->s;
  const clm_selective_state_update_args *f = task->f;
  float D[CHANNELS], z[CHANNELS], dout[CHANNELS], dz[CHANNELS];
  update_gather(s, &f->D, (update_span){b, 0, c0, n}, D);
  for (int64_t t = 0; t < s->steps; t++) {
    const update_span at = {b, t, c0, n};
    float *du = k->du + t * CHANNELS, *ddt = k->ddt + t * CHANNELS;
    const float *u = k->u + t * CHANNELS, *dt = k->dt + t * CHANNELS, *dy = k->dy + t * CHANNELS;
    if (present(task->a->dz)) {
      update_gather(s, &f->z, at, z);
      update_gather(s, &task->a->dout, at, dout);
    }
    for (int64_t c = 0; c < n; c += LANES) {
      const int64_t left = n - c;
      const vec in = vec_load_part(u + c, left), d = vec_load_part(D + c, left), g = vec_load_part(dy + c, left);
      vec from_dt = vec_load_part(ddt + c, left);
      if (f->delta_softplus) from_dt *= vec_softplus_slope(vec_load_part(dt + c, left));
      vec_store_part(ddt + c, from_dt, left);
      vec_store_part(du + c, vec_load_part(du + c, left) + d * g, left);
      vec_store_part(dD + c, vec_load_part(dD + c, left) + g * in, left);
      vec_store_part(dbias + c, vec_load_part(dbias + c, left) + from_dt, left);
      if (!present(task->a->dz)) continue;
      const vec gate = vec_load_part(z + c, left), sigmoid = vec_sigmoid(gate);
      const vec slope = sigmoid * (vec_set(1) + gate * (vec_set(1) - sigmoid));
      const vec y = vec_load_part(k->y + t * CHANNELS + c, left) + d * in;
      vec_store_part(dz + c, vec_load_part(dout + c, left) * y * slope, left);
    }
    update_scatter(s, &task->a->du, at, du);
    update_scatter(s, &task->a->ddelta, at, ddt);
    update_scatter(s, &task->a->dz, at, dz);
  }
}

/* A padding row has gradients 0. */
static void clear_row(const gradient_task *task, gradient_scratch *k, int64_t b, int64_t c0, int64_t n) {
  const state_update_shape *s = task->s;
  float zeros[CHANNELS] = {0};
  memset(k->dh, 0, (size_t)task->numbers * sizeof *k->dh);
  for (int64_t t = 0; t < s->steps; t++) {
    const update_span at = {b, t, c0, n};
    update_scatter(s, &task->a->du, at, zeros);
    update_scatter(s, &task->a->ddelta, at, zeros);
    update_scatter(s, &task->a->dz, at, zeros);
  }
  update_channel channel = update_channel_at(s, c0);
  for (int64_t c = 0; c < n; c++, update_next(s, &channel))
    planes_write(s->complex, &task->a->dstate, update_state_at(&task->a->dstate, b, channel), s->d_state, task->plane,
                 k->dh);
}

static void run_channel(const gradient_task *task, gradient_scratch *k, const strip_sums *sums, int64_t b,
                        int64_t row, update_channel channel, int64_t c, float *dA) {
  const state_update_shape *s = task->s;
  const clm_selective_state_update_args *f = task->f;
  const clm_tensor *dnew = &task->a->dnew_state, *dstate = &task->a->dstate;
  planes_read(s->complex, &f->state, update_state_at(&f->state, row, channel), s->d_state, task->plane, k->state);
  planes_read(s->complex, &f->A, update_matrix_at(&f->A, channel), s->d_state, task->plane, k->rate);
  planes_read(s->complex, dnew, update_state_at(dnew, b, channel), s->d_state, task->plane, k->dh);
  memcpy(k->da, dA, (size_t)task->numbers * sizeof *dA);
  for (int64_t n = 0; n < task->plane; n += LANES)
    if (s->complex) states_backward(true, task, k, sums, c, n);
    else states_backward(false, task, k, sums, c, n);
  memcpy(dA, k->da, (size_t)task->numbers * sizeof *dA);
  planes_write(s->complex, dstate, update_state_at(dstate, b, channel), s->d_state, task->plane, k->dh);
}

static void gradient_strip(void *arg, int64_t index, int worker) {
  const gradient_task *task = arg;
  const state_update_shape *s = task->s;
  const int64_t strips = task->strips * s->n_groups, channels = s->n_heads * s->head_dim;
  const int64_t piece = index / strips, group = index % strips / task->strips, strip = index % task->strips;
  const int64_t from = strip * CHANNELS, n = min_of(CHANNELS, task->of_group - from);
  const int64_t c0 = group * task->of_group + from, first = piece * channels + c0;
  gradient_scratch k;
  scratch_layout(task, task->scratch + worker * task->scratch_row, &k);
  memset(task->dA + first * task->numbers, 0, (size_t)(n * task->numbers) * sizeof(float));
  memset(task->dD + first, 0, (size_t)n * sizeof(float));
  memset(task->dbias + first, 0, (size_t)n * sizeof(float));
  for (int64_t b = piece * s->batch / task->pieces; b < (piece + 1) * s->batch / task->pieces; b++) {
    const int64_t row = update_row(s, task->f, b);
    const int64_t part = ((strip * s->batch + b) * s->steps * s->n_groups + group) * task->numbers;
    const strip_sums sums = {task->dB ? task->dB + part : NULL, task->dC ? task->dC + part : NULL,
                             s->n_groups * task->numbers};
    for (int64_t t = 0; t < s->steps; t++) {
      if (sums.dB) memset(sums.dB + t * sums.stride, 0, (size_t)task->numbers * sizeof(float));
      if (sums.dC) memset(sums.dC + t * sums.stride, 0, (size_t)task->numbers * sizeof(float));
    }
    if (row < 0) {
      clear_row(task, &k, b, c0, n);
      continue;
    }
    begin_strip(task, &k, b, group, c0, n);
    update_channel channel = update_channel_at(s, c0);
    for (int64_t c = 0; c < n; c++, update_next(s, &channel))
      run_channel(task, &k, &sums, b, row, channel, c, task->dA + (first + c) * task->numbers);
    end_strip(task, &k, b, c0, n, task->dD + first, task->dbias + first);
  }
}

/* ---- Sums of the parts ---- */

/* Adds up to the first part. */
static void sum_input(void *arg, int64_t index, int worker) {
  const gradient_task *task = arg;
  const state_update_shape *s = task->s;
  const int64_t group = index % s->n_groups, t = index / s->n_groups % s->steps, b = index / s->n_groups / s->steps;
  const int64_t all = s->batch * s->steps * s->n_groups * task->numbers;
  const clm_tensor *const out[] = {&task->a->dB, &task->a->dC};
  float *const parts[] = {task->dB, task->dC};
  (void)worker;
  for (int i = 0; i < 2; i++) {
    if (!parts[i]) continue;
    float *sum = parts[i] + index * task->numbers;
    for (int64_t strip = 1; strip < task->strips; strip++)
      for (int64_t n = 0; n < task->numbers; n += LANES)
        vec_store(sum + n, vec_load(sum + n) + vec_load(sum + strip * all + n));
    planes_write(s->complex, out[i], update_input_at(out[i], b, t, group), s->d_state, task->plane, sum);
  }
}

static void sum_batch(const gradient_task *task) {
  const state_update_shape *s = task->s;
  const clm_selective_state_update_backward_args *a = task->a;
  const int64_t channels = s->n_heads * s->head_dim;
  kernel_sum_parts(task->dA, task->pieces, channels * task->numbers, task->dA, 1);
  kernel_sum_parts(task->dD, task->pieces, channels, task->dD, 1);
  kernel_sum_parts(task->dbias, task->pieces, channels, task->dbias, 1);
  update_channel channel = {0, 0};
  for (int64_t c = 0; c < channels; c++, update_next(s, &channel))
    planes_write(s->complex, &a->dA, update_matrix_at(&a->dA, channel), s->d_state, task->plane,
                 task->dA + c * task->numbers);
  if (present(a->dD)) update_walk(s, &a->dD, 0, 0, 0, channels, task->dD, true);
  if (present(a->ddelta_bias)) update_walk(s, &a->ddelta_bias, 0, 0, 0, channels, task->dbias, true);
}

static float *take(float *memory, int64_t *used, bool wanted, int64_t floats) {
  float *at = memory && wanted ? memory + *used : NULL;
  if (wanted) *used += round_up(floats, 16);
  return at;
}

/* Lays the parts and the scratch out in `memory`, which may be NULL; how many floats they take. */
static int64_t lay_out(gradient_task *task, int threads, float *memory) {
  const state_update_shape *s = task->s;
  const int64_t channels = s->n_heads * s->head_dim, inputs = s->batch * s->steps * s->n_groups * task->numbers;
  int64_t used = 0;
  gradient_scratch unused;
  task->dB = take(memory, &used, present(task->a->dB), task->strips * inputs);
  task->dC = take(memory, &used, present(task->a->dC), task->strips * inputs);
  task->dA = take(memory, &used, true, task->pieces * channels * task->numbers);
  task->dD = take(memory, &used, true, task->pieces * channels);
  task->dbias = take(memory, &used, true, task->pieces * channels);
  task->scratch_row = round_up(scratch_layout(task, NULL, &unused), 16);
  task->scratch = take(memory, &used, true, task->scratch_row * threads);
  return used;
}

clm_status KERNEL(selective_state_update_backward)(clm_context *ctx, const state_update_shape *s,
                                                   const clm_selective_state_update_backward_args *a) {
  if (s->dtype == CLM_F64) return ref_selective_state_update_backward(ctx, s, a);
  const int threads = cpu_pool_threads(cpu_context_pool(ctx));
  gradient_task task = {.s = s,
                        .f = &a->forward,
                        .a = a,
                        .plane = round_up(s->d_state, LANES),
                        .of_group = s->n_heads / s->n_groups * s->head_dim,
                        .pieces = min_of(s->batch, PIECES)};
  task.numbers = (1 + s->complex) * task.plane;
  task.strips = div_up(task.of_group, CHANNELS);
  clm_buffer *workspace;
  clm_status status = context_workspace(ctx, (size_t)lay_out(&task, threads, NULL) * sizeof(float), &workspace);
  if (status) return status;
  lay_out(&task, threads, workspace->host);
  cpu_pool_run(cpu_context_pool(ctx), task.pieces * s->n_groups * task.strips, gradient_strip, &task);
  cpu_pool_run(cpu_context_pool(ctx), s->batch * s->steps * s->n_groups, sum_input, &task);
  sum_batch(&task);
  context_explain(ctx, "selective_state_update_backward: cpu %s, %d channels a task, %d states in lanes",
                  cpu_context_level(ctx), CHANNELS, LANES);
  return CLM_OK;
}
