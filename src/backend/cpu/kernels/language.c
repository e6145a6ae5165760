/* Embedding and softmax cross-entropy. */
#include "kernels.h"

#define ROWS    64
#define COLUMNS 64

typedef struct embedding_task {
  const embedding_shape *s;
  const clm_embedding_args *forward;
  const clm_embedding_backward_args *backward;
} embedding_task;

static int64_t id_at(const clm_tensor *ids, int64_t i) {
  return ((const int32_t *)(const void *)element_data(ids))[i * ids->stride[0]];
}

static void embed_rows(void *arg, int64_t index, int worker) {
  const embedding_task *task = arg;
  const clm_embedding_args *a = task->forward;
  size_t bytes = (size_t)task->s->dim * sizeof(float);
  (void)worker;
  for (int64_t i = index * ROWS; i < min_of((index + 1) * ROWS, task->s->count); i++) {
    int64_t id = id_at(&a->ids, i);
    float *out = kernel_data(a->out) + i * a->out.stride[0];
    if (id >= 0 && id < task->s->vocab) memcpy(out, kernel_data(a->table) + id * a->table.stride[0], bytes);
    else memset(out, 0, bytes);
  }
}

static bool rows_ok(const clm_tensor *t) { return !t->buffer || t->shape[1] == 1 || t->stride[1] == 1; }

clm_status KERNEL(embedding)(clm_context *ctx, const embedding_shape *s, const clm_embedding_args *a) {
  if (!ALL_F32(a->table, a->out) || a->ids.dtype != CLM_I32 || !rows_ok(&a->table) || !rows_ok(&a->out))
    return ref_embedding(ctx, s, a);
  embedding_task task = {.s = s, .forward = a};
  cpu_pool_run(cpu_context_pool(ctx), div_up(s->count, ROWS), embed_rows, &task);
  context_explain(ctx, "embedding: cpu %s, %d rows a task", cpu_context_level(ctx), ROWS);
  return CLM_OK;
}

/* A task owns some columns of dtable and takes the ids in order: no two tasks write the same element. */
static void embed_columns(void *arg, int64_t index, int worker) {
  const embedding_task *task = arg;
  const clm_embedding_backward_args *a = task->backward;
  int64_t first = index * COLUMNS, n = min_of(COLUMNS, task->s->dim - first);
  float *table = kernel_data(a->dtable) + first;
  (void)worker;
  if (!a->accumulate)
    for (int64_t v = 0; v < task->s->vocab; v++)
      memset(table + v * a->dtable.stride[0], 0, (size_t)n * sizeof *table);
  for (int64_t i = 0; i < task->s->count; i++) {
    int64_t id = id_at(&a->ids, i);
    if (id < 0 || id >= task->s->vocab) continue;
    const float *dout = kernel_data(a->dout) + i * a->dout.stride[0] + first;
    float *row = table + id * a->dtable.stride[0];
    for (int64_t j = 0; j < n; j++) row[j] += dout[j];
  }
}

clm_status KERNEL(embedding_backward)(clm_context *ctx, const embedding_shape *s,
                                      const clm_embedding_backward_args *a) {
  if (!ALL_F32(a->dout, a->dtable) || a->ids.dtype != CLM_I32 || !rows_ok(&a->dout) || !rows_ok(&a->dtable))
    return ref_embedding_backward(ctx, s, a);
  embedding_task task = {.s = s, .backward = a};
  cpu_pool_run(cpu_context_pool(ctx), div_up(s->dim, COLUMNS), embed_columns, &task);
  context_explain(ctx, "embedding_backward: cpu %s, %d columns a task", cpu_context_level(ctx), COLUMNS);
  return CLM_OK;
}

typedef struct entropy_task {
  const matrix_shape *s;
  const clm_cross_entropy_args *a;
} entropy_task;

static void entropy_row(const entropy_task *task, int64_t i) {
  const clm_cross_entropy_args *a = task->a;
  int64_t vocab = task->s->dim, target = id_at(&a->targets, i);
  bool ignored = target < 0 || target >= vocab;
  const float *x = kernel_data(a->logits) + i * a->logits.stride[0];
  float *dx = present(a->dlogits) ? kernel_data(a->dlogits) + i * a->dlogits.stride[0] : NULL;
  float loss = 0;
  if (!ignored) {
    vec most = vec_set(x[0]), sum = vec_set(0);
    for (int64_t j = 0; j < vocab; j += LANES) most = vec_max(most, vec_load_or(x + j, vocab - j, x[0]));
    float largest = vec_largest(most), at_target = x[target];
    for (int64_t j = 0; j < vocab; j += LANES)
      sum += vec_keep(vec_exp(vec_load_or(x + j, vocab - j, x[0]) - vec_set(largest)), vocab - j);
    float total = vec_sum(sum);
    loss = logf(total) + (largest - at_target);
    vec factor = vec_set(a->scale / total);
    for (int64_t j = 0; dx && j < vocab; j += LANES)
      vec_store_part(dx + j, factor * vec_exp(vec_load_or(x + j, vocab - j, x[0]) - vec_set(largest)), vocab - j);
    if (dx) dx[target] -= a->scale;
  } else if (dx) memset(dx, 0, (size_t)vocab * sizeof *dx);
  if (present(a->losses)) kernel_data(a->losses)[i * a->losses.stride[0]] = loss;
}

static void entropy_rows(void *arg, int64_t index, int worker) {
  const entropy_task *task = arg;
  (void)worker;
  for (int64_t i = index * 16; i < min_of((index + 1) * 16, task->s->rows); i++) entropy_row(task, i);
}

clm_status KERNEL(cross_entropy)(clm_context *ctx, const matrix_shape *s, const clm_cross_entropy_args *a) {
  if (!ALL_F32(a->logits, a->losses, a->dlogits) || a->targets.dtype != CLM_I32 || !rows_ok(&a->logits) ||
      !rows_ok(&a->dlogits))
    return ref_cross_entropy(ctx, s, a);
  entropy_task task = {s, a};
  cpu_pool_run(cpu_context_pool(ctx), div_up(s->rows, 16), entropy_rows, &task);
  context_explain(ctx, "cross_entropy: cpu %s, 16 rows a task", cpu_context_level(ctx));
  return CLM_OK;
}
