/* Discretization of a real diagonal system, states in lanes: with x = dt A,  A_bar = f(x), B_bar = dt g(x) B (see the
 * reference, which also takes the complex ones). */
#include "kernels.h"

typedef struct discretize_task {
  const discretize_shape *s;
  const clm_discretize_args *f;
} discretize_task;

/* (e^x - 1)/x: the series where the closed form would cancel. */
static inline vec expm1_over_x(vec x, vec e) {
  vec p = vec_set(1.0f / 40320);
  static const float factorials[] = {5040, 720, 120, 24, 6, 2, 1};
  for (int i = 0; i < 7; i++) p = p * x + vec_set(1 / factorials[i]);
  vec_i small = vec_abs(x) < vec_set(0.5f);
  vec closed = (e - vec_set(1.0f)) / (vec)(((vec_i)x & ~small) | ((vec_i)vec_set(1.0f) & small));
  return (vec)(((vec_i)p & small) | ((vec_i)closed & ~small));
}

INLINE void evaluate(clm_discretization method, vec x, vec *f, vec *g) {
  if (method == CLM_BILINEAR) {
    *g = vec_set(1.0f) / (vec_set(1.0f) - vec_set(0.5f) * x);
    *f = (vec_set(1.0f) + vec_set(0.5f) * x) * *g;
    return;
  }
  *f = vec_exp(x);
  *g = method == CLM_ZOH ? expm1_over_x(x, *f) : vec_set(1.0f);
}

static void discretize_step(void *arg, int64_t index, int worker) {
  const discretize_task *task = arg;
  const discretize_shape *s = task->s;
  const clm_discretize_args *a = task->f;
  int64_t b = index / s->length, t = index % s->length;
  (void)worker;
  for (int64_t d = 0; d < s->d_inner; d++) {
    vec dt = vec_set(kernel_data(a->delta)[b * a->delta.stride[0] + t * a->delta.stride[1] + d * a->delta.stride[2]]);
    const float *A = kernel_data(a->A) + d * a->A.stride[0], *B = kernel_data(a->B);
    B += s->B_varies ? b * a->B.stride[0] + t * a->B.stride[1] : d * a->B.stride[0];
    float *A_bar = kernel_data(a->A_bar), *B_bar = kernel_data(a->B_bar);
    A_bar += b * a->A_bar.stride[0] + t * a->A_bar.stride[1] + d * a->A_bar.stride[2];
    B_bar += b * a->B_bar.stride[0] + t * a->B_bar.stride[1] + d * a->B_bar.stride[2];
    for (int64_t n = 0; n < s->d_state; n += LANES) {
      int64_t left = s->d_state - n;
      vec f, g;
      evaluate(a->method, dt * vec_load_part(A + n, left), &f, &g);
      vec_store_part(A_bar + n, f, left);
      vec_store_part(B_bar + n, dt * g * vec_load_part(B + n, left), left);
    }
  }
}

static bool states_last(const clm_tensor *t) { return t->shape[t->rank - 1] == 1 || t->stride[t->rank - 1] == 1; }

clm_status KERNEL(discretize)(clm_context *ctx, const discretize_shape *s, const clm_discretize_args *a) {
  if (s->complex || !ALL_F32(a->delta, a->A, a->B, a->A_bar, a->B_bar) || !states_last(&a->A) ||
      !states_last(&a->B) || !states_last(&a->A_bar) || !states_last(&a->B_bar))
    return ref_discretize(ctx, s, a);
  discretize_task task = {s, a};
  cpu_pool_run(cpu_context_pool(ctx), s->batch * s->length, discretize_step, &task);
  context_explain(ctx, "discretize: cpu %s, one step a task, %d states in lanes", cpu_context_level(ctx), LANES);
  return CLM_OK;
}
