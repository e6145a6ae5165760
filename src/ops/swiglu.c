#include "ops/check.h"

static const op_dim dims[] = {OP_DIM('r', "rows"), OP_DIM('d', "dim"), {0}};

/* clang-format off */
OP_FORWARD_FIRST(swiglu);
static const op_tensor inputs[] = {
    OP_TENSOR(clm_swiglu_args, gate, OP_IN, OP_IS_FLOAT, "r d"),
    OP_TENSOR(clm_swiglu_args, up, OP_IN, OP_AS("gate"), "r d", .flags = OP_OPTIONAL),
};

static const op_tensor outputs[] = {OP_TENSOR(clm_swiglu_args, out, OP_OUT, OP_AS("gate"), "r d", .may_be = "gate up")};

static const op_tensor gradients[] = {
    OP_TENSOR(clm_swiglu_backward_args, dout, OP_IN, OP_AS("gate"), "r d"),
    OP_TENSOR(clm_swiglu_backward_args, dgate, OP_OUT, OP_AS("gate"), "r d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_swiglu_backward_args, dup, OP_OUT, OP_AS("gate"), "r d", .flags = OP_OPTIONAL, .with = "up"),
};

static const op_scalar scalars[] = {
    OP_SCALAR(clm_swiglu_args, activation, OP_CHOICE, .high = CLM_GATE_RELU_SQUARED + 1), {0}};
/* clang-format on */

const op_table swiglu_table = {
    .name = "swiglu", .main = "gate", .dims = dims, .parts = {OP_PART(inputs), OP_PART(outputs)}, .scalars = scalars};
const op_table swiglu_backward_table = {.name = "swiglu_backward",
                                        .main = "gate",
                                        .dims = dims,
                                        .parts = {OP_PART(inputs), OP_PART(gradients)},
                                        .scalars = scalars};

clm_status clm_swiglu(clm_context *context, const clm_swiglu_args *args) {
  op_call c;
  TRY(op_check(&c, context, &swiglu_table, args));
  const matrix_shape s = {op_length(&c, 'r'), op_length(&c, 'd')};
  return OP_RUN(&c, swiglu, &s, args);
}

clm_status clm_swiglu_backward(clm_context *context, const clm_swiglu_backward_args *args) {
  op_call c;
  TRY(op_check(&c, context, &swiglu_backward_table, args));
  const matrix_shape s = {op_length(&c, 'r'), op_length(&c, 'd')};
  return OP_RUN(&c, swiglu_backward, &s, args);
}
