#include "ops/widened.h"

static const op_dim dims[] = {OP_DIM('r', "rows"), OP_DIM('d', "dim"), {0}};

/* clang-format off */
OP_FORWARD_FIRST(gated_norm);
static const op_tensor inputs[] = {
    OP_TENSOR(clm_gated_norm_args, x, OP_IN, OP_IS_FLOAT, "r d"),
    OP_TENSOR(clm_gated_norm_args, z, OP_IN, OP_AS("x"), "r d"),
    OP_TENSOR(clm_gated_norm_args, weight, OP_IN, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL | OP_WIDENED),
};

static const op_tensor outputs[] = {
    OP_TENSOR(clm_gated_norm_args, out, OP_OUT, OP_AS("x"), "r d", .may_be = "x z"),
};

static const op_tensor gradients[] = {
    OP_TENSOR(clm_gated_norm_backward_args, dout, OP_IN, OP_AS("x"), "r d"),
    OP_TENSOR(clm_gated_norm_backward_args, dx, OP_OUT, OP_AS("x"), "r d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_gated_norm_backward_args, dz, OP_OUT, OP_AS("x"), "r d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_gated_norm_backward_args, dweight, OP_OUT, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_gated_norm_backward_args, out, OP_OUT, OP_AS("x"), "r d", .flags = OP_OPTIONAL),
};

static const op_scalar scalars[] = {
    OP_SCALAR(clm_gated_norm_args, epsilon, OP_NUMBER, OP_NOT_NEGATIVE),
    OP_SCALAR(clm_gated_norm_args, norm_before_gate, OP_BOOL),
    {0},
};
/* clang-format on */

const op_table gated_norm_table = {.name = "gated_norm",
                                   .main = "x",
                                   .dims = dims,
                                   .parts = {OP_PART(inputs), OP_PART(outputs)},
                                   .scalars = scalars};
const op_table gated_norm_backward_table = {.name = "gated_norm_backward",
                                            .main = "x",
                                            .dims = dims,
                                            .parts = {OP_PART(inputs), OP_PART(gradients)},
                                            .scalars = scalars};

static clm_status shape_of(const op_call *c, const clm_gated_norm_args *a, gated_norm_shape *s) {
  const int64_t groups = a->n_groups ? a->n_groups : 1, dim = op_length(c, 'd');
  if (groups < 1 || dim % groups)
    return op_fail(c, "n_groups is %lld, which does not divide dim %lld", (long long)groups, (long long)dim);
  *s = (gated_norm_shape){op_length(c, 'r'), dim, dim / groups};
  return CLM_OK;
}

clm_status clm_gated_norm(clm_context *context, const clm_gated_norm_args *args) {
  op_call c;
  gated_norm_shape s;
  TRY(op_check(&c, context, &gated_norm_table, args));
  TRY(shape_of(&c, args, &s));
  clm_gated_norm_args ready = *args;
  ops_widened widened = widened_of(&c, &ready);
  TRY(widened_begin(context, &widened));
  return widened_end(context, &widened, OP_RUN(&c, gated_norm, &s, &ready));
}

clm_status clm_gated_norm_backward(clm_context *context, const clm_gated_norm_backward_args *args) {
  op_call c;
  gated_norm_shape s;
  TRY(op_check(&c, context, &gated_norm_backward_table, args));
  TRY(shape_of(&c, &args->forward, &s));
  clm_gated_norm_backward_args ready = *args;
  ops_widened widened = widened_of(&c, &ready);
  TRY(widened_begin(context, &widened));
  return widened_end(context, &widened, OP_RUN(&c, gated_norm_backward, &s, &ready));
}
