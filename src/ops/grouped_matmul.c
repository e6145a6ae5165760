#include "ops/check.h"

static const op_dim dims[] = {OP_DIM('r', "rows"),
                              OP_DIM('k', "k"),
                              OP_DIM('e', "experts"),
                              OP_DIM('n', "n"),
                              OP_DIM('f', "experts + 1", .of = 'e', .plus = 1),
                              {0}};

/* clang-format off */
OP_FORWARD_FIRST(grouped_matmul);
static const op_tensor forward[] = {
    OP_TENSOR(clm_grouped_matmul_args, a, OP_IN, OP_IS_FLOAT, "r k"),
    OP_TENSOR(clm_grouped_matmul_args, b, OP_IN, {.set = OP_FLOAT | OP_DTYPE(CLM_I8)}, "e n k"),
    OP_TENSOR(clm_grouped_matmul_args, group_offsets, OP_IN, OP_IS_INDEX, "f"),
    OP_TENSOR(clm_grouped_matmul_args, out, OP_OUT, OP_IS_FLOAT, "r n"),
    OP_TENSOR(clm_grouped_matmul_args, b_scale, OP_IN, OP_IS_REAL, "e n", .flags = OP_OPTIONAL, .scale_of = "b"),
};

static const op_tensor backward[] = {
    OP_TENSOR(clm_grouped_matmul_args, a, OP_IN, OP_IS_FLOAT, "r k"),
    OP_TENSOR(clm_grouped_matmul_args, b, OP_IN, OP_IS_FLOAT, "e n k"),
    OP_TENSOR(clm_grouped_matmul_args, group_offsets, OP_IN, OP_IS_INDEX, "f"),
    OP_TENSOR(clm_grouped_matmul_backward_args, dout, OP_IN, OP_IS_FLOAT, "r n"),
    OP_TENSOR(clm_grouped_matmul_backward_args, da, OP_OUT, OP_IS_FLOAT, "r k", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_grouped_matmul_backward_args, db, OP_OUT, OP_IS_REAL, "e n k", .flags = OP_OPTIONAL),
};
/* clang-format on */

const op_table grouped_matmul_table = {
    .name = "grouped_matmul", .main = "out", .dims = dims, .parts = {OP_PART(forward)}};
const op_table grouped_matmul_backward_table = {
    .name = "grouped_matmul_backward", .main = "dout", .dims = dims, .parts = {OP_PART(backward)}};

static grouped_shape shape_of(const op_call *c) {
  return (grouped_shape){op_length(c, 'r'), op_length(c, 'e'), op_length(c, 'n'), op_length(c, 'k')};
}

clm_status clm_grouped_matmul(clm_context *context, const clm_grouped_matmul_args *args) {
  op_call c;
  TRY(op_check(&c, context, &grouped_matmul_table, args));
  const grouped_shape s = shape_of(&c);
  return OP_RUN(&c, grouped_matmul, &s, args);
}

clm_status clm_grouped_matmul_backward(clm_context *context, const clm_grouped_matmul_backward_args *args) {
  op_call c;
  TRY(op_check(&c, context, &grouped_matmul_backward_table, args));
  const grouped_shape s = shape_of(&c);
  return OP_RUN(&c, grouped_matmul_backward, &s, args);
}
