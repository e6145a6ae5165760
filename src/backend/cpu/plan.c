#include "batch.h"
#include "state.h"
#include <stdlib.h>
#include <string.h>

enum { MOST_STAGES = 1024, ARGS_BYTES = 2 << 20, LINE = 64, SINGLE_ARG = LINE, SINGLE_BYTES = 4096 };
_Static_assert(sizeof(cpu_stage) <= SINGLE_ARG, "a stage is in front of what it works on");

static cpu_batch *batch_of(const clm_context *ctx) { return &((cpu_state *)ctx->state)->batch; }

static void run_kept(clm_context *ctx, const cpu_batch *batch) {
  if (batch->count > 0) cpu_pool_run_stages(cpu_context_pool(ctx), batch->stages, batch->count);
}

static void start_over(cpu_batch *batch, bool whole) {
  batch->whole = whole;
  batch->count = 0;
  batch->args_used = 0;
}

void cpu_settle(clm_context *ctx) {
  cpu_batch *batch = batch_of(ctx);
  if (!batch->open) return;
  run_kept(ctx, batch);
  start_over(batch, false);
}

/* Line for line, what is the same already is not written: other cores keep it in their caches. */
static void *renew(char *kept, const void *now, size_t bytes) {
  for (size_t i = 0; i < bytes; i += LINE) {
    const char *from = (const char *)now + i;
    const size_t n = bytes - i < LINE ? bytes - i : LINE;
    if (memcmp(kept + i, from, n) != 0) memcpy(kept + i, from, n);
  }
  return kept;
}

/* An operation that is called again and again has nearly the same arguments each time, on its caller's stack. Helpers
 * that read them there would take the lines from the caller, who wants to write them again: where two cores share no
 * cache, 0.6 microseconds of a state update's 5.7. */
static const cpu_stage *keep_single(cpu_batch *batch, const cpu_stage *stage) {
  if (!batch->single && (batch->single = cpu_memory(SINGLE_BYTES))) memset(batch->single, 0, SINGLE_BYTES);
  if (!batch->single || SINGLE_ARG + stage->arg_bytes > SINGLE_BYTES) return stage;
  cpu_stage now = *stage;
  now.arg = renew(batch->single + SINGLE_ARG, stage->arg, stage->arg_bytes);
  return renew(batch->single, &now, sizeof now);
}

void cpu_submit(clm_context *ctx, const cpu_stage *stage) {
  cpu_batch *batch = batch_of(ctx);
  const size_t bytes = (stage->arg_bytes + LINE - 1) / LINE * LINE;
  if (!batch->open) {
    cpu_pool_run_stages(cpu_context_pool(ctx), keep_single(batch, stage), 1);
    return;
  }
  if (batch->count == MOST_STAGES || batch->args_used + bytes > ARGS_BYTES) cpu_settle(ctx);
  cpu_stage *kept = &batch->stages[batch->count++];
  *kept = *stage;
  kept->arg = memcpy(batch->args + batch->args_used, stage->arg, stage->arg_bytes);
  batch->args_used += bytes;
}

#define X(name, shape)                                                                                               \
  static clm_status settled_##name(clm_context *ctx, const shape *s, const clm_##name##_args *a) {                   \
    cpu_settle(ctx);                                                                                                 \
    return batch_of(ctx)->direct.name(ctx, s, a);                                                                    \
  }
BACKEND_OPS(X)
#undef X

static backend_ops settled(const backend_ops *direct) {
  backend_ops ops = *direct;
#define X(name, shape) ops.name = settled_##name;
  BACKEND_OPS(X)
#undef X
  ops.causal_conv1d_update = direct->causal_conv1d_update; /* these know cpu_submit */
  ops.embedding = direct->embedding;
  ops.matmul = direct->matmul;
  ops.norm = direct->norm;
  ops.selective_state_update = direct->selective_state_update;
  return ops;
}

void cpu_batch_begin(clm_context *ctx) {
  cpu_batch *batch = batch_of(ctx);
  if (((const cpu_state *)ctx->state)->level == CPU_REFERENCE) return; /* it knows no stages */
  if (!batch->stages) batch->stages = calloc(MOST_STAGES, sizeof *batch->stages);
  if (!batch->args && posix_memalign((void **)&batch->args, LINE, ARGS_BYTES) != 0) batch->args = NULL;
  if (!batch->stages || !batch->args) return;
  start_over(batch, true);
  batch->direct = ctx->ops;
  ctx->ops = settled(&batch->direct);
  batch->open = true;
}

void cpu_batch_end(clm_context *ctx, const batch_key *key) {
  cpu_batch *batch = batch_of(ctx);
  if (!batch->open) return;
  run_kept(ctx, batch);
  if (key) batch->key = *key;
  else batch->whole = false;
  ctx->ops = batch->direct;
  batch->open = false;
}

bool cpu_batch_again(clm_context *ctx, const batch_key *key) {
  const cpu_batch *batch = batch_of(ctx);
  if (batch->open || !batch->whole || memcmp(&batch->key, key, sizeof *key) != 0) return false;
  run_kept(ctx, batch);
  return true;
}

void cpu_batch_forget(clm_context *ctx) { batch_of(ctx)->whole = false; }

void cpu_batch_free(cpu_batch *batch) {
  free(batch->stages);
  free(batch->args);
  free(batch->single);
}
