#include "ops/check.h"

static const op_dim dims[] = {OP_DIM('m', "m"), OP_DIM('n', "n"), OP_DIM('k', "k"), {0}};

/* clang-format off */
static const op_tensor tensors[] = {
    OP_TENSOR(clm_matmul_args, a, OP_IN, OP_IS_FLOAT, "m k"),
    OP_TENSOR(clm_matmul_args, b, OP_IN, {.set = OP_FLOAT | OP_DTYPE(CLM_I8)}, "k n"),
    OP_TENSOR(clm_matmul_args, out, OP_OUT, OP_IS_FLOAT, "m n", .may_be = "residual", .added = "accumulate"),
    OP_TENSOR(clm_matmul_args, bias, OP_IN, OP_IS_REAL, "n", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_matmul_args, residual, OP_IN, OP_AS("out"), "m n", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_matmul_args, b_scale, OP_IN, OP_IS_REAL, "n", .flags = OP_OPTIONAL, .scale_of = "b"),
};

static const op_scalar scalars[] = {
    OP_SCALAR(clm_matmul_args, scale, OP_NUMBER),
    OP_SCALAR(clm_matmul_args, activation, OP_CHOICE, .high = CLM_ACTIVATION_SOFTPLUS + 1),
    OP_SCALAR(clm_matmul_args, accumulate, OP_BOOL),
    OP_SCALAR(clm_matmul_args, math, OP_CHOICE, .high = CLM_MATH_TF32 + 1),
    {0},
};
/* clang-format on */

const op_table matmul_table = {
    .name = "matmul", .main = "out", .dims = dims, .parts = {OP_PART(tensors)}, .scalars = scalars};

clm_status clm_matmul(clm_context *context, const clm_matmul_args *args) {
  op_call c;
  TRY(op_check(&c, context, &matmul_table, args));
  if (args->accumulate && (op_present(&args->bias) || op_present(&args->residual) || args->activation))
    return op_fail(&c, "accumulate is set, expected no bias, residual or activation beside it");
  const matmul_shape s = {.m = op_length(&c, 'm'), .n = op_length(&c, 'n'), .k = op_length(&c, 'k')};
  return OP_RUN(&c, matmul, &s, args);
}
