/* The products of experts: few rows go at the speed of memory (matvec.c), more of them in blocks (matmul.c). */
#include "../grouped.h"
#include "kernels.h"

clm_status KERNEL(grouped_matmul)(clm_context *ctx, const grouped_shape *s, const clm_grouped_matmul_args *a) {
  const clm_status status = cpu_grouped_matmul(ctx, s, a, KERNEL(matmul));
  context_explain(ctx, "grouped_matmul: cpu %s, a product for each expert with rows", cpu_context_level(ctx));
  return status;
}

clm_status KERNEL(grouped_matmul_backward)(clm_context *ctx, const grouped_shape *s,
                                           const clm_grouped_matmul_backward_args *b) {
  const clm_status status = cpu_grouped_matmul_backward(ctx, s, b, KERNEL(matmul));
  context_explain(ctx, "grouped_matmul_backward: cpu %s, products for each expert with rows", cpu_context_level(ctx));
  return status;
}
