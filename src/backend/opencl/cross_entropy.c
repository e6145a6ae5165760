/* Launch of cl/cross_entropy.cl. */
#include "backend/opencl/operands.h"
#include "backend/opencl/ops.h"

enum { MAX_ITEMS = 512 };

clm_status opencl_cross_entropy(clm_context *ctx, const matrix_shape *s, const clm_cross_entropy_args *a) {
  clm_status status = OPENCL_ONLY_STORAGE(ctx, "cross_entropy", OPERAND(a, logits));
  opencl_defines types = OPENCL_DEFINES("", OPERAND_TYPE(X_TYPE, a->logits));
  if (status == CLM_OK) status = opencl_fits_int(ctx, "cross_entropy", "vocab", s->dim);
  opencl_kernel *k;
  if (status == CLM_OK) status = opencl_kernel_get(ctx, "cross_entropy", "cross_entropy", types.text, &k);
  if (status) return status;
  size_t wanted = power_of_two(s->dim / 4);
  wanted = wanted < 32 ? 32 : wanted > MAX_ITEMS ? MAX_ITEMS : wanted;
  size_t local = opencl_kernel_work_group(k, wanted), global = (size_t)s->rows * local;
  context_explain(ctx, "cross_entropy: opencl, a work-group of %zu per row", local);
  return OPENCL_RUN(ctx, k, 1, &global, &local, ARG_MATRIX(a->logits), ARG_VECTOR(a->targets), ARG_VECTOR(a->losses),
                    ARG_HAS(a->losses), ARG_MATRIX(a->dlogits), ARG_HAS(a->dlogits), ARG_I32(s->dim),
                    ARG_F32(a->scale), ARG_LOCAL(local * sizeof(float)));
}
