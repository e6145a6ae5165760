/* Launches of cl/elementwise.cl. */
#include "backend/opencl/operands.h"
#include "backend/opencl/ops.h"
#include "cl/random.h"
#include <stdio.h>

enum { ELEMENTS = 4, ITEMS = 256 }; /* ELEMENTS as in the kernels */

static void sizes(const opencl_kernel *k, int64_t count, size_t *global, size_t *local) {
  *local = opencl_kernel_work_group(k, ITEMS);
  *global = ceil_div((size_t)count, ELEMENTS * *local) * *local;
}

static const char *storage_name(clm_dtype dtype) {
  switch (dtype) {
  case CLM_F32:
  case CLM_C64: return "f32"; /* complex numbers are pairs of floats here */
  case CLM_F16: return "f16";
  case CLM_BF16: return "bf16";
  default: return NULL;
  }
}

clm_status opencl_axpby(clm_context *ctx, const elementwise_shape *s, const clm_axpby_args *a) {
  const char *x_type = a->x.buffer ? storage_name(a->x.dtype) : "f32", *out_type = storage_name(a->out.dtype);
  if (!x_type || !out_type)
    return context_fail(ctx, CLM_UNSUPPORTED, "axpby: %s is %s, the OpenCL backend has f32, f16, bf16 and c64",
                        x_type ? "out" : "x", clm_dtype_name(x_type ? a->out.dtype : a->x.dtype));
  char defines[96];
  snprintf(defines, sizeof defines, "-DELEMENTWISE_AXPBY -DX_TYPE=%s -DOUT_TYPE=%s", x_type, out_type);
  opencl_kernel *k;
  clm_status status = opencl_kernel_get(ctx, "elementwise", "axpby", defines, &k);
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
  context_explain(ctx, "axpby: opencl, %s to %s, %d dimension%s of strides", x_type, out_type, v.rank,
                  v.rank == 1 ? "" : "s");
  return OPENCL_RUN(ctx, k, 1, &global, &local, ARG_TENSOR(x), ARG_TENSOR(out), ARG_I64(count), ARG_I32(v.rank),
                    ARG_LONG8(v.shape), ARG_LONG8(v.stride[0]), ARG_LONG8(v.stride[1]), ARG_HAS(x), ARG_F32(a->alpha),
                    ARG_F32(a->beta));
}

clm_status opencl_dropout(clm_context *ctx, const elementwise_shape *s, const clm_dropout_args *a) {
  clm_status status = OPENCL_ONLY_F32(ctx, "dropout", OPERAND(a, x), OPERAND(a, residual), OPERAND(a, out));
  if (status) return status;
  opencl_kernel *k;
  status = opencl_kernel_get(ctx, "elementwise", "dropout", "-DELEMENTWISE_DROPOUT", &k);
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
