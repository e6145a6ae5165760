/* Plans as step programs (cl/step.cl): step_record.c makes a table of stages of the operations that are recorded,
 * step.c makes a kernel run it. */
#ifndef CLM_OPENCL_STEP_H
#define CLM_OPENCL_STEP_H

#include "backend/opencl/opencl.h"
#include "cl/step_args.h"

typedef struct step_plan {
  step_stage *stages;
  int64_t count, room;
  int64_t rows, width; /* of all operations; the widest row of a product's input or a norm */
  clm_dtype weights;   /* of all products */
  bool products;       /* there are any */
  bool aligned;        /* every piece of every weight */
  const clm_buffer *buffers[STEP_BUFFERS];
  int buffer_count;
  step_stage folded; /* the norm that the products after it make for themselves; parts 0: none */

  opencl_kernel *kernel;
  clm_buffer *memory; /* the stages, as cl/step_args.h says      */
  size_t groups, work_group;
  uint32_t met; /* meetings so far */
} step_plan;

/* Records one operation in context->plan; CLM_UNSUPPORTED without a message where stages cannot do it. */
extern const backend_ops step_record_ops;

/* Work-items that share a sum. */
int opencl_step_lanes(const clm_context *);

clm_status opencl_plan_create(op_plan *);
clm_status opencl_plan_end(op_plan *);
clm_status opencl_plan_run(const op_plan *);
void opencl_plan_destroy(op_plan *);

#endif
