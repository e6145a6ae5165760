#include "ops/check.h"

static const op_dim dims[] = {
    OP_DIM('r', "rows"), OP_DIM('d', "dim"), OP_DIM('t', "tokens"), OP_DIM('c', "chosen"), {0}};

/* clang-format off */
OP_FORWARD_FIRST(combine);
static const op_tensor inputs[] = {
    OP_TENSOR(clm_combine_args, y, OP_IN, OP_IS_FLOAT, "r d"),
    OP_TENSOR(clm_combine_args, places, OP_IN, OP_IS_INDEX, "t c"),
    OP_TENSOR(clm_combine_args, weights, OP_IN, OP_IS_REAL, "t c", .flags = OP_OPTIONAL),
};

static const op_tensor outputs[] = {
    OP_TENSOR(clm_combine_args, out, OP_OUT, OP_IS_FLOAT, "t d", .may_be = "residual"),
    OP_TENSOR(clm_combine_args, residual, OP_IN, OP_AS("out"), "t d", .flags = OP_OPTIONAL),
};

static const op_tensor gradients[] = {
    OP_TENSOR(clm_combine_backward_args, order, OP_IN, OP_IS_INDEX, "r"),
    OP_TENSOR(clm_combine_backward_args, dout, OP_IN, OP_IS_FLOAT, "t d"),
    OP_TENSOR(clm_combine_backward_args, dy, OP_OUT, OP_IS_FLOAT, "r d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_combine_backward_args, dweights, OP_OUT, OP_IS_REAL, "t c", .flags = OP_OPTIONAL, .with = "weights"),
};
/* clang-format on */

const op_table combine_table = {
    .name = "combine", .main = "y", .dims = dims, .parts = {OP_PART(inputs), OP_PART(outputs)}};
const op_table combine_backward_table = {
    .name = "combine_backward", .main = "y", .dims = dims, .parts = {OP_PART(inputs), OP_PART(gradients)}};

static combine_shape shape_of(const op_call *c) {
  return (combine_shape){op_length(c, 'r'), op_length(c, 't'), op_length(c, 'c'), op_length(c, 'd')};
}

clm_status clm_combine(clm_context *context, const clm_combine_args *args) {
  op_call c;
  TRY(op_check(&c, context, &combine_table, args));
  const combine_shape s = shape_of(&c);
  return OP_RUN(&c, combine, &s, args);
}

clm_status clm_combine_backward(clm_context *context, const clm_combine_backward_args *args) {
  op_call c;
  TRY(op_check(&c, context, &combine_backward_table, args));
  const combine_shape s = shape_of(&c);
  return OP_RUN(&c, combine_backward, &s, args);
}
