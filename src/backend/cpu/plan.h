/* Plans of operations (core/op_plan.h) as stages of the thread pool. Called one by one, each operation ends with all
 * threads waiting for the caller, who checks the next one and writes its arguments where the caches of the others do
 * not have them: microseconds, of which a step of generation would have hundreds. */
#ifndef CLM_CPU_PLAN_H
#define CLM_CPU_PLAN_H

#include "backend/backend.h"
#include "pool.h"

clm_status cpu_plan_create(op_plan *);
clm_status cpu_plan_run(const op_plan *);
void cpu_plan_destroy(op_plan *);

/* Fills the table of functions that record. `stages`: operations have kernels that call cpu_submit. */
void cpu_plan_init(backend_ops *record, bool stages);

/* Runs a stage, or records it while a plan is recorded, with a copy of the arg_bytes at its arg. A kernel that ends
 * in this call has its line in STAGE_OPS of plan.c; where it does not take its arguments, and would call the
 * reference, it gives CLM_UNSUPPORTED instead while a plan is recorded: the call itself is recorded then. */
clm_status cpu_submit(clm_context *, const cpu_stage *);

#endif
