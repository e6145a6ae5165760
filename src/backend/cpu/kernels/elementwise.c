/* Elementwise operations and reductions over all elements or all rows. Tasks are pieces of fixed size; sums are taken
 * within pieces, then over the pieces in order, so that results do not depend on the number of threads. */
#include "cl/random.h"
#include "spans.h"

#define PIECE 16384

typedef struct axpby_task {
  spans s; /* x, out */
  float alpha, beta;
} axpby_task;

static void axpby_span(void *arg, float *const *p, const int64_t *stride, int64_t n, int64_t number) {
  const axpby_task *task = arg;
  const float *x = p[0];
  float *out = p[1], alpha = task->alpha, beta = task->beta;
  (void)number;
  if (!x)
    for (int64_t i = 0; i < n; i++) out[i * stride[1]] = beta == 0 ? 0 : beta * out[i * stride[1]];
  else if (stride[0] == 1 && stride[1] == 1) {
    if (beta == 0 && alpha == 1) memmove(out, x, (size_t)n * sizeof *out);
    else if (beta == 0)
      for (int64_t i = 0; i < n; i++) out[i] = alpha * x[i];
    else
      for (int64_t i = 0; i < n; i++) out[i] = alpha * x[i] + beta * out[i];
  } else
    for (int64_t i = 0; i < n; i++)
      out[i * stride[1]] = alpha * x[i * stride[0]] + (beta == 0 ? 0 : beta * out[i * stride[1]]);
}

clm_status KERNEL(axpby)(clm_context *ctx, const elementwise_shape *s, const clm_axpby_args *a) {
  if (!ALL_F32(a->x, a->out)) return ref_axpby(ctx, s, a);
  axpby_task task = {.alpha = a->alpha, .beta = a->beta};
  spans_of(&task.s, (const clm_tensor *const[]){&a->x, &a->out}, 2, &a->out);
  spans_run(ctx, &task.s, axpby_span, &task);
  context_explain(ctx, "axpby: cpu %s, spans of %lld", cpu_context_level(ctx), (long long)task.s.length);
  return CLM_OK;
}

typedef struct dropout_task {
  spans s; /* x, residual, out */
  uint64_t seed;
  uint32_t threshold;
  float scale;
} dropout_task;

static void dropout_span(void *arg, float *const *p, const int64_t *stride, int64_t n, int64_t number) {
  const dropout_task *task = arg;
  uint64_t seed = task->seed, first = (uint64_t)number;
  uint32_t threshold = task->threshold;
  for (int64_t i = 0; i < n; i++) {
    float keep = random_keep(random_bits(seed, first + (uint64_t)i), threshold) ? task->scale : 0;
    float value = keep == 0 ? 0 : p[0][i * stride[0]] * keep;
    p[2][i * stride[2]] = p[1] ? p[1][i * stride[1]] + value : value;
  }
}

clm_status KERNEL(dropout)(clm_context *ctx, const elementwise_shape *s, const clm_dropout_args *a) {
  if (!ALL_F32(a->x, a->residual, a->out)) return ref_dropout(ctx, s, a);
  dropout_task task = {.seed = a->seed, .threshold = random_threshold(a->rate), .scale = 1 / (1 - a->rate)};
  spans_of(&task.s, (const clm_tensor *const[]){&a->x, &a->residual, &a->out}, 3, &a->out);
  spans_run(ctx, &task.s, dropout_span, &task);
  context_explain(ctx, "dropout: cpu %s, spans of %lld", cpu_context_level(ctx), (long long)task.s.length);
  return CLM_OK;
}

typedef struct sum_task {
  const float *x;
  int64_t rows, dim, row_stride, rows_per_piece;
  void *parts;
} sum_task;

static void sum_squares_piece(void *arg, int64_t index, int worker) {
  const sum_task *task = arg;
  const float *x = task->x + index * PIECE;
  int64_t n = min_of(PIECE, task->rows - index * PIECE);
  (void)worker;
  vec sum[4] = {{0}};
  for (int64_t i = 0; i < n; i += 4 * LANES)
    for (int k = 0; k < 4; k++) {
      vec v = i + k * LANES < n ? vec_load_part(x + i + k * LANES, n - i - k * LANES) : vec_set(0);
      sum[k] = v * v + sum[k];
    }
  ((double *)task->parts)[index] = (double)vec_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

clm_status KERNEL(sum_squares)(clm_context *ctx, const elementwise_shape *s, const clm_sum_squares_args *a) {
  if (!ALL_F32(a->x, a->out) || (s->count > 1 && a->x.stride[0] != 1)) return ref_sum_squares(ctx, s, a);
  int64_t pieces = div_up(s->count, PIECE);
  clm_buffer *workspace;
  clm_status status = context_workspace(ctx, (size_t)pieces * sizeof(double), &workspace);
  if (status) return status;
  sum_task task = {.x = kernel_data(a->x), .rows = s->count, .parts = workspace->host};
  cpu_pool_run(cpu_context_pool(ctx), pieces, sum_squares_piece, &task);
  double sum = 0;
  for (int64_t i = 0; i < pieces; i++) sum += ((const double *)task.parts)[i];
  *kernel_data(a->out) = (float)sum;
  context_explain(ctx, "sum_squares: cpu %s, %lld pieces of %d", cpu_context_level(ctx), (long long)pieces, PIECE);
  return CLM_OK;
}

static void column_sum_piece(void *arg, int64_t index, int worker) {
  const sum_task *task = arg;
  float *part = (float *)task->parts + index * task->dim;
  (void)worker;
  memset(part, 0, (size_t)task->dim * sizeof *part);
  for (int64_t i = index * task->rows_per_piece; i < min_of((index + 1) * task->rows_per_piece, task->rows); i++) {
    const float *x = task->x + i * task->row_stride;
    for (int64_t j = 0; j < task->dim; j++) part[j] += x[j];
  }
}

clm_status KERNEL(column_sum)(clm_context *ctx, const matrix_shape *s, const clm_column_sum_args *a) {
  if (!ALL_F32(a->x, a->out) || (s->dim > 1 && a->x.stride[1] != 1)) return ref_column_sum(ctx, s, a);
  sum_task task = {.x = kernel_data(a->x), .rows = s->rows, .dim = s->dim, .row_stride = a->x.stride[0]};
  task.rows_per_piece = max_of(64, div_up(s->rows, 64)); /* at most 64 pieces: rounding grows with each, memory too */
  int64_t pieces = div_up(s->rows, task.rows_per_piece);
  clm_buffer *workspace;
  clm_status status = context_workspace(ctx, (size_t)(pieces * s->dim) * sizeof(float), &workspace);
  if (status) return status;
  task.parts = workspace->host;
  cpu_pool_run(cpu_context_pool(ctx), pieces, column_sum_piece, &task);
  kernel_sum_parts(task.parts, pieces, s->dim, kernel_data(a->out), a->out.stride[0]);
  context_explain(ctx, "column_sum: cpu %s, %lld pieces of %lld rows", cpu_context_level(ctx), (long long)pieces,
                  (long long)task.rows_per_piece);
  return CLM_OK;
}
