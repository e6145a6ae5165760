#include "model/linear.h"
#include "core/try.h"
#include <clmamba/elementwise.h>

clm_tensor rows_of(clm_tensor t) {
  int64_t features = t.shape[t.rank - 1];
  return clm_tensor_reshape(t, 2, (int64_t[]){clm_tensor_count(t) / features, features});
}

clm_math linear_math(clm_dtype activations) {
  return activations == CLM_BF16 ? CLM_MATH_BF16 : activations == CLM_F16 ? CLM_MATH_F16 : CLM_MATH_F32;
}

clm_status linear_forward(clm_context *ctx, const linear *l) {
  return clm_matmul(ctx, &(clm_matmul_args){.a = l->input,
                                            .b = clm_tensor_transpose(l->weight, 0, 1),
                                            .bias = l->bias,
                                            .residual = l->residual,
                                            .out = l->out,
                                            .scale = l->factor,
                                            .b_scale = l->scale,
                                            .math = linear_math(l->input.dtype)});
}

clm_status linear_backward(clm_context *ctx, const linear *l, const linear_gradients *g) {
  const clm_math math = linear_math(l->input.dtype);
  if (g->dinput.buffer)
    TRY(clm_matmul(ctx, &(clm_matmul_args){.a = g->dout,
                                           .b = l->weight,
                                           .out = g->dinput,
                                           .scale = l->factor,
                                           .accumulate = g->accumulate_dinput,
                                           .math = math}));
  if (g->dweight.buffer)
    TRY(clm_matmul(ctx, &(clm_matmul_args){.a = clm_tensor_transpose(g->dout, 0, 1),
                                           .b = l->input,
                                           .out = g->dweight,
                                           .scale = l->factor,
                                           .accumulate = g->accumulate_dweight,
                                           .math = math}));
  if (g->dbias.buffer) TRY(clm_column_sum(ctx, &(clm_column_sum_args){.x = g->dout, .out = g->dbias}));
  return CLM_OK;
}
