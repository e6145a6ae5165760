#include "reference.h"

clm_status ref_matmul(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *a) {
  double scale = a->scale == 0 ? 1 : (double)a->scale;
  for (int64_t i = 0; i < s->m; i++)
    for (int64_t j = 0; j < s->n; j++) {
      double sum = 0, column = present(a->b_scale) ? GET(a->b_scale, j) : 1;
      for (int64_t k = 0; k < s->k; k++) sum += GET(a->a, i, k) * GET(a->b, k, j);
      sum = scale * (column * sum) + GET(a->bias, j);
      if (a->activation == CLM_ACTIVATION_SILU) sum = ref_silu(sum);
      if (a->activation == CLM_ACTIVATION_SOFTPLUS) sum = ref_softplus(sum);
      sum += GET(a->residual, i, j);
      if (a->accumulate) sum += GET(a->out, i, j);
      SET(a->out, sum, i, j);
    }
  context_explain(ctx, "matmul: cpu reference, in double");
  return CLM_OK;
}
