#include "ops/check.h"

/* clang-format off */
static const op_tensor axpby[] = {
    OP_TENSOR(clm_axpby_args, out, OP_INOUT, OP_IS_ANY, NULL, .may_be = "x"),
    OP_TENSOR(clm_axpby_args, x, OP_IN, OP_IS_LIKE_ANY, NULL, .flags = OP_OPTIONAL,
              .shape_as = "out"),
};

static const op_scalar axpby_scalars[] = {
    OP_SCALAR(clm_axpby_args, alpha, OP_NUMBER), OP_SCALAR(clm_axpby_args, beta, OP_NUMBER), {0}};

static const op_tensor cast[] = {
    OP_TENSOR(clm_cast_args, x, OP_IN, OP_IS_FLOAT, NULL),
    OP_TENSOR(clm_cast_args, out, OP_OUT, OP_IS_FLOAT, NULL, .shape_as = "x"),
};

static const op_tensor dropout[] = {
    OP_TENSOR(clm_dropout_args, x, OP_IN, OP_IS_FLOAT, NULL),
    OP_TENSOR(clm_dropout_args, residual, OP_IN, OP_AS("x"), NULL, .flags = OP_OPTIONAL, .shape_as = "x"),
    OP_TENSOR(clm_dropout_args, out, OP_OUT, OP_AS("x"), NULL, .shape_as = "x", .may_be = "x residual"),
};

static const op_scalar dropout_scalars[] = {
    OP_SCALAR(clm_dropout_args, rate, OP_NUMBER, .high = 1, .expected = "0 <= rate < 1"),
    OP_SCALAR(clm_dropout_args, seed, OP_SEED),
    {0},
};

static const op_dim matrix[] = {OP_DIM('r', "rows"), OP_DIM('d', "dim"), {0}};
static const op_tensor column_sum[] = {
    OP_TENSOR(clm_column_sum_args, x, OP_IN, OP_IS_FLOAT, "r d"),
    OP_TENSOR(clm_column_sum_args, out, OP_OUT, OP_IS_REAL, "d"),
};

static const op_dim vector[] = {OP_DIM('n', "count"), OP_DIM('1', "count", .size = 1), {0}};
static const op_tensor sum_squares[] = {
    OP_TENSOR(clm_sum_squares_args, x, OP_IN, OP_IS_FLOAT, "n"),
    OP_TENSOR(clm_sum_squares_args, out, OP_OUT, OP_IS_REAL, "1", .added = "accumulate"),
};

static const op_scalar sum_squares_scalars[] = {OP_SCALAR(clm_sum_squares_args, accumulate, OP_BOOL), {0}};
/* clang-format on */

const op_table axpby_table = {
    .name = "axpby", .main = "out", .rate = "out", .parts = {OP_PART(axpby)}, .scalars = axpby_scalars};
const op_table cast_table = {.name = "cast", .main = "x", .parts = {OP_PART(cast)}};
const op_table dropout_table = {
    .name = "dropout", .main = "x", .parts = {OP_PART(dropout)}, .scalars = dropout_scalars};
const op_table column_sum_table = {.name = "column_sum", .main = "x", .dims = matrix, .parts = {OP_PART(column_sum)}};
const op_table sum_squares_table = {.name = "sum_squares",
                                    .main = "x",
                                    .dims = vector,
                                    .parts = {OP_PART(sum_squares)},
                                    .scalars = sum_squares_scalars};

clm_status clm_axpby(clm_context *context, const clm_axpby_args *args) {
  op_call c;
  TRY(op_check(&c, context, &axpby_table, args));
  const elementwise_shape s = {.count = clm_tensor_count(args->out)};
  return OP_RUN(&c, axpby, &s, args);
}

clm_status clm_cast(clm_context *context, const clm_cast_args *args) {
  op_call c;
  TRY(op_check(&c, context, &cast_table, args));
  const elementwise_shape s = {.count = clm_tensor_count(args->out)};
  return OP_RUN(&c, cast, &s, args);
}

clm_status clm_dropout(clm_context *context, const clm_dropout_args *args) {
  op_call c;
  TRY(op_check(&c, context, &dropout_table, args));
  const elementwise_shape s = {.count = clm_tensor_count(args->x)};
  return OP_RUN(&c, dropout, &s, args);
}

clm_status clm_column_sum(clm_context *context, const clm_column_sum_args *args) {
  op_call c;
  TRY(op_check(&c, context, &column_sum_table, args));
  const matrix_shape s = {op_length(&c, 'r'), op_length(&c, 'd')};
  return OP_RUN(&c, column_sum, &s, args);
}

clm_status clm_sum_squares(clm_context *context, const clm_sum_squares_args *args) {
  op_call c;
  TRY(op_check(&c, context, &sum_squares_table, args));
  const elementwise_shape s = {.count = op_length(&c, 'n')};
  return OP_RUN(&c, sum_squares, &s, args);
}
