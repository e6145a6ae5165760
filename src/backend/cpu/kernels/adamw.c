#include "kernels.h"

#define PIECE 8192

typedef struct adamw_task {
  float *parameter, *m, *v;
  const float *gradient;
  int64_t count;
  float scale, beta1, beta2, step_size, correction2, epsilon, keep; /* keep = 1 - lr weight_decay */
} adamw_task;

static void adamw_piece(void *arg, int64_t index, int worker) {
  const adamw_task task = *(const adamw_task *)arg;
  int64_t first = index * PIECE, n = min_of(PIECE, task.count - first);
  float *restrict parameter = task.parameter + first, *restrict m = task.m + first, *restrict v = task.v + first;
  const float *restrict gradient = task.gradient + first;
  (void)worker;
  for (int64_t i = 0; i < n; i++) {
    float g = gradient[i] * task.scale;
    m[i] = task.beta1 * m[i] + (1 - task.beta1) * g;
    v[i] = task.beta2 * v[i] + (1 - task.beta2) * (g * g);
    parameter[i] = task.keep * parameter[i] - task.step_size * m[i] / (sqrtf(v[i] * task.correction2) + task.epsilon);
  }
}

static bool contiguous(const clm_tensor *t) { return t->shape[0] == 1 || t->stride[0] == 1; }

clm_status KERNEL(adamw)(clm_context *ctx, const elementwise_shape *s, const clm_adamw_args *a) {
  if (!ALL_F32(a->parameter, a->gradient, a->m, a->v, a->sum_squares) || !contiguous(&a->parameter) ||
      !contiguous(&a->gradient) || !contiguous(&a->m) || !contiguous(&a->v))
    return ref_adamw(ctx, s, a);
  double scale = a->gradient_scale == 0 ? 1 : (double)a->gradient_scale;
  context_explain(ctx, "adamw: cpu %s, pieces of %d", cpu_context_level(ctx), PIECE);
  if (present(a->sum_squares)) {
    double squares = (double)*kernel_data(a->sum_squares);
    if (!isfinite(squares)) return CLM_OK;
    if (a->max_norm > 0) scale *= fmin(1, (double)a->max_norm / (scale * sqrt(squares) + 1e-6));
  }
  adamw_task task = {
      .parameter = kernel_data(a->parameter),
      .m = kernel_data(a->m),
      .v = kernel_data(a->v),
      .gradient = kernel_data(a->gradient),
      .count = s->count,
      .scale = (float)scale,
      .beta1 = a->beta1,
      .beta2 = a->beta2,
      .step_size = (float)((double)a->lr / (1 - pow((double)a->beta1, (double)a->step))),
      .correction2 = (float)(1 / (1 - pow((double)a->beta2, (double)a->step))),
      .epsilon = a->epsilon,
      .keep = (float)(1 - (double)a->lr * (double)a->weight_decay),
  };
  cpu_pool_run(cpu_context_pool(ctx), div_up(s->count, PIECE), adamw_piece, &task);
  return CLM_OK;
}
