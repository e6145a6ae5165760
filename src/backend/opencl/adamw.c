/* Launch of cl/adamw.cl. */
#include "backend/opencl/operands.h"
#include "backend/opencl/ops.h"
#include <math.h>

enum { ELEMENTS = 4, ITEMS = 256 }; /* ELEMENTS as in the kernel */

clm_status opencl_adamw(clm_context *ctx, const elementwise_shape *s, const clm_adamw_args *a) {
  clm_status status = OPENCL_ONLY_STORAGE(ctx, "adamw", OPERAND(a, parameter));
  opencl_defines types =
      OPENCL_DEFINES("", OPERAND_TYPE(GRADIENT_TYPE, a->gradient), OPERAND_TYPE(COPY_TYPE, a->copy));
  if (status) return status;
  opencl_kernel *k;
  status = opencl_kernel_get(ctx, "adamw", "adamw", types.text, &k);
  if (status) return status;
  size_t local = opencl_kernel_work_group(k, ITEMS);
  size_t global = (size_t)div_up(s->count, ELEMENTS * (int64_t)local) * local;
  double step = (double)a->step;
  context_explain(ctx, "adamw: opencl, one pass");
  return OPENCL_RUN(
      ctx, k, 1, &global, &local, ARG_VECTOR(a->parameter), ARG_VECTOR(a->gradient), ARG_VECTOR(a->m),
      ARG_VECTOR(a->v), ARG_VECTOR(a->copy), ARG_HAS(a->copy), ARG_TENSOR(a->sum_squares), ARG_HAS(a->sum_squares),
      ARG_I64(s->count), ARG_F32(a->lr), ARG_F32(a->beta1), ARG_F32(a->beta2), ARG_F32(a->epsilon),
      ARG_F32(a->weight_decay), ARG_F32(a->gradient_scale == 0 ? 1.0f : a->gradient_scale), ARG_F32(a->max_norm),
      ARG_F32((float)(1 - pow((double)a->beta1, step))), ARG_F32((float)(1 - pow((double)a->beta2, step))));
}
