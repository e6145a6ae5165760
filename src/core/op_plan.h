/* A plan: operations that are recorded once and run together, as often as its owner likes. The blocks of a model's
 * step of generation are one: hundreds of small operations, the same ones for every token.
 *
 *   TRY(op_plan_begin(context, &plan));            operations are checked and recorded from here on, none runs
 *   TRY(op_plan_end(&plan, operations(context)));
 *   TRY(op_plan_run(plan));                        any number of times
 *   op_plan_drop(&plan);
 *
 * A plan has the places of its operations' tensors, not their contents. Its owner drops it when one of their buffers
 * is destroyed or a tensor moves. What one operation writes only for the others of the plan may never reach memory.
 * What operations need as workspace belongs to the plan. */
#ifndef CLM_CORE_OP_PLAN_H
#define CLM_CORE_OP_PLAN_H

#include <clmamba/buffer.h>

typedef struct op_plan_workspace op_plan_workspace;

typedef struct op_plan {
  clm_context *context;
  op_plan_workspace *workspaces;
  void *state; /* the backend's own */
} op_plan;

/* CLM_UNSUPPORTED, without a message, where the backend has no plans, or where one is being recorded already. Buffers
 * cannot be read, written or mapped before the end. */
clm_status op_plan_begin(clm_context *context, op_plan **plan);

/* Ends the recording, whose status is `recorded`: unless that is CLM_OK, the plan is dropped. Returns `recorded`. */
clm_status op_plan_end(op_plan **plan, clm_status recorded);

clm_status op_plan_run(const op_plan *plan);
void op_plan_drop(op_plan **plan); /* may be NULL, or the address of NULL */

/* context_workspace (core/context.h) of an operation that is recorded. */
clm_status op_plan_workspace_of(op_plan *plan, int depth, size_t bytes, clm_buffer **workspace);

#endif
