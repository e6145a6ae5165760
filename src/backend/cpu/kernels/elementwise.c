/* Elementwise operations and reductions over all elements or all rows. Tasks are pieces of fixed size; sums are taken
 * within pieces, then over the pieces in order, so that results do not depend on the number of threads. */
#include "cl/random.h"
#include "spans.h"

#define PIECE 16384
#define BLOCK 256 /* numbers converted at a time */

typedef struct axpby_task {
  spans s; /* x, out */
  float alpha, beta;
} axpby_task;

static void axpby_block(const axpby_task *task, line lx, line lout, int64_t n) {
  float x_scratch[BLOCK], out_scratch[BLOCK], alpha = task->alpha, beta = task->beta;
  const float *x = line_load(lx, n, x_scratch);
  float *out = line_target(lout, out_scratch);
  if (beta != 0) line_load(lout, n, out_scratch);
  if (!x)
    for (int64_t i = 0; i < n; i++) out[i] = beta == 0 ? 0 : beta * out[i];
  else if (beta == 0)
    for (int64_t i = 0; i < n; i++) out[i] = alpha * x[i];
  else
    for (int64_t i = 0; i < n; i++) out[i] = alpha * x[i] + beta * out[i];
  line_store(lout, n, out);
}

static void axpby_span(void *arg, const line *l, int64_t n, int64_t number) {
  const axpby_task *task = arg;
  (void)number;
  if (l[0].data && line_is_plain(l[0]) && line_is_plain(l[1]) && task->beta == 0 && task->alpha == 1) {
    memmove(l[1].data, l[0].data, (size_t)n * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < n; i += BLOCK)
    axpby_block(task, line_from(l[0], i), line_from(l[1], i), min_of(BLOCK, n - i));
}

clm_status KERNEL(axpby)(clm_context *ctx, const elementwise_shape *s, const clm_axpby_args *a) {
  if (!ALL_STORAGE(a->x, a->out)) return ref_axpby(ctx, s, a);
  axpby_task task = {.alpha = a->alpha, .beta = a->beta};
  spans_of(&task.s, (const clm_tensor *const[]){&a->x, &a->out}, 2, &a->out);
  spans_run(ctx, &task.s, axpby_span, &task);
  context_explain(ctx, "axpby: cpu %s, spans of %lld", cpu_context_level(ctx), (long long)task.s.length);
  return CLM_OK;
}

/* f64 comes and goes through f32; towards a half, one that rounds as the double itself would. */
static void cast_block(line x, line out, int64_t n) {
  float scratch[BLOCK];
  const float *values = scratch;
  if (x.dtype != CLM_F64) values = line_load(x, n, scratch);
  else
    for (int64_t i = 0; i < n; i++) {
      double value = ((const double *)(const void *)x.data)[i * x.stride];
      scratch[i] = out.dtype == CLM_F32 ? (float)value : dtype_sticky(value);
    }
  if (out.dtype != CLM_F64) line_write(out, n, values);
  else
    for (int64_t i = 0; i < n; i++) ((double *)(void *)out.data)[i * out.stride] = (double)values[i];
}

static void cast_span(void *arg, const line *l, int64_t n, int64_t number) {
  (void)arg;
  (void)number;
  if (l[0].dtype == CLM_F64 && l[1].dtype == CLM_F64)
    for (int64_t i = 0; i < n; i++)
      ((double *)(void *)l[1].data)[i * l[1].stride] = ((const double *)(const void *)l[0].data)[i * l[0].stride];
  else
    for (int64_t i = 0; i < n; i += BLOCK) cast_block(line_from(l[0], i), line_from(l[1], i), min_of(BLOCK, n - i));
}

clm_status KERNEL(cast)(clm_context *ctx, const elementwise_shape *s, const clm_cast_args *a) {
  spans walk;
  (void)s;
  spans_of(&walk, (const clm_tensor *const[]){&a->x, &a->out}, 2, &a->out);
  spans_run(ctx, &walk, cast_span, NULL);
  context_explain(ctx, "cast: cpu %s, spans of %lld", cpu_context_level(ctx), (long long)walk.length);
  return CLM_OK;
}

typedef struct dropout_task {
  spans s; /* x, residual, out */
  uint64_t seed;
  uint32_t threshold;
  float scale;
} dropout_task;

static void dropout_span(void *arg, const line *l, int64_t n, int64_t number) {
  const dropout_task *task = arg;
  uint64_t seed = task->seed, first = (uint64_t)number;
  uint32_t threshold = task->threshold;
  float x_scratch[BLOCK], residual_scratch[BLOCK], out_scratch[BLOCK];
  for (int64_t begin = 0; begin < n; begin += BLOCK, first += BLOCK) {
    int64_t count = min_of(BLOCK, n - begin);
    line result = line_from(l[2], begin);
    const float *x = line_load(line_from(l[0], begin), count, x_scratch);
    const float *residual = line_load(line_from(l[1], begin), count, residual_scratch);
    float *out = line_target(result, out_scratch);
    for (int64_t i = 0; i < count; i++) {
      float keep = random_keep(random_bits(seed, first + (uint64_t)i), threshold) ? task->scale : 0;
      float value = keep == 0 ? 0 : x[i] * keep;
      out[i] = residual ? residual[i] + value : value;
    }
    line_store(result, count, out);
  }
}

clm_status KERNEL(dropout)(clm_context *ctx, const elementwise_shape *s, const clm_dropout_args *a) {
  if (!ALL_STORAGE(a->x, a->residual, a->out)) return ref_dropout(ctx, s, a);
  dropout_task task = {.seed = a->seed, .threshold = random_threshold(a->rate), .scale = 1 / (1 - a->rate)};
  spans_of(&task.s, (const clm_tensor *const[]){&a->x, &a->residual, &a->out}, 3, &a->out);
  spans_run(ctx, &task.s, dropout_span, &task);
  context_explain(ctx, "dropout: cpu %s, spans of %lld", cpu_context_level(ctx), (long long)task.s.length);
  return CLM_OK;
}

typedef struct sum_task {
  const clm_tensor *x;
  int64_t rows, dim, rows_per_piece;
  void *parts;
} sum_task;

static void sum_squares_piece(void *arg, int64_t index, int worker) {
  const sum_task *task = arg;
  int64_t n = min_of(PIECE, task->rows - index * PIECE);
  line all = line_from(line_vector(task->x), index * PIECE);
  float scratch[BLOCK];
  (void)worker;
  vec sum[4] = {{0}};
  for (int64_t begin = 0; begin < n; begin += BLOCK) {
    int64_t count = min_of(BLOCK, n - begin);
    const float *x = line_load(line_from(all, begin), count, scratch);
    for (int64_t i = 0; i < count; i += 4 * LANES)
      for (int k = 0; k < 4; k++) {
        vec v = i + k * LANES < count ? vec_load_part(x + i + k * LANES, count - i - k * LANES) : vec_set(0);
        sum[k] = v * v + sum[k];
      }
  }
  ((double *)task->parts)[index] = (double)vec_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

clm_status KERNEL(sum_squares)(clm_context *ctx, const elementwise_shape *s, const clm_sum_squares_args *a) {
  if (!ALL_STORAGE(a->x) || !ALL_F32(a->out)) return ref_sum_squares(ctx, s, a);
  int64_t pieces = div_up(s->count, PIECE);
  clm_buffer *workspace;
  clm_status status = context_workspace(ctx, (size_t)pieces * sizeof(double), &workspace);
  if (status) return status;
  sum_task task = {.x = &a->x, .rows = s->count, .parts = workspace->host};
  cpu_pool_run(cpu_context_pool(ctx), pieces, sum_squares_piece, &task);
  double sum = a->accumulate ? (double)*kernel_data(a->out) : 0;
  for (int64_t i = 0; i < pieces; i++) sum += ((const double *)task.parts)[i];
  *kernel_data(a->out) = (float)sum;
  context_explain(ctx, "sum_squares: cpu %s, %lld pieces of %d", cpu_context_level(ctx), (long long)pieces, PIECE);
  return CLM_OK;
}

static void column_sum_piece(void *arg, int64_t index, int worker) {
  const sum_task *task = arg;
  float *part = (float *)task->parts + index * task->dim, scratch[BLOCK];
  (void)worker;
  memset(part, 0, (size_t)task->dim * sizeof *part);
  for (int64_t i = index * task->rows_per_piece; i < min_of((index + 1) * task->rows_per_piece, task->rows); i++) {
    for (int64_t begin = 0; begin < task->dim; begin += BLOCK) {
      int64_t n = min_of(BLOCK, task->dim - begin);
      const float *x = line_load(line_from(line_row(task->x, i), begin), n, scratch);
      for (int64_t j = 0; j < n; j++) part[begin + j] += x[j];
    }
  }
}

clm_status KERNEL(column_sum)(clm_context *ctx, const matrix_shape *s, const clm_column_sum_args *a) {
  if (!ALL_STORAGE(a->x) || !ALL_F32(a->out)) return ref_column_sum(ctx, s, a);
  sum_task task = {.x = &a->x, .rows = s->rows, .dim = s->dim};
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
