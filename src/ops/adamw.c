#include "ops/check.h"

/* clang-format off */
static const op_dim dims[] = {OP_DIM('n', "count"), OP_DIM('1', "count", .size = 1), {0}};

static const op_tensor tensors[] = {
    OP_TENSOR(clm_adamw_args, parameter, OP_INOUT, {.set = OP_DTYPE(CLM_F32) | OP_DTYPE(CLM_F64)}, "n"),
    OP_TENSOR(clm_adamw_args, gradient, OP_IN, OP_IS_STORAGE, "n"),
    OP_TENSOR(clm_adamw_args, m, OP_INOUT, OP_AS("parameter"), "n"),
    OP_TENSOR(clm_adamw_args, v, OP_INOUT, OP_AS("parameter"), "n"),
    OP_TENSOR(clm_adamw_args, sum_squares, OP_IN, OP_AS("parameter"), "1", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_adamw_args, copy, OP_OUT, OP_IS_STORAGE, "n", .flags = OP_OPTIONAL),
};

static const op_scalar scalars[] = {
    OP_SCALAR(clm_adamw_args, lr, OP_NUMBER, OP_NOT_NEGATIVE),
    OP_SCALAR(clm_adamw_args, beta1, OP_NUMBER, .high = 1, .expected = "0 <= beta1 < 1"),
    OP_SCALAR(clm_adamw_args, beta2, OP_NUMBER, .high = 1, .expected = "0 <= beta2 < 1"),
    OP_SCALAR(clm_adamw_args, epsilon, OP_NUMBER, OP_NOT_NEGATIVE),
    OP_SCALAR(clm_adamw_args, weight_decay, OP_NUMBER, OP_NOT_NEGATIVE),
    OP_SCALAR(clm_adamw_args, gradient_scale, OP_NUMBER, OP_NOT_NEGATIVE),
    OP_SCALAR(clm_adamw_args, max_norm, OP_NUMBER, OP_NOT_NEGATIVE),
    OP_SCALAR(clm_adamw_args, step, OP_COUNT, .low = 1, .high = INFINITY, .expected = "at least 1"),
    {0},
};
/* clang-format on */

const op_table adamw_table = {
    .name = "adamw", .main = "parameter", .dims = dims, .parts = {OP_PART(tensors)}, .scalars = scalars};

clm_status clm_adamw(clm_context *context, const clm_adamw_args *args) {
  op_call c;
  TRY(op_check(&c, context, &adamw_table, args));
  const elementwise_shape s = {.count = op_length(&c, 'n')};
  return OP_RUN(&c, adamw, &s, args);
}
