/* Matrix product with epilogue. The output is cut into blocks by its shape alone (so that results do not depend on
 * the number of threads); each block is one single-threaded product, its epilogue applied while it is in cache.
 * OpenBLAS has no threads of its own (openblas.c): two teams of spinning threads on the same cores cost more than
 * either gains. */
#include "epilogue.h"
#include "gemm.h"
#include "matvec.h"

typedef struct matmul_task {
  matmul_shape s;
  gemm_choice gemm;
  clm_matmul_args args;              /* perhaps those of the transposed product */
  epilogue end;                      /* of them                                 */
  matrix a, b;                       /* no data: converted to f32 by slices     */
  matrix residual, out;              /* no data: absent, or not plain rows      */
  int64_t rows, columns, row_blocks; /* of a block; blocks down                 */
  bool aside;                        /* products go to scratch first: out cannot take them, or is still needed */
  float *scratch;                    /* of each worker: the product's own, a block, three lines, slices of a and b */
  int64_t scratch_floats;
} matmul_task;

/* As the products read it: f32 with one stride of 1. No data if it is not so. */
static matrix matrix_of(const clm_tensor *x) {
  if (!x->buffer || x->dtype != CLM_F32) return (matrix){0};
  matrix m = {kernel_data(*x), x->stride[0], x->stride[1]};
  if (x->shape[1] == 1) m.column = 1; /* strides of dimensions of length 1 mean nothing */
  if (x->shape[0] == 1) {
    if (m.column == 1) m.row = x->shape[1];
    else m.row = 1;
  }
  bool by_rows = m.column == 1 && m.row >= x->shape[1], by_columns = m.row == 1 && m.column >= x->shape[0];
  return by_rows || by_columns ? m : (matrix){0};
}

/* Rows of f32, one after the other. */
static matrix rows_of(const clm_tensor *x) {
  matrix m = matrix_of(x);
  return m.column == 1 && m.row >= x->shape[1] ? m : (matrix){0};
}

static matrix block_of(matrix m, int64_t i, int64_t j) {
  if (m.data) m.data += i * m.row + j * m.column;
  return m;
}

/* `rows` x `columns` elements from (i, j) on as f32, along the dimension that memory runs along; each times the scale
 * of its column, if there is one. */
static matrix converted(const clm_tensor *x, const clm_tensor *scale, int64_t i, int64_t j, int64_t rows,
                        int64_t columns, float *out) {
  int64_t at = i * x->stride[0] + j * x->stride[1];
  const float *scales = scale && scale->buffer ? kernel_data(*scale) + j * scale->stride[0] : NULL;
  if (x->stride[0] == 1 && x->stride[1] != 1) {
    for (int64_t c = 0; c < columns; c++) {
      line_read(line_at(x, at + c * x->stride[1], 1), rows, out + c * rows);
      for (int64_t r = 0; scales && r < rows; r++) out[c * rows + r] *= scales[c * scale->stride[0]];
    }
    return (matrix){out, 1, rows};
  }
  for (int64_t r = 0; r < rows; r++) {
    line_read(line_at(x, at + r * x->stride[0], x->stride[1]), columns, out + r * columns);
    for (int64_t c = 0; scales && c < columns; c++) out[r * columns + c] *= scales[c * scale->stride[0]];
  }
  return (matrix){out, columns, 1};
}

typedef struct block {
  int64_t i, j, m, n;
  float *scratch, *products, *lines, *slices;
} block;

/* into = scale a b + beta into, over slices of k where an operand has to be converted. */
static void multiply(const matmul_task *task, const block *at, float beta, matrix into) {
  const clm_matmul_args *args = &task->args;
  int64_t k = task->s.k, step = task->a.data && task->b.data ? k : GEMM_DEPTH;
  for (int64_t k0 = 0; k0 < k; k0 += step, beta = 1) {
    int64_t depth = min_of(step, k - k0);
    matrix a = block_of(task->a, at->i, k0), b = block_of(task->b, k0, at->j);
    if (!a.data) a = converted(&args->a, NULL, at->i, k0, at->m, depth, at->slices);
    if (!b.data)
      b = converted(&args->b, &args->b_scale, k0, at->j, depth, at->n, at->slices + task->rows * GEMM_DEPTH);
    task->gemm.run((gemm_size){at->m, at->n, depth}, args->scale == 0 ? 1 : args->scale, a, b, beta, into,
                   at->scratch);
  }
}

/* accumulate: only if out is not plain. */
static void finish(const matmul_task *task, const block *at, matrix from) {
  epilogue_run(&task->end, at->i, at->j, at->m, at->n, from.data, from.row, at->lines);
}

static void run_block(void *arg, int64_t index, int worker) {
  const matmul_task *task = arg;
  const clm_matmul_args *args = &task->args;
  float *scratch = task->scratch + worker * task->scratch_floats, *products = scratch + GEMM_SCRATCH;
  block at = {.i = index % task->row_blocks * task->rows,
              .j = index / task->row_blocks * task->columns,
              .scratch = scratch,
              .lines = products + (task->aside ? task->rows * task->columns : 0)};
  at.m = min_of(task->rows, task->s.m - at.i);
  at.n = min_of(task->columns, task->s.n - at.j);
  at.slices = at.lines + 3 * task->columns;
  if (task->aside) {
    matrix into = {products, at.n, 1};
    multiply(task, &at, 0, into);
    finish(task, &at, into);
    return;
  }
  matrix out = block_of(task->out, at.i, at.j), residual = block_of(task->residual, at.i, at.j);
  if (residual.data && residual.data != out.data) /* added by the product itself */
    for (int64_t r = 0; r < at.m; r++)
      memcpy(out.data + r * out.row, residual.data + r * residual.row, (size_t)at.n * sizeof(float));
  multiply(task, &at, args->accumulate || residual.data ? 1 : 0, out);
  if (present(args->bias) || args->activation != CLM_ACTIVATION_NONE) finish(task, &at, out);
}

/* Blocks of up to GEMM_ROWS x 384, smaller where that leaves less than 16 of them; multiples of 48 rows and 64
 * columns keep the product's own tiles whole. */
static void choose_blocks(matmul_task *task) {
  const matmul_shape *s = &task->s;
  task->columns = min_of(s->n, round_up(div_up(s->n, div_up(s->n, 384)), 64));
  task->rows = min_of(s->m, GEMM_ROWS);
  while (div_up(s->m, task->rows) * div_up(s->n, task->columns) < 16 && (task->rows > 48 || task->columns > 64)) {
    if (task->rows >= task->columns || task->columns <= 64) task->rows = round_up(task->rows / 2, 48);
    else task->columns = round_up(task->columns / 2, 64);
    if (task->rows <= 48 && task->columns <= 64) break;
  }
  task->rows = min_of(task->rows, s->m);
  task->columns = min_of(task->columns, s->n);
  task->row_blocks = div_up(s->m, task->rows);
}

static void transpose(clm_tensor *t) {
  if (t->buffer) *t = clm_tensor_transpose(*t, 0, 1);
}

/* An output stored by columns is that of the transposed product, unless its rows have something of their own. */
static void arrange(const matmul_shape *s, const clm_matmul_args *args, matmul_task *task) {
  *task = (matmul_task){.s = *s, .args = *args};
  clm_matmul_args *own = &task->args;
  if (args->out.stride[0] == 1 && args->out.stride[1] != 1 && s->m > 1 && s->n > 1 && !present(args->bias) &&
      !present(args->b_scale)) {
    own->a = args->b;
    own->b = args->a;
    transpose(&own->a);
    transpose(&own->b);
    transpose(&own->out);
    transpose(&own->residual);
    task->s.m = s->n;
    task->s.n = s->m;
  }
  task->end = epilogue_of(own);
  task->a = matrix_of(&own->a);
  task->b = matrix_of(&own->b);
  task->out = rows_of(&own->out);
  task->residual = rows_of(&own->residual);
  bool residual = present(own->residual), more = own->activation != CLM_ACTIVATION_NONE || present(own->bias);
  task->aside = !task->out.data || (residual && (more || !task->residual.data));
}

clm_status KERNEL(matmul)(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *args) {
  matmul_task task;
  const bool lines = ALL_STORAGE(args->a, args->bias, args->residual, args->out) && IS_MATRIX(args->b, args->b_scale);
  if (lines && matvec_fits(s, args)) return matvec(ctx, s, args);
  if (ctx->plan) return CLM_UNSUPPORTED; /* the call is recorded */
  if (!lines) return ref_matmul(ctx, s, args);
  arrange(s, args, &task);
  choose_blocks(&task);
  task.gemm = gemm_choose(cpu_pool_threads(cpu_context_pool(ctx)));
  bool slices = !task.a.data || !task.b.data;
  int64_t floats = GEMM_SCRATCH + (task.aside ? task.rows * task.columns : 0) + 3 * task.columns +
                   (slices ? (task.rows + task.columns) * GEMM_DEPTH : 0);
  clm_status status = kernel_scratch(ctx, floats, &task.scratch_floats, &task.scratch);
  if (status) return status;
  int64_t blocks = task.row_blocks * div_up(task.s.n, task.columns);
  cpu_pool_run(cpu_context_pool(ctx), blocks, run_block, &task);
  context_explain(ctx, "matmul: cpu %s, %s, %lld blocks of %lld x %lld%s", cpu_context_level(ctx), task.gemm.name,
                  (long long)blocks, (long long)task.rows, (long long)task.columns,
                  slices ? ", operands converted by slices of k" : "");
  return CLM_OK;
}
