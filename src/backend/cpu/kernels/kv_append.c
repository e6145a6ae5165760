/* Keys and values into their caches: a task for each step. */
#include "ops/rows.h"
#include "storage.h"

#define BLOCK 256 /* numbers converted at a time */

typedef struct append_task {
  const kv_shape *s;
  const clm_kv_append_args *a;
} append_task;

static void copy_line(line from, line to, int64_t n) {
  float scratch[BLOCK];
  for (int64_t begin = 0; begin < n; begin += BLOCK) {
    const int64_t count = min_of(BLOCK, n - begin);
    line_write(line_from(to, begin), count, line_load(line_from(from, begin), count, scratch));
  }
}

static void copy_heads(const kv_shape *s, const clm_tensor *from, int64_t batch, int64_t step, const clm_tensor *to,
                       int64_t row, int64_t place) {
  for (int64_t head = 0; head < s->kv_heads; head++)
    copy_line(
        line_at(from, batch * from->stride[0] + step * from->stride[1] + head * from->stride[2], from->stride[3]),
        line_at(to, row * to->stride[0] + place * to->stride[1] + head * to->stride[2], to->stride[3]), s->head_dim);
}

static void append_step(void *arg, int64_t index, int worker) {
  const append_task *task = arg;
  const kv_shape *s = task->s;
  const clm_kv_append_args *a = task->a;
  const int64_t step = index % s->length;
  (void)worker;
  for (int64_t i = s->packed ? 0 : index / s->length; i < s->sequences; i++) {
    const seq_row r = seq_row_of(&a->cu_seqlens, false, s->length, i);
    const int64_t place = seq_offset_of(&a->offsets, i) + step - r.begin;
    if (step >= r.begin && step < r.end && place >= 0 && place < s->keys) {
      copy_heads(s, &a->k, r.batch, step, &a->k_cache, i, place);
      copy_heads(s, &a->v, r.batch, step, &a->v_cache, i, place);
    }
    if (!s->packed) return;
  }
}

clm_status KERNEL(kv_append)(clm_context *ctx, const kv_shape *s, const clm_kv_append_args *a) {
  if (!ALL_STORAGE(a->k, a->k_cache)) return ref_kv_append(ctx, s, a);
  append_task task = {s, a};
  cpu_pool_run(cpu_context_pool(ctx), s->batch * s->length, append_step, &task);
  context_explain(ctx, "kv_append: cpu %s, a step a task", cpu_context_level(ctx));
  return CLM_OK;
}
