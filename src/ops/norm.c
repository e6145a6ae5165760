#include "ops/widened.h"

static const op_dim dims[] = {OP_DIM('r', "rows"), OP_DIM('d', "dim"), {0}};

/* clang-format off */
OP_FORWARD_FIRST(norm);
static const op_tensor inputs[] = {
    OP_TENSOR(clm_norm_args, x, OP_IN, OP_IS_FLOAT, "r d"),
    OP_TENSOR(clm_norm_args, weight, OP_IN, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_norm_args, bias, OP_IN, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL | OP_WIDENED),
};

static const op_tensor outputs[] = {
    OP_TENSOR(clm_norm_args, residual, OP_IN, OP_IS_STORAGE, "r d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_norm_args, out, OP_OUT, OP_IS_STORAGE, "r d", .may_be = "x"),
    OP_TENSOR(clm_norm_args, residual_out, OP_OUT, OP_IS_STORAGE, "r d", .flags = OP_OPTIONAL, .may_be = "residual x"),
};

static const op_tensor gradients[] = {
    OP_TENSOR(clm_norm_backward_args, forward.residual, OP_IN, OP_IS_STORAGE, "r d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_norm_backward_args, dout, OP_IN, OP_IS_STORAGE, "r d"),
    OP_TENSOR(clm_norm_backward_args, residual, OP_IN, OP_IS_STORAGE, "r d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_norm_backward_args, dx, OP_OUT, OP_AS("x"), "r d", .flags = OP_OPTIONAL, .may_be = "residual"),
    OP_TENSOR(clm_norm_backward_args, dweight, OP_OUT, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_norm_backward_args, dbias, OP_OUT, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_norm_backward_args, dresidual, OP_OUT, OP_AS("forward.residual"), "r d", .flags = OP_OPTIONAL,
              .may_be = "residual", .with = "forward.residual"),
};

static const op_scalar scalars[] = {
    OP_SCALAR(clm_norm_args, kind, OP_CHOICE, .high = CLM_LAYER_NORM + 1),
    OP_SCALAR(clm_norm_args, epsilon, OP_NUMBER, OP_NOT_NEGATIVE),
    {0},
};
/* clang-format on */

const op_table norm_table = {
    .name = "norm", .main = "x", .dims = dims, .parts = {OP_PART(inputs), OP_PART(outputs)}, .scalars = scalars};
const op_table norm_backward_table = {.name = "norm_backward",
                                      .main = "x",
                                      .dims = dims,
                                      .parts = {OP_PART(inputs), OP_PART(gradients)},
                                      .scalars = scalars};

clm_status clm_norm(clm_context *context, const clm_norm_args *args) {
  op_call c;
  TRY(op_check(&c, context, &norm_table, args));
  const matrix_shape s = {op_length(&c, 'r'), op_length(&c, 'd')};
  clm_norm_args ready = *args;
  ops_widened widened = widened_of(&c, &ready);
  TRY(widened_begin(context, &widened));
  return widened_end(context, &widened, OP_RUN(&c, norm, &s, &ready));
}

clm_status clm_norm_backward(clm_context *context, const clm_norm_backward_args *args) {
  op_call c;
  TRY(op_check(&c, context, &norm_backward_table, args));
  if (op_present(&args->residual) && !op_present(&args->dx) && !op_present(&args->dresidual))
    return op_fail(&c, "residual is given, but dx is missing");
  const matrix_shape s = {op_length(&c, 'r'), op_length(&c, 'd')};
  clm_norm_backward_args ready = *args;
  ready.forward.residual_out = (clm_tensor){0};
  ops_widened widened = widened_of(&c, &ready);
  TRY(widened_begin(context, &widened));
  return widened_end(context, &widened, OP_RUN(&c, norm_backward, &s, &ready));
}
