/* RMSNorm and LayerNorm: rows are independent; their gradients' sums over rows go through parts of ROWS rows each,
 * which are added in order. */
#include "kernels.h"

#define ROWS 64

typedef struct norm_task {
  const matrix_shape *s;
  const clm_norm_args *f;
  const clm_norm_backward_args *a;
  float *dweight, *dbias; /* (parts, dim), NULL if not wanted */
} norm_task;

static void statistics(const clm_norm_args *f, const float *x, int64_t dim, float *mean, float *scale) {
  vec sum = vec_set(0), squares = vec_set(0);
  *mean = 0;
  if (f->kind == CLM_LAYER_NORM) {
    for (int64_t j = 0; j < dim; j += LANES) sum += vec_load_part(x + j, dim - j);
    *mean = vec_sum(sum) / (float)dim;
  }
  for (int64_t j = 0; j < dim; j += LANES) {
    vec v = vec_load_part(x + j, dim - j) - vec_set(*mean);
    if (dim - j < LANES) v = vec_keep(v, dim - j);
    squares = v * v + squares;
  }
  *scale = 1 / sqrtf(vec_sum(squares) / (float)dim + f->epsilon);
}

static const float *row_of(const clm_tensor *t, int64_t i) { return kernel_data(*t) + i * t->stride[0]; }

static void norm_rows(void *arg, int64_t index, int worker) {
  const norm_task *task = arg;
  const clm_norm_args *f = task->f;
  const float *weight = kernel_data(f->weight), *bias = kernel_data(f->bias);
  int64_t dim = task->s->dim;
  (void)worker;
  for (int64_t i = index * ROWS; i < min_of((index + 1) * ROWS, task->s->rows); i++) {
    const float *x = row_of(&f->x, i);
    float mean, scale, *out = kernel_data(f->out) + i * f->out.stride[0];
    statistics(f, x, dim, &mean, &scale);
    for (int64_t j = 0; j < dim; j += LANES) {
      vec v = (vec_load_part(x + j, dim - j) - vec_set(mean)) * vec_set(scale);
      if (weight) v *= vec_load_part(weight + j, dim - j);
      if (bias) v += vec_load_part(bias + j, dim - j);
      vec_store_part(out + j, v, dim - j);
    }
  }
}

static bool matrix_ok(const clm_tensor *t) { return !t->buffer || t->shape[1] == 1 || t->stride[1] == 1; }
static bool vector_ok(const clm_tensor *t) { return !t->buffer || t->shape[0] == 1 || t->stride[0] == 1; }

static bool forward_ok(const clm_norm_args *f) {
  return ALL_F32(f->x, f->weight, f->bias) && matrix_ok(&f->x) && vector_ok(&f->weight) && vector_ok(&f->bias);
}

clm_status KERNEL(norm)(clm_context *ctx, const matrix_shape *s, const clm_norm_args *a) {
  if (!forward_ok(a) || a->out.dtype != CLM_F32 || !matrix_ok(&a->out)) return ref_norm(ctx, s, a);
  norm_task task = {.s = s, .f = a};
  cpu_pool_run(cpu_context_pool(ctx), div_up(s->rows, ROWS), norm_rows, &task);
  context_explain(ctx, "norm: cpu %s, %d rows a task", cpu_context_level(ctx), ROWS);
  return CLM_OK;
}

/* With x^ = (x - mean) scale and g = dout weight:  dx = scale (g - x^ mean(g x^) - mean(g)), the last for layer only.
 */
static void gradient_rows(void *arg, int64_t index, int worker) {
  const norm_task *task = arg;
  const clm_norm_backward_args *a = task->a;
  const clm_norm_args *f = task->f;
  const float *weight = kernel_data(f->weight);
  int64_t dim = task->s->dim;
  float *dweight = task->dweight ? task->dweight + index * dim : NULL;
  float *dbias = task->dbias ? task->dbias + index * dim : NULL;
  (void)worker;
  if (dweight) memset(dweight, 0, (size_t)dim * sizeof *dweight);
  if (dbias) memset(dbias, 0, (size_t)dim * sizeof *dbias);
  for (int64_t i = index * ROWS; i < min_of((index + 1) * ROWS, task->s->rows); i++) {
    const float *x = row_of(&f->x, i), *dout = row_of(&a->dout, i);
    const float *residual = present(a->residual) ? row_of(&a->residual, i) : NULL;
    float mean, scale;
    statistics(f, x, dim, &mean, &scale);
    vec along = vec_set(0), level = vec_set(0);
    for (int64_t j = 0; j < dim; j += LANES) {
      vec g = vec_load_part(dout + j, dim - j), n = (vec_load_part(x + j, dim - j) - vec_set(mean)) * vec_set(scale);
      if (dweight) vec_store_part(dweight + j, g * n + vec_load_part(dweight + j, dim - j), dim - j);
      if (dbias) vec_store_part(dbias + j, g + vec_load_part(dbias + j, dim - j), dim - j);
      if (weight) g *= vec_load_part(weight + j, dim - j);
      along = g * n + along;
      level += g;
    }
    if (!present(a->dx)) continue;
    vec mean_along = vec_set(vec_sum(along) / (float)dim);
    vec mean_level = vec_set(f->kind == CLM_LAYER_NORM ? vec_sum(level) / (float)dim : 0);
    float *dx = kernel_data(a->dx) + i * a->dx.stride[0];
    for (int64_t j = 0; j < dim; j += LANES) {
      vec g = vec_load_part(dout + j, dim - j), n = (vec_load_part(x + j, dim - j) - vec_set(mean)) * vec_set(scale);
      if (weight) g *= vec_load_part(weight + j, dim - j);
      vec d = vec_set(scale) * (g - n * mean_along - mean_level);
      if (residual) d += vec_load_part(residual + j, dim - j);
      vec_store_part(dx + j, d, dim - j);
    }
  }
}

clm_status KERNEL(norm_backward)(clm_context *ctx, const matrix_shape *s, const clm_norm_backward_args *a) {
  /* In very short rows dx is nearly all cancellation, which only the reference's double arithmetic bears. */
  if (s->dim < 4 || !forward_ok(&a->forward) || !ALL_F32(a->dout, a->residual, a->dx, a->dweight, a->dbias) ||
      !matrix_ok(&a->dout) || !matrix_ok(&a->residual) || !matrix_ok(&a->dx))
    return ref_norm_backward(ctx, s, a);
  int64_t parts = div_up(s->rows, ROWS);
  clm_buffer *workspace;
  clm_status status = context_workspace(ctx, (size_t)(2 * parts * s->dim) * sizeof(float), &workspace);
  if (status) return status;
  norm_task task = {.s = s, .f = &a->forward, .a = a};
  if (present(a->dweight)) task.dweight = workspace->host;
  if (present(a->dbias)) task.dbias = (float *)workspace->host + parts * s->dim;
  cpu_pool_run(cpu_context_pool(ctx), parts, gradient_rows, &task);
  if (task.dweight) kernel_sum_parts(task.dweight, parts, s->dim, kernel_data(a->dweight), a->dweight.stride[0]);
  if (task.dbias) kernel_sum_parts(task.dbias, parts, s->dim, kernel_data(a->dbias), a->dbias.stride[0]);
  context_explain(ctx, "norm_backward: cpu %s, %d rows a task", cpu_context_level(ctx), ROWS);
  return CLM_OK;
}
