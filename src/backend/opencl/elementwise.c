/* Launches of cl/elementwise.cl. */
#include "backend/opencl/operands.h"
#include "backend/opencl/ops.h"
#include "cl/random.h"
#include <stdio.h>
#include <string.h>

enum { ELEMENTS = 4, ITEMS = 256 }; /* ELEMENTS as in the kernels */

static void sizes(const opencl_kernel *k, int64_t count, size_t *global, size_t *local) {
  *local = opencl_kernel_work_group(k, ITEMS);
  *global = (size_t)div_up(count, ELEMENTS * (int64_t)*local) * *local;
}

clm_status opencl_axpby(clm_context *ctx, const elementwise_shape *s, const clm_axpby_args *a) {
  clm_status status = CLM_OK; /* complex numbers are pairs of floats here */
  if (a->out.dtype != CLM_C64) status = OPENCL_ONLY_STORAGE(ctx, "axpby", OPERAND(a, x), OPERAND(a, out));
  if (status) return status;
  opencl_defines types =
      OPENCL_DEFINES("-DELEMENTWISE_AXPBY", OPERAND_TYPE(X_TYPE, a->x), OPERAND_TYPE(OUT_TYPE, a->out));
  opencl_kernel *k;
  status = opencl_kernel_get(ctx, "elementwise", "axpby", types.text, &k);
  if (status) return status;
  strided_view v = opencl_strided((const clm_tensor *const[STRIDED_TENSORS]){&a->x, &a->out}, 2);
  clm_tensor x = a->x, out = a->out;
  int64_t count = s->count;
  if (out.dtype == CLM_C64) {
    count *= 2;
    x.dtype = out.dtype = CLM_F32; /* so that offsets count floats */
  }
  size_t global, local;
  sizes(k, count, &global, &local);
  context_explain(ctx, "axpby: opencl, %d dimension%s of strides", v.rank, v.rank == 1 ? "" : "s");
  return OPENCL_RUN(ctx, k, 1, &global, &local, ARG_TENSOR(x), ARG_TENSOR(out), ARG_I64(count), ARG_I32(v.rank),
                    ARG_LONG8(v.shape), ARG_LONG8(v.stride[0]), ARG_LONG8(v.stride[1]), ARG_HAS(x), ARG_F32(a->alpha),
                    ARG_F32(a->beta));
}

clm_status opencl_cast(clm_context *ctx, const elementwise_shape *s, const clm_cast_args *a) {
  opencl_defines types =
      OPENCL_DEFINES("-DELEMENTWISE_CAST", OPERAND_TYPE(X_TYPE, a->x), OPERAND_TYPE(OUT_TYPE, a->out));
  size_t used = strlen(types.text);
  snprintf(types.text + used, sizeof types.text - used, "%s%s", a->x.dtype == CLM_F64 ? " -DX_F64" : "",
           a->out.dtype == CLM_F64 ? " -DOUT_F64" : "");
  opencl_kernel *k;
  clm_status status = opencl_kernel_get(ctx, "elementwise", "cast", types.text, &k);
  if (status) return status;
  strided_view v = opencl_strided((const clm_tensor *const[STRIDED_TENSORS]){&a->x, &a->out}, 2);
  size_t global, local;
  sizes(k, s->count, &global, &local);
  context_explain(ctx, "cast: opencl, %d dimension%s of strides", v.rank, v.rank == 1 ? "" : "s");
  return OPENCL_RUN(ctx, k, 1, &global, &local, ARG_TENSOR(a->x), ARG_TENSOR(a->out), ARG_I64(s->count),
                    ARG_I32(v.rank), ARG_LONG8(v.shape), ARG_LONG8(v.stride[0]), ARG_LONG8(v.stride[1]),
                    ARG_I32(a->out.dtype != CLM_F32));
}

clm_status opencl_dropout(clm_context *ctx, const elementwise_shape *s, const clm_dropout_args *a) {
  clm_status status = OPENCL_ONLY_STORAGE(ctx, "dropout", OPERAND(a, x));
  if (status) return status;
  opencl_defines types = OPENCL_DEFINES("-DELEMENTWISE_DROPOUT", OPERAND_TYPE(X_TYPE, a->x));
  opencl_kernel *k;
  status = opencl_kernel_get(ctx, "elementwise", "dropout", types.text, &k);
  if (status) return status;
  strided_view v = opencl_strided((const clm_tensor *const[STRIDED_TENSORS]){&a->x, &a->residual, &a->out}, 3);
  size_t global, local;
  sizes(k, s->count, &global, &local);
  context_explain(ctx, "dropout: opencl, %d dimension%s of strides", v.rank, v.rank == 1 ? "" : "s");
  /* The threshold is that of cl/random.h; the scale is rounded from double like the reference's. */
  return OPENCL_RUN(ctx, k, 1, &global, &local, ARG_TENSOR(a->x), ARG_TENSOR(a->residual), ARG_TENSOR(a->out),
                    ARG_I64(s->count), ARG_I32(v.rank), ARG_LONG8(v.shape), ARG_LONG8(v.stride[0]),
                    ARG_LONG8(v.stride[1]), ARG_LONG8(v.stride[2]), ARG_HAS(a->residual),
                    ARG_F32((float)(1 / (1 - (double)a->rate))), ARG_I32(random_threshold(a->rate)),
                    ARG_U64(a->seed));
}
