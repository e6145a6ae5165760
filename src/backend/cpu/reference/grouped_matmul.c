#include "../grouped.h"
#include "reference.h"

clm_status ref_grouped_matmul(clm_context *ctx, const grouped_shape *s, const clm_grouped_matmul_args *a) {
  const clm_status status = cpu_grouped_matmul(ctx, s, a, ref_matmul);
  context_explain(ctx, "grouped_matmul: cpu reference, in double");
  return status;
}

clm_status ref_grouped_matmul_backward(clm_context *ctx, const grouped_shape *s,
                                       const clm_grouped_matmul_backward_args *b) {
  const clm_status status = cpu_grouped_matmul_backward(ctx, s, b, ref_matmul);
  context_explain(ctx, "grouped_matmul_backward: cpu reference, in double");
  return status;
}
