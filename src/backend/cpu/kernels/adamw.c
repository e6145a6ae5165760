#include "storage.h"

#define PIECE 8192
#define BLOCK 256

typedef struct adamw_task {
  const clm_adamw_args *a;
  int64_t count;
  float scale, beta1, beta2, step_size, correction2, epsilon, keep; /* keep = 1 - lr weight_decay */
} adamw_task;

static void adamw_block(const adamw_task task, int64_t first, int64_t n) {
  const clm_tensor *const views[] = {&task.a->parameter, &task.a->m, &task.a->v};
  float scratch[3][BLOCK], gradients[BLOCK], *x[3];
  line lines[3];
  for (int i = 0; i < 3; i++) {
    lines[i] = line_from(line_vector(views[i]), first);
    x[i] = line_target(lines[i], scratch[i]);
    line_load(lines[i], n, scratch[i]);
  }
  float *restrict parameter = x[0], *restrict m = x[1], *restrict v = x[2];
  const float *restrict gradient = line_load(line_from(line_vector(&task.a->gradient), first), n, gradients);
  for (int64_t i = 0; i < n; i++) {
    float g = gradient[i] * task.scale;
    m[i] = task.beta1 * m[i] + (1 - task.beta1) * g;
    v[i] = task.beta2 * v[i] + (1 - task.beta2) * (g * g);
    parameter[i] = task.keep * parameter[i] - task.step_size * m[i] / (sqrtf(v[i] * task.correction2) + task.epsilon);
  }
  for (int i = 0; i < 3; i++) line_store(lines[i], n, x[i]);
  if (present(task.a->copy)) line_write(line_from(line_vector(&task.a->copy), first), n, parameter);
}

static void adamw_piece(void *arg, int64_t index, int worker) {
  const adamw_task *task = arg;
  int64_t first = index * PIECE, n = min_of(PIECE, task->count - first);
  (void)worker;
  for (int64_t i = 0; i < n; i += BLOCK) adamw_block(*task, first + i, min_of(BLOCK, n - i));
}

clm_status KERNEL(adamw)(clm_context *ctx, const elementwise_shape *s, const clm_adamw_args *a) {
  if (!ALL_F32(a->parameter, a->m, a->v, a->sum_squares) || !ALL_STORAGE(a->gradient, a->copy))
    return ref_adamw(ctx, s, a);
  double scale = a->gradient_scale == 0 ? 1 : (double)a->gradient_scale;
  context_explain(ctx, "adamw: cpu %s, pieces of %d", cpu_context_level(ctx), PIECE);
  if (present(a->sum_squares)) {
    double squares = (double)*kernel_data(a->sum_squares);
    if (!isfinite(squares)) return CLM_OK;
    if (a->max_norm > 0) scale *= fmin(1, (double)a->max_norm / (scale * sqrt(squares) + 1e-6));
  }
  adamw_task task = {
      .a = a,
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
