#include "reference.h"

clm_status ref_swiglu(clm_context *ctx, const matrix_shape *s, const clm_swiglu_args *a) {
  for (int64_t i = 0; i < s->rows; i++)
    for (int64_t j = 0; j < s->dim; j++) SET(a->out, ref_silu(GET(a->gate, i, j)) * GET(a->up, i, j), i, j);
  context_explain(ctx, "swiglu: cpu reference, in double");
  return CLM_OK;
}

clm_status ref_swiglu_backward(clm_context *ctx, const matrix_shape *s, const clm_swiglu_backward_args *b) {
  const clm_swiglu_args *a = &b->forward;
  for (int64_t i = 0; i < s->rows; i++)
    for (int64_t j = 0; j < s->dim; j++) {
      const double gate = GET(a->gate, i, j), up = GET(a->up, i, j), dout = GET(b->dout, i, j);
      SET(b->dgate, dout * up * ref_silu_gradient(gate), i, j);
      SET(b->dup, dout * ref_silu(gate), i, j);
    }
  context_explain(ctx, "swiglu_backward: cpu reference, in double");
  return CLM_OK;
}
