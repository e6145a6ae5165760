/* Matrix product with epilogue. The output is cut into blocks by its shape alone (so that results do not depend on
 * the number of threads); each block is one single-threaded product, its epilogue applied while it is in cache.
 * OpenBLAS's own threads stay off (gemm_init): two teams of spinning threads on the same cores cost more than either
 * gains. */
#include "gemm.h"

typedef struct matmul_task {
  matmul_shape s;
  const clm_matmul_args *args;
  matrix a, b, residual, out;
  int64_t rows, columns, row_blocks; /* of a block; blocks down */
  bool aside;     /* products go to scratch first: the residual, perhaps out itself, is still needed */
  float *scratch; /* of each worker: the product's own, then a block */
  int64_t scratch_floats;
} matmul_task;

/* Strides of dimensions of length 1 mean nothing: give them what the products expect. */
static matrix matrix_of(const clm_tensor *x) {
  if (!x->buffer) return (matrix){0};
  matrix m = {kernel_data(*x), x->stride[0], x->stride[1]};
  if (x->shape[1] == 1) m.column = 1;
  if (x->shape[0] == 1) {
    if (m.column == 1) m.row = x->shape[1];
    else m.row = 1;
  }
  return m;
}

static bool by_rows(const clm_tensor *x, matrix m) { return !m.data || (m.column == 1 && m.row >= x->shape[1]); }
static bool by_columns(const clm_tensor *x, matrix m) { return !m.data || (m.row == 1 && m.column >= x->shape[0]); }

static matrix transposed(matrix m) { return (matrix){m.data, m.column, m.row}; }

static matrix block_of(matrix m, int64_t i, int64_t j) {
  if (m.data) m.data += i * m.row + j * m.column;
  return m;
}

INLINE vec activate(clm_activation activation, vec x) {
  if (activation == CLM_ACTIVATION_SILU) return x * vec_sigmoid(x);
  if (activation == CLM_ACTIVATION_SOFTPLUS) return vec_softplus(x);
  return x;
}

/* out = activation(x + bias) + residual for one row. */
static void epilogue_row(clm_activation activation, const float *x, const float *bias, const float *residual,
                         float *out, int64_t n) {
  for (int64_t j = 0; j < n; j += LANES) {
    int64_t left = n - j;
    vec sum = vec_load_part(x + j, left);
    if (bias) sum += vec_load_part(bias + j, left);
    sum = activate(activation, sum);
    if (residual) sum += vec_load_part(residual + j, left);
    vec_store_part(out + j, sum, left);
  }
}

static void run_block(void *arg, int64_t index, int worker) {
  const matmul_task *task = arg;
  const clm_matmul_args *args = task->args;
  int64_t i = index % task->row_blocks * task->rows, j = index / task->row_blocks * task->columns;
  int64_t m = min_of(task->rows, task->s.m - i), n = min_of(task->columns, task->s.n - j);
  bool plain = args->activation == CLM_ACTIVATION_NONE && !present(args->bias);
  matrix out = block_of(task->out, i, j), residual = block_of(task->residual, i, j), into = out;
  float beta = args->accumulate ? 1 : 0;
  float *scratch = task->scratch + worker * task->scratch_floats;
  if (task->aside) into = (matrix){scratch + GEMM_SCRATCH, n, 1};
  if (residual.data && plain) { /* added by the product itself */
    if (residual.data != out.data || residual.row != out.row)
      for (int64_t r = 0; r < m; r++)
        memcpy(out.data + r * out.row, residual.data + r * residual.row, (size_t)n * sizeof(float));
    beta = 1;
  }
  gemm(m, n, task->s.k, args->scale == 0 ? 1 : args->scale, block_of(task->a, i, 0), block_of(task->b, 0, j), beta,
       into, scratch);
  if (plain) return;
  const float *bias = present(args->bias) ? kernel_data(args->bias) + j : NULL;
  for (int64_t r = 0; r < m; r++)
    epilogue_row(args->activation, into.data + r * into.row, bias,
                 residual.data ? residual.data + r * residual.row : NULL, out.data + r * out.row, n);
}

/* Blocks of at most GEMM_ROWS x 384, smaller where that leaves less than 16 of them; multiples of 48 rows and 64
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

/* Operands as the products want them, a column-major output as the transposed product; false if that cannot be had.
 */
static bool arrange(const matmul_shape *s, const clm_matmul_args *args, matmul_task *task) {
  *task = (matmul_task){.s = *s, .args = args, .a = matrix_of(&args->a), .b = matrix_of(&args->b)};
  task->out = matrix_of(&args->out);
  task->residual = matrix_of(&args->residual);
  if (!ALL_F32(args->a, args->b, args->bias, args->residual, args->out)) return false;
  if (!by_rows(&args->a, task->a) && !by_columns(&args->a, task->a)) return false;
  if (!by_rows(&args->b, task->b) && !by_columns(&args->b, task->b)) return false;
  if (by_rows(&args->out, task->out) && by_rows(&args->residual, task->residual))
    return !present(args->bias) || s->n == 1 || args->bias.stride[0] == 1;
  if (present(args->bias) || !by_columns(&args->out, task->out) || !by_columns(&args->residual, task->residual))
    return false;
  matrix a = task->a;
  task->a = transposed(task->b);
  task->b = transposed(a);
  task->out = transposed(task->out);
  task->residual = transposed(task->residual);
  task->s.m = s->n;
  task->s.n = s->m;
  return true;
}

clm_status KERNEL(matmul)(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *args) {
  matmul_task task;
  if (!arrange(s, args, &task)) return ref_matmul(ctx, s, args);
  choose_blocks(&task);
  task.aside = present(args->residual) && (args->activation != CLM_ACTIVATION_NONE || present(args->bias));
  task.scratch_floats = round_up(GEMM_SCRATCH + (task.aside ? task.rows * task.columns : 0), 32);
  clm_buffer *workspace;
  int64_t threads = cpu_pool_threads(cpu_context_pool(ctx));
  clm_status status = context_workspace(ctx, (size_t)(threads * task.scratch_floats) * sizeof(float), &workspace);
  if (status) return status;
  task.scratch = workspace->host;
  int64_t blocks = task.row_blocks * div_up(task.s.n, task.columns);
  cpu_pool_run(cpu_context_pool(ctx), blocks, run_block, &task);
  context_explain(ctx, "matmul: cpu %s, %s, %lld blocks of %lld x %lld", cpu_context_level(ctx), gemm_name(),
                  (long long)blocks, (long long)task.rows, (long long)task.columns);
  return CLM_OK;
}
