/* RMSNorm and LayerNorm: rows are independent; their gradients' sums over rows go through parts of ROWS rows each,
 * which are added in order. */
#include "storage.h"

#define ROWS 64

typedef struct norm_task {
  matrix_shape s;
  clm_norm_args f;
  const clm_norm_backward_args *a;
  float *dweight, *dbias; /* (parts, dim), NULL if not wanted */
  float *scratch;         /* of each worker: rows as f32      */
  int64_t scratch_row;
} norm_task;

/* Row `i` of a worker's scratch; weight and bias, the same for all rows of a task, have theirs too. */
enum {
  SCRATCH_WEIGHT,
  SCRATCH_BIAS,
  SCRATCH_X,
  SCRATCH_DOUT,
  SCRATCH_RESIDUAL,
  SCRATCH_SUM,
  SCRATCH_OUT,
  SCRATCH_ROWS
};
static float *scratch_of(const norm_task *task, int worker, int i) {
  return task->scratch + worker * task->scratch_row + i * round_up(task->s.dim, 16);
}

static void statistics(const clm_norm_args *f, const float *x, int64_t dim, float *mean, float *scale) {
  vec sum = vec_set(0), squares = vec_set(0);
  const int64_t whole = dim / LANES * LANES;
  *mean = 0;
  if (f->kind == CLM_LAYER_NORM) {
    for (int64_t j = 0; j < whole; j += LANES) sum += vec_load(x + j);
    if (whole < dim) sum += vec_load_part(x + whole, dim - whole);
    *mean = vec_sum(sum) / (float)dim;
  }
  for (int64_t j = 0; j < whole; j += LANES) {
    vec v = vec_load(x + j) - vec_set(*mean);
    squares = v * v + squares;
  }
  if (whole < dim) {
    vec v = vec_keep(vec_load_part(x + whole, dim - whole) - vec_set(*mean), dim - whole);
    squares = v * v + squares;
  }
  *scale = 1 / sqrtf(vec_sum(squares) / (float)dim + f->epsilon);
}

/* `count` elements of a row, up to LANES. */
INLINE void norm_lanes(const float *x, const float *weight, const float *bias, float *out, int64_t j, int64_t count,
                       float mean, float scale) {
  vec v = (vec_load_part(x + j, count) - vec_set(mean)) * vec_set(scale);
  if (weight) v *= vec_load_part(weight + j, count);
  if (bias) v += vec_load_part(bias + j, count);
  vec_store_part(out + j, v, count);
}

/* Row `i` of what is normed, x + residual; kept where residual_out is given. */
static const float *input_row(const norm_task *task, int64_t i, int worker, bool keep) {
  const clm_norm_args *f = &task->f;
  const int64_t dim = task->s.dim;
  const float *x = line_load(line_row(&f->x, i), dim, scratch_of(task, worker, SCRATCH_X));
  const bool kept = keep && present(f->residual_out);
  if (!present(f->residual) && !kept) return x;
  const float *residual = line_load(line_row(&f->residual, i), dim, scratch_of(task, worker, SCRATCH_RESIDUAL));
  const line result = kept ? line_row(&f->residual_out, i) : (line){0};
  float *sum = scratch_of(task, worker, SCRATCH_SUM);
  if (kept) sum = line_target(result, sum);
  for (int64_t j = 0; j < dim; j += LANES) {
    vec v = vec_load_part(x + j, dim - j);
    if (residual) v += vec_load_part(residual + j, dim - j);
    vec_store_part(sum + j, v, dim - j);
  }
  line_store(result, dim, sum);
  return sum;
}

static void norm_rows(void *arg, int64_t index, int worker) {
  const norm_task *task = arg;
  const clm_norm_args *f = &task->f;
  int64_t dim = task->s.dim;
  const float *weight = line_load(line_vector(&f->weight), dim, scratch_of(task, worker, SCRATCH_WEIGHT));
  const float *bias = line_load(line_vector(&f->bias), dim, scratch_of(task, worker, SCRATCH_BIAS));
  for (int64_t i = index * ROWS; i < min_of((index + 1) * ROWS, task->s.rows); i++) {
    const float *x = input_row(task, i, worker, true);
    line result = line_row(&f->out, i);
    float mean, scale, *out = line_target(result, scratch_of(task, worker, SCRATCH_OUT));
    statistics(f, x, dim, &mean, &scale);
    int64_t j = 0;
    for (; j + LANES <= dim; j += LANES) norm_lanes(x, weight, bias, out, j, LANES, mean, scale);
    if (j < dim) norm_lanes(x, weight, bias, out, j, dim - j, mean, scale);
    line_store(result, dim, out);
  }
}

static clm_status make_scratch(clm_context *ctx, int64_t parts_floats, norm_task *task) {
  int64_t threads = cpu_pool_threads(cpu_context_pool(ctx));
  task->scratch_row = SCRATCH_ROWS * round_up(task->s.dim, 16);
  clm_buffer *workspace;
  clm_status status =
      context_workspace(ctx, (size_t)(threads * task->scratch_row + parts_floats) * sizeof(float), &workspace);
  if (status == CLM_OK) task->scratch = workspace->host;
  return status;
}

clm_status KERNEL(norm)(clm_context *ctx, const matrix_shape *s, const clm_norm_args *a) {
  if (!ALL_STORAGE(a->x, a->weight, a->bias, a->out, a->residual, a->residual_out))
    return ctx->plan ? CLM_UNSUPPORTED : ref_norm(ctx, s, a);
  norm_task task = {.s = *s, .f = *a};
  clm_status status = make_scratch(ctx, 0, &task);
  if (status) return status;
  context_explain(ctx, "norm: cpu %s, %d rows a task", cpu_context_level(ctx), ROWS);
  return cpu_submit(
      ctx, &(cpu_stage){.tasks = div_up(s->rows, ROWS), .run = norm_rows, .arg = &task, .arg_bytes = sizeof task});
}

/* With x^ = (x - mean) scale and g = dout weight:  dx = scale (g - x^ mean(g x^) - mean(g)), the last for layer only.
 */
static void gradient_rows(void *arg, int64_t index, int worker) {
  const norm_task *task = arg;
  const clm_norm_backward_args *a = task->a;
  const clm_norm_args *f = &task->f;
  int64_t dim = task->s.dim;
  const float *weight = line_load(line_vector(&f->weight), dim, scratch_of(task, worker, SCRATCH_WEIGHT));
  float *dweight = task->dweight ? task->dweight + index * dim : NULL;
  float *dbias = task->dbias ? task->dbias + index * dim : NULL;
  if (dweight) memset(dweight, 0, (size_t)dim * sizeof *dweight);
  if (dbias) memset(dbias, 0, (size_t)dim * sizeof *dbias);
  for (int64_t i = index * ROWS; i < min_of((index + 1) * ROWS, task->s.rows); i++) {
    const float *x = input_row(task, i, worker, false);
    const float *dout = line_load(line_row(&a->dout, i), dim, scratch_of(task, worker, SCRATCH_DOUT));
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
    if (!present(a->dx) && !present(a->dresidual)) continue;
    vec mean_along = vec_set(vec_sum(along) / (float)dim);
    vec mean_level = vec_set(f->kind == CLM_LAYER_NORM ? vec_sum(level) / (float)dim : 0);
    const float *residual = line_load(line_row(&a->residual, i), dim, scratch_of(task, worker, SCRATCH_RESIDUAL));
    line result = line_row(&a->dx, i);
    float *dx = scratch_of(task, worker, SCRATCH_OUT);
    if (present(a->dx)) dx = line_target(result, dx);
    for (int64_t j = 0; j < dim; j += LANES) {
      vec g = vec_load_part(dout + j, dim - j), n = (vec_load_part(x + j, dim - j) - vec_set(mean)) * vec_set(scale);
      if (weight) g *= vec_load_part(weight + j, dim - j);
      vec d = vec_set(scale) * (g - n * mean_along - mean_level);
      if (residual) d += vec_load_part(residual + j, dim - j);
      vec_store_part(dx + j, d, dim - j);
    }
    line_store(result, dim, dx);
    if (present(a->dresidual)) line_write(line_row(&a->dresidual, i), dim, dx);
  }
}

clm_status KERNEL(norm_backward)(clm_context *ctx, const matrix_shape *s, const clm_norm_backward_args *a) {
  /* In very short rows dx is nearly all cancellation, which only the reference's double arithmetic bears. */
  const clm_norm_args *f = &a->forward;
  if (s->dim < 4 ||
      !ALL_STORAGE(f->x, f->weight, f->residual, a->dout, a->residual, a->dx, a->dweight, a->dbias, a->dresidual))
    return ref_norm_backward(ctx, s, a);
  int64_t parts = div_up(s->rows, ROWS);
  norm_task task = {.s = *s, .f = *f, .a = a};
  clm_status status = make_scratch(ctx, 2 * parts * s->dim, &task);
  if (status) return status;
  float *sums = task.scratch + task.scratch_row * cpu_pool_threads(cpu_context_pool(ctx));
  if (present(a->dweight)) task.dweight = sums;
  if (present(a->dbias)) task.dbias = sums + parts * s->dim;
  cpu_pool_run(cpu_context_pool(ctx), parts, gradient_rows, &task);
  if (task.dweight) kernel_sum_parts(task.dweight, parts, s->dim, kernel_data(a->dweight), a->dweight.stride[0]);
  if (task.dbias) kernel_sum_parts(task.dbias, parts, s->dim, kernel_data(a->dbias), a->dbias.stride[0]);
  context_explain(ctx, "norm_backward: cpu %s, %d rows a task", cpu_context_level(ctx), ROWS);
  return CLM_OK;
}
