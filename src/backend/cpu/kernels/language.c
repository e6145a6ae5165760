/* Embedding and softmax cross-entropy. */
#include "storage.h"

#define ROWS    64
#define COLUMNS 64
#define PIECE   256 /* numbers converted at a time */

typedef struct embedding_task {
  embedding_shape s;
  clm_embedding_args forward;
  const clm_embedding_backward_args *backward;
} embedding_task;

static int64_t id_at(const clm_tensor *ids, int64_t i) {
  return ((const int32_t *)(const void *)element_data(ids))[i * ids->stride[0]];
}

static void embed_rows(void *arg, int64_t index, int worker) {
  const embedding_task *task = arg;
  const clm_embedding_args *a = &task->forward;
  int64_t dim = task->s.dim;
  (void)worker;
  for (int64_t i = index * ROWS; i < min_of((index + 1) * ROWS, task->s.count); i++) {
    int64_t id = id_at(&a->ids, i);
    bool known = id >= 0 && id < task->s.vocab;
    for (int64_t j = 0; j < dim; j += PIECE) {
      float piece[PIECE] = {0};
      int64_t n = min_of(PIECE, dim - j);
      const float *row = known ? line_load(line_from(line_row(&a->table, id), j), n, piece) : piece;
      if (known && present(a->table_scale))
        for (int64_t k = 0; k < n; k++) piece[k] *= kernel_data(a->table_scale)[id * a->table_scale.stride[0]];
      line_write(line_from(line_row(&a->out, i), j), n, row);
    }
  }
}

clm_status KERNEL(embedding)(clm_context *ctx, const embedding_shape *s, const clm_embedding_args *a) {
  if (!ALL_STORAGE(a->out) || !IS_MATRIX(a->table, a->table_scale))
    return ctx->plan ? CLM_UNSUPPORTED : ref_embedding(ctx, s, a);
  embedding_task task = {.s = *s, .forward = *a};
  context_explain(ctx, "embedding: cpu %s, %d rows a task", cpu_context_level(ctx), ROWS);
  return cpu_submit(
      ctx, &(cpu_stage){.tasks = div_up(s->count, ROWS), .run = embed_rows, .arg = &task, .arg_bytes = sizeof task});
}

/* A task owns some columns of dtable and takes the ids in order: no two tasks write the same element. */
static void embed_columns(void *arg, int64_t index, int worker) {
  const embedding_task *task = arg;
  const clm_embedding_backward_args *a = task->backward;
  int64_t first = index * COLUMNS, n = min_of(COLUMNS, task->s.dim - first);
  static const float zeros[COLUMNS];
  float scratch[COLUMNS], sum[COLUMNS];
  (void)worker;
  if (!a->accumulate)
    for (int64_t v = 0; v < task->s.vocab; v++) line_write(line_from(line_row(&a->dtable, v), first), n, zeros);
  for (int64_t i = 0; i < task->s.count; i++) {
    int64_t id = id_at(&a->ids, i);
    if (id < 0 || id >= task->s.vocab) continue;
    const float *dout = line_load(line_from(line_row(&a->dout, i), first), n, scratch);
    line result = line_from(line_row(&a->dtable, id), first);
    float *row = line_target(result, sum);
    line_load(result, n, sum);
    for (int64_t j = 0; j < n; j++) row[j] += dout[j];
    line_store(result, n, row);
  }
}

clm_status KERNEL(embedding_backward)(clm_context *ctx, const embedding_shape *s,
                                      const clm_embedding_backward_args *a) {
  if (!ALL_STORAGE(a->dout, a->dtable)) return ref_embedding_backward(ctx, s, a);
  embedding_task task = {.s = *s, .backward = a};
  cpu_pool_run(cpu_context_pool(ctx), div_up(s->dim, COLUMNS), embed_columns, &task);
  context_explain(ctx, "embedding_backward: cpu %s, %d columns a task", cpu_context_level(ctx), COLUMNS);
  return CLM_OK;
}

typedef struct entropy_task {
  const matrix_shape *s;
  const clm_cross_entropy_args *a;
  float *scratch; /* of each worker: a row of logits, one of gradients */
  int64_t scratch_row;
} entropy_task;

static void entropy_row(const entropy_task *task, int64_t i, float *scratch) {
  const clm_cross_entropy_args *a = task->a;
  int64_t vocab = task->s->dim, target = id_at(&a->targets, i);
  bool ignored = target < 0 || target >= vocab;
  const float *x = line_load(line_row(&a->logits, i), vocab, scratch);
  line result = line_row(&a->dlogits, i);
  float *dx = line_target(result, scratch + task->scratch_row / 2);
  float loss = 0;
  if (!ignored) {
    vec maxima = vec_set(x[0]), sum = vec_set(0);
    for (int64_t j = 0; j < vocab; j += LANES) maxima = vec_max(maxima, vec_load_or(x + j, vocab - j, x[0]));
    float largest = vec_largest(maxima), at_target = x[target];
    for (int64_t j = 0; j < vocab; j += LANES)
      sum += vec_keep(vec_exp_bounded(vec_load_or(x + j, vocab - j, x[0]) - vec_set(largest)), vocab - j);
    float total = vec_sum(sum);
    loss = logf(total) + (largest - at_target);
    vec factor = vec_set(a->scale / total);
    for (int64_t j = 0; dx && j < vocab; j += LANES)
      vec_store_part(dx + j, factor * vec_exp_bounded(vec_load_or(x + j, vocab - j, x[0]) - vec_set(largest)),
                     vocab - j);
    if (dx) dx[target] -= a->scale;
  } else if (dx) memset(dx, 0, (size_t)vocab * sizeof *dx);
  line_store(result, vocab, dx);
  if (present(a->losses)) kernel_data(a->losses)[i * a->losses.stride[0]] = loss;
}

static void entropy_rows(void *arg, int64_t index, int worker) {
  const entropy_task *task = arg;
  float *scratch = task->scratch + worker * task->scratch_row;
  for (int64_t i = index * 16; i < min_of((index + 1) * 16, task->s->rows); i++) entropy_row(task, i, scratch);
}

clm_status KERNEL(cross_entropy)(clm_context *ctx, const matrix_shape *s, const clm_cross_entropy_args *a) {
  if (!ALL_STORAGE(a->logits, a->dlogits) || !ALL_F32(a->losses)) return ref_cross_entropy(ctx, s, a);
  entropy_task task = {.s = s, .a = a};
  clm_status status = kernel_scratch(ctx, 2 * round_up(s->dim, 16), &task.scratch_row, &task.scratch);
  if (status) return status;
  cpu_pool_run(cpu_context_pool(ctx), div_up(s->rows, 16), entropy_rows, &task);
  context_explain(ctx, "cross_entropy: cpu %s, 16 rows a task", cpu_context_level(ctx));
  return CLM_OK;
}
