/* One step of the selective scan in place. */
#include "backend/opencl/ops.h"
#include "backend/opencl/scan_family.h"
#include "schedule/arith.h"
#include <stdio.h>

clm_status opencl_selective_state_update(clm_context *ctx, const selective_scan_shape *s,
                                         const clm_selective_state_update_args *a) {
  const clm_tensor *tensors[] = {&a->state, &a->u, &a->delta, &a->A,          &a->B,
                                 &a->C,     &a->D, &a->z,     &a->delta_bias, &a->out};
  clm_status status = scan_check_dtypes(ctx, "selective_state_update", CLM_F32, tensors, 10);
  if (status) return status;
  const schedule_device *d = opencl_schedule_device(ctx);
  int32_t size = power_of_two_at_most(d->max_work_group < 128 ? d->max_work_group : 128);
  int32_t lanes = power_of_two_at_most(d->is_cpu || s->d_state < 4 ? 1 : s->d_state < 64 ? s->d_state / 4 : 16);
  if (lanes > size) lanes = size;
  char defines[128];
  snprintf(defines, sizeof defines, "%s -DWORK_GROUP=%d -DUPDATE_LANES=%d", scan_device_defines(d), size, lanes);
  opencl_kernel *kernel;
  status = opencl_kernel_get(ctx, "selective_state_update", "selective_state_update", defines, &kernel);
  if (status) return status;
  size_t global[2] = {(size_t)(divide_up(s->d_inner, size / lanes) * size), (size_t)s->batch};
  size_t local[2] = {(size_t)size, 1};
  status =
      OPENCL_RUN(ctx, kernel, 2, global, local, ARG_TENSOR3(a->state), ARG_TENSOR2(a->u), ARG_TENSOR2(a->delta),
                 ARG_TENSOR2(a->A), ARG_TENSOR3(a->B), ARG_TENSOR3(a->C), ARG_TENSOR1(a->D), ARG_TENSOR2(a->z),
                 ARG_TENSOR1(a->delta_bias), ARG_TENSOR2(a->out), ARG_I32(a->D.buffer != NULL),
                 ARG_I32(a->z.buffer != NULL), ARG_I32(a->delta_bias.buffer != NULL), ARG_I32(a->delta_softplus),
                 ARG_I32(a->A_is_log), ARG_I32(s->d_inner), ARG_I32(s->d_state), ARG_I32(s->d_inner / s->n_groups));
  if (!status) context_explain(ctx, "selective_state_update: %d lanes a channel, %d work-items", lanes, size);
  return status;
}
