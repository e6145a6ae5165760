/* Discretization of a diagonal system and its gradients, states in lanes: with x = dt A,  A_bar = f(x) and
 * B_bar = dt g(x) B (see the reference). Every kernel is compiled for real and for complex A. */
#include "number.h"

#define PARTS 32 /* runs of rows whose sums are kept apart: the same for any number of threads */

typedef struct discretize_task {
  const discretize_shape *s;
  const clm_discretize_args *f;
  const clm_discretize_backward_args *a;
  int64_t run;   /* rows of (batch, step) in a part */
  float *sums;   /* (parts, planes, d_inner, d_state): real parts of dA, of dB, then the imaginary ones */
  float *inputs; /* of each worker: dB of one step, a plane for each part */
} discretize_task;

typedef struct response { /* values and derivatives at x */
  number f, g, df, dg;
} response;

/* sum of factor[k] x^k */
INLINE number series(bool complex, number x, const float *factors, int count) {
  number sum = number_set(factors[count - 1]);
  for (int k = count - 2; k >= 0; k--)
    sum = number_plus(complex, number_times(complex, sum, x), number_set(factors[k]));
  return sum;
}

/* (e^x - 1)/x and its derivative; as series where the closed forms would cancel. */
INLINE void expm1_over_x(bool complex, number x, number e, bool derivative, number *g, number *dg) {
  static const float value[] = {1,          1.0f / 2,    1.0f / 6,     1.0f / 24,    1.0f / 120,
                                1.0f / 720, 1.0f / 5040, 1.0f / 40320, 1.0f / 362880};
  static const float slope[] = {1.0f / 2,   1.0f / 3,    1.0f / 8,     1.0f / 30,    1.0f / 144,
                                1.0f / 840, 1.0f / 5760, 1.0f / 45360, 1.0f / 403200};
  vec_i small = (vec_i)(number_square(complex, x) < vec_set(0.25f));
  number q = number_inverse(complex, number_choose(complex, small, number_set(1), x));
  number closed = number_times(complex, number_minus(complex, e, number_set(1)), q);
  *g = number_choose(complex, small, series(complex, x, value, 9), closed);
  if (!derivative) return;
  closed = number_times(complex, number_minus(complex, e, closed), q);
  *dg = number_choose(complex, small, series(complex, x, slope, 9), closed);
}

INLINE response respond(bool complex, clm_discretization method, number x, bool derivative) {
  response r;
  if (method == CLM_BILINEAR) {
    number half = number_scale(complex, vec_set(0.5f), x);
    r.g = number_inverse(complex, number_minus(complex, number_set(1), half));
    r.f = number_times(complex, number_plus(complex, number_set(1), half), r.g);
    r.df = number_times(complex, r.g, r.g);
    r.dg = number_scale(complex, vec_set(0.5f), r.df);
    return r;
  }
  r.f = r.df = number_exp(complex, x);
  r.g = number_set(1);
  r.dg = number_set(0);
  if (method == CLM_ZOH) expm1_over_x(complex, x, r.f, derivative, &r.g, &r.dg);
  return r;
}

/* (batch, length, d_inner, d_state) at one step and channel. */
INLINE number_line pair_at(bool complex, const clm_tensor *t, int64_t b, int64_t step, int64_t d) {
  return number_line_at(complex, t, b * t->stride[0] + step * t->stride[1] + d * t->stride[2], t->stride[3]);
}
INLINE number_line matrix_at(bool complex, const clm_tensor *t, int64_t d) {
  return number_line_at(complex, t, d * t->stride[0], t->stride[1]);
}
INLINE number_line input_at(bool complex, const discretize_shape *s, const clm_tensor *B, int64_t b, int64_t t,
                            int64_t d) {
  if (!s->B_varies) return matrix_at(complex, B, d);
  return number_line_at(complex, B, b * B->stride[0] + t * B->stride[1], B->stride[2]);
}
static line deltas_at(const clm_tensor *delta, int64_t b, int64_t t) {
  return line_at(delta, b * delta->stride[0] + t * delta->stride[1], delta->stride[2]);
}

/* ---- forward: a task is one step ---- */

INLINE void channel(bool complex, const discretize_task *task, int64_t b, int64_t t, int64_t d, float delta) {
  const discretize_shape *s = task->s;
  const clm_discretize_args *f = task->f;
  number_line A = matrix_at(complex, &f->A, d), B = input_at(complex, s, &f->B, b, t, d);
  number_line A_bar = pair_at(complex, &f->A_bar, b, t, d), B_bar = pair_at(complex, &f->B_bar, b, t, d);
  vec dt = vec_set(delta);
  for (int64_t n0 = 0; n0 < s->d_state; n0 += NUMBER_BLOCK) {
    int64_t n = min_of(NUMBER_BLOCK, s->d_state - n0);
    number_block a, in, out_a, out_b;
    number_load(complex, A, n0, n, &a);
    number_load(complex, B, n0, n, &in);
    for (int64_t i = 0; i < n; i += LANES) {
      response r = respond(complex, f->method, number_scale(complex, dt, number_of(complex, &a, i, n)), false);
      number_keep(complex, &out_a, i, r.f);
      number_keep(complex, &out_b, i,
                  number_scale(complex, dt, number_times(complex, r.g, number_of(complex, &in, i, n))));
    }
    number_write(complex, A_bar, n0, n, &out_a);
    number_write(complex, B_bar, n0, n, &out_b);
  }
}

static void discretize_step(void *arg, int64_t index, int worker) {
  const discretize_task *task = arg;
  const discretize_shape *s = task->s;
  int64_t b = index / s->length, t = index % s->length;
  line deltas = deltas_at(&task->f->delta, b, t);
  (void)worker;
  for (int64_t d0 = 0; d0 < s->d_inner; d0 += NUMBER_BLOCK) {
    int64_t n = min_of(NUMBER_BLOCK, s->d_inner - d0);
    float scratch[NUMBER_BLOCK];
    const float *dt = line_load(line_from(deltas, d0), n, scratch);
    for (int64_t i = 0; i < n; i++)
      if (s->complex) channel(true, task, b, t, d0 + i, dt[i]);
      else channel(false, task, b, t, d0 + i, dt[i]);
  }
}

static bool usable(const discretize_shape *s, const clm_discretize_args *f) {
  return ALL_STORAGE(f->delta) && f->A.dtype == (s->complex ? CLM_C64 : CLM_F32);
}

clm_status KERNEL(discretize)(clm_context *ctx, const discretize_shape *s, const clm_discretize_args *a) {
  if (!usable(s, a)) return ref_discretize(ctx, s, a);
  discretize_task task = {.s = s, .f = a};
  cpu_pool_run(cpu_context_pool(ctx), s->batch * s->length, discretize_step, &task);
  context_explain(ctx, "discretize: cpu %s, one step a task, %d states in lanes", cpu_context_level(ctx), LANES);
  return CLM_OK;
}

/* ---- backward: a task is a run of steps ---- */

INLINE void add_to(float *sums, vec x, int64_t n) { vec_store_part(sums, vec_load_part(sums, n) + x, n); }

/* Of dA and dB, over steps: a channel's states, and how far its imaginary parts are from them. */
typedef struct channel_sums {
  float *A, *B;
  int64_t A_plane, B_plane;
} channel_sums;

/* Adds to the sums and returns ddelta. */
INLINE float channel_gradient(bool complex, const discretize_task *task, int64_t b, int64_t t, int64_t d, float delta,
                              channel_sums sums) {
  const discretize_shape *s = task->s;
  const clm_discretize_args *f = task->f;
  number_line A = matrix_at(complex, &f->A, d), B = input_at(complex, s, &f->B, b, t, d);
  number_line dA_bar = pair_at(complex, &task->a->dA_bar, b, t, d),
              dB_bar = pair_at(complex, &task->a->dB_bar, b, t, d);
  vec dt = vec_set(delta), ddelta = vec_set(0);
  for (int64_t n0 = 0; n0 < s->d_state; n0 += NUMBER_BLOCK) {
    int64_t n = min_of(NUMBER_BLOCK, s->d_state - n0);
    number_block block_A, block_B, block_dA, block_dB;
    number_load(complex, A, n0, n, &block_A);
    number_load(complex, B, n0, n, &block_B);
    number_load(complex, dA_bar, n0, n, &block_dA);
    number_load(complex, dB_bar, n0, n, &block_dB);
    for (int64_t i = 0; i < n; i += LANES) {
      number a = number_of(complex, &block_A, i, n), in = number_of(complex, &block_B, i, n);
      number da = number_of(complex, &block_dA, i, n), db = number_of(complex, &block_dB, i, n);
      response r = respond(complex, f->method, number_scale(complex, dt, a), true);
      number through = number_times(complex, number_conjugate(complex, number_times(complex, r.dg, in)), db);
      number dx = number_plus(complex, number_times(complex, number_conjugate(complex, r.df), da),
                              number_scale(complex, dt, through));
      number gained = number_times(complex, number_conjugate(complex, number_times(complex, r.g, in)), db);
      ddelta += vec_keep(number_times(complex, number_conjugate(complex, a), dx).re + gained.re, n - i);
      number gB = number_times(complex, number_conjugate(complex, r.g), number_scale(complex, dt, db));
      add_to(sums.A + n0 + i, dt * dx.re, n - i);
      add_to(sums.B + n0 + i, gB.re, n - i);
      if (complex) {
        add_to(sums.A + sums.A_plane + n0 + i, dt * dx.im, n - i);
        add_to(sums.B + sums.B_plane + n0 + i, gB.im, n - i);
      }
    }
  }
  return vec_sum(ddelta);
}

static void write_states(bool complex, const clm_tensor *t, int64_t at, int64_t stride, const float *sums,
                         int64_t plane, int64_t n) {
  number_line out = number_line_at(complex, t, at, stride);
  if (!t->buffer) return;
  line_write(out.re, n, sums);
  if (complex) line_write(out.im, n, sums + plane);
}

static void gradient_step(const discretize_task *task, int64_t b, int64_t t, float *sums, float *inputs) {
  const discretize_shape *s = task->s;
  const clm_tensor *dB = &task->a->dB;
  int64_t elements = s->d_inner * s->d_state;
  line deltas = deltas_at(&task->f->delta, b, t);
  memset(inputs, 0, (size_t)(2 * s->d_state) * sizeof *inputs);
  for (int64_t d0 = 0; d0 < s->d_inner; d0 += NUMBER_BLOCK) {
    int64_t n = min_of(NUMBER_BLOCK, s->d_inner - d0);
    float scratch[NUMBER_BLOCK], ddelta[NUMBER_BLOCK];
    const float *dt = line_load(line_from(deltas, d0), n, scratch);
    for (int64_t i = 0; i < n; i++) {
      float *sum_A = sums + (d0 + i) * s->d_state;
      const channel_sums own = {.A = sum_A,
                                .B = s->B_varies ? inputs : sum_A + elements,
                                .A_plane = 2 * elements,
                                .B_plane = s->B_varies ? s->d_state : 2 * elements};
      ddelta[i] = s->complex ? channel_gradient(true, task, b, t, d0 + i, dt[i], own)
                             : channel_gradient(false, task, b, t, d0 + i, dt[i], own);
    }
    if (present(task->a->ddelta)) line_write(line_from(deltas_at(&task->a->ddelta, b, t), d0), n, ddelta);
  }
  if (s->B_varies && present(*dB))
    write_states(s->complex, dB, b * dB->stride[0] + t * dB->stride[1], dB->stride[2], inputs, s->d_state,
                 s->d_state);
}

static int64_t planes_of(const discretize_shape *s) { return s->complex ? 4 : 2; }

static void gradient_run(void *arg, int64_t index, int worker) {
  const discretize_task *task = arg;
  const discretize_shape *s = task->s;
  int64_t floats = planes_of(s) * s->d_inner * s->d_state;
  float *sums = task->sums + index * floats;
  memset(sums, 0, (size_t)floats * sizeof *sums);
  for (int64_t row = index * task->run; row < min_of((index + 1) * task->run, s->batch * s->length); row++)
    gradient_step(task, row / s->length, row % s->length, sums, task->inputs + worker * 2 * s->d_state);
}

clm_status KERNEL(discretize_backward)(clm_context *ctx, const discretize_shape *s,
                                       const clm_discretize_backward_args *a) {
  if (!usable(s, &a->forward)) return ref_discretize_backward(ctx, s, a);
  int64_t rows = s->batch * s->length, elements = s->d_inner * s->d_state, floats = planes_of(s) * elements;
  discretize_task task = {.s = s, .f = &a->forward, .a = a, .run = div_up(rows, PARTS)};
  int64_t parts = div_up(rows, task.run), threads = cpu_pool_threads(cpu_context_pool(ctx));
  clm_buffer *workspace;
  clm_status status =
      context_workspace(ctx, (size_t)(parts * floats + threads * 2 * s->d_state) * sizeof(float), &workspace);
  if (status) return status;
  task.sums = workspace->host;
  task.inputs = task.sums + parts * floats;
  cpu_pool_run(cpu_context_pool(ctx), parts, gradient_run, &task);
  kernel_sum_parts(task.sums, parts, floats, task.sums, 1);
  for (int64_t d = 0; d < s->d_inner; d++) {
    const float *sums = task.sums + d * s->d_state;
    write_states(s->complex, &a->dA, d * a->dA.stride[0], a->dA.stride[1], sums, 2 * elements, s->d_state);
    if (!s->B_varies)
      write_states(s->complex, &a->dB, d * a->dB.stride[0], a->dB.stride[1], sums + elements, 2 * elements,
                   s->d_state);
  }
  context_explain(ctx, "discretize_backward: cpu %s, sums in %lld parts, %d states in lanes", cpu_context_level(ctx),
                  (long long)parts, LANES);
  return CLM_OK;
}
