#include "core/op_plan.h"
#include "core/context.h"
#include <stdlib.h>

/* Operations that were recorded with a smaller one keep it. */
struct op_plan_workspace {
  op_plan_workspace *next;
  int depth; /* as of clm_context.workspace */
  clm_buffer *buffer;
};

clm_status op_plan_begin(clm_context *ctx, op_plan **plan) {
  *plan = NULL;
  if (!ctx->backend->plan_create || ctx->plan) return CLM_UNSUPPORTED;
  op_plan *p = calloc(1, sizeof *p);
  if (!p) return context_fail(ctx, CLM_OUT_OF_MEMORY, "context: out of host memory for a plan");
  p->context = ctx;
  const clm_status status = ctx->backend->plan_create(p);
  if (status) {
    free(p);
    return status;
  }
  ctx->plan = *plan = p;
  ctx->calls = CALLS_RECORD;
  return CLM_OK;
}

clm_status op_plan_end(op_plan **plan, clm_status recorded) {
  clm_context *ctx = (*plan)->context;
  ctx->plan = NULL;
  ctx->calls = CALLS_RUN;
  if (!recorded && ctx->backend->plan_end) recorded = ctx->backend->plan_end(*plan);
  if (recorded) op_plan_drop(plan);
  return recorded;
}

clm_status op_plan_run(const op_plan *plan) {
  clm_context *ctx = plan->context;
  if (ctx->plan) return context_fail(ctx, CLM_UNSUPPORTED, "context: a plan cannot run while one is recorded");
  return ctx->backend->plan_run(plan);
}

void op_plan_drop(op_plan **plan) {
  if (!plan || !*plan) return;
  op_plan *p = *plan;
  while (p->workspaces) {
    op_plan_workspace *next = p->workspaces->next;
    clm_buffer_destroy(&p->workspaces->buffer);
    free(p->workspaces);
    p->workspaces = next;
  }
  if (!context_is_inherited(p->context)) p->context->backend->plan_destroy(p);
  free(p);
  *plan = NULL;
}

clm_status op_plan_workspace_of(op_plan *plan, int depth, size_t bytes, clm_buffer **workspace) {
  for (const op_plan_workspace *w = plan->workspaces; w; w = w->next)
    if (w->depth == depth && clm_buffer_size(w->buffer) >= bytes) {
      *workspace = w->buffer;
      return CLM_OK;
    }
  op_plan_workspace *larger = malloc(sizeof *larger);
  if (!larger) return context_fail(plan->context, CLM_OUT_OF_MEMORY, "context: out of host memory for a plan");
  *larger = (op_plan_workspace){.next = plan->workspaces, .depth = depth};
  const clm_status status = clm_buffer_create(plan->context, bytes, &larger->buffer);
  if (status) {
    free(larger);
    return status;
  }
  plan->workspaces = larger;
  *workspace = larger->buffer;
  return CLM_OK;
}
