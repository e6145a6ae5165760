/* Launches of cl/swiglu.cl. */
#include "backend/opencl/operands.h"
#include "backend/opencl/ops.h"
#include <stdio.h>

enum { ITEMS = 256 };

static clm_status get_kernel(clm_context *ctx, const char *name, const clm_swiglu_args *a, opencl_kernel **k) {
  clm_status status = OPENCL_ONLY_STORAGE(ctx, name, OPERAND(a, gate));
  if (status) return status;
  char activation[32];
  snprintf(activation, sizeof activation, "-DGATE_ACTIVATION=%d", (int)a->activation);
  return opencl_kernel_get(ctx, "swiglu", name, OPENCL_DEFINES(activation, OPERAND_TYPE(X_TYPE, a->gate)).text, k);
}

static void sizes(const opencl_kernel *k, const matrix_shape *s, size_t *global, size_t *local) {
  *local = opencl_kernel_work_group(k, ITEMS);
  *global = (size_t)round_up(s->rows * s->dim, (int64_t)*local);
}

clm_status opencl_swiglu(clm_context *ctx, const matrix_shape *s, const clm_swiglu_args *a) {
  opencl_kernel *k;
  clm_status status = get_kernel(ctx, "swiglu", a, &k);
  if (status) return status;
  size_t global, local;
  sizes(k, s, &global, &local);
  context_explain(ctx, "swiglu: opencl, a work-item per element");
  return OPENCL_RUN(ctx, k, 1, &global, &local, ARG_MATRIX(a->gate), ARG_MATRIX(a->up), ARG_HAS(a->up),
                    ARG_MATRIX(a->out), ARG_I64(s->rows * s->dim), ARG_I64(s->dim));
}

clm_status opencl_swiglu_backward(clm_context *ctx, const matrix_shape *s, const clm_swiglu_backward_args *b) {
  const clm_swiglu_args *a = &b->forward;
  opencl_kernel *k;
  clm_status status = get_kernel(ctx, "swiglu_backward", a, &k);
  if (status) return status;
  size_t global, local;
  sizes(k, s, &global, &local);
  context_explain(ctx, "swiglu_backward: opencl, a work-item per element");
  return OPENCL_RUN(ctx, k, 1, &global, &local, ARG_MATRIX(a->gate), ARG_MATRIX(a->up), ARG_HAS(a->up),
                    ARG_MATRIX(b->dout), ARG_MATRIX(b->dgate), ARG_HAS(b->dgate), ARG_MATRIX(b->dup), ARG_HAS(b->dup),
                    ARG_I64(s->rows * s->dim), ARG_I64(s->dim));
}
