#include "ops/check.h"

static clm_status check_axpby(checker *c, const clm_axpby_args *a, elementwise_shape *s) {
  const unsigned dtypes = check_is_complex(a->out.dtype) ? CHECK_COMPLEX : CHECK_FLOAT;
  clm_status status =
      CHECK_TENSORS(c, CHECK_ROW(a, out, CHECK_WRITTEN, .dtypes = CHECK_FLOAT | CHECK_COMPLEX, .may_be = {&a->x}),
                    CHECK_ROW(a, x, CHECK_OPTIONAL, .dtypes = dtypes, .shape_as = &a->out));
  if (!status) s->count = clm_tensor_count(a->out);
  return status;
}

static clm_status check_cast(checker *c, const clm_cast_args *a, elementwise_shape *s) {
  clm_status status = CHECK_TENSORS(c, CHECK_ROW(a, x, 0, .dtypes = CHECK_FLOAT),
                                    CHECK_ROW(a, out, CHECK_WRITTEN, .dtypes = CHECK_FLOAT, .shape_as = &a->x));
  if (!status) s->count = clm_tensor_count(a->out);
  return status;
}

static clm_status check_dropout(checker *c, const clm_dropout_args *a, elementwise_shape *s) {
  clm_status status = CHECK_TENSORS(
      c, CHECK_ROW(a, x, 0, .dtypes = CHECK_FLOAT),
      CHECK_ROW(a, residual, CHECK_OPTIONAL, .as = &a->x, .shape_as = &a->x),
      CHECK_ROW(a, out, CHECK_WRITTEN, .as = &a->x, .shape_as = &a->x, .may_be = {&a->x, &a->residual}));
  if (!status) status = check_number(c, "rate", a->rate, 0, 1, "0 <= rate < 1");
  if (!status) s->count = clm_tensor_count(a->x);
  return status;
}

static clm_status check_column_sum(checker *c, const clm_column_sum_args *a, matrix_shape *s) {
  check_dim CHECK_NAMED(rows), CHECK_NAMED(dim);
  const unsigned real = CHECK_DTYPE(check_real_of(a->x.dtype));
  clm_status status = CHECK_TENSORS(c, CHECK_ROW(a, x, 0, .dtypes = CHECK_FLOAT, .dims = {&rows, &dim}),
                                    CHECK_ROW(a, out, CHECK_WRITTEN, .dtypes = real, .dims = {&dim}));
  *s = (matrix_shape){rows.size, dim.size};
  return status;
}

static clm_status check_sum_squares(checker *c, const clm_sum_squares_args *a, elementwise_shape *s) {
  const unsigned real = CHECK_DTYPE(check_real_of(a->x.dtype));
  check_dim CHECK_NAMED(count), one = {.name = "count", .size = 1};
  clm_status status = CHECK_TENSORS(c, CHECK_ROW(a, x, 0, .dtypes = CHECK_FLOAT, .dims = {&count}),
                                    CHECK_ROW(a, out, CHECK_WRITTEN, .dtypes = real, .dims = {&one}));
  s->count = count.size;
  return status;
}

clm_status clm_axpby(clm_context *context, const clm_axpby_args *args) {
  checker c;
  elementwise_shape s;
  clm_status status = check_begin(&c, context, "axpby", args);
  if (!status) status = check_axpby(&c, args, &s);
  return status ? status : OPS_CALL(&c, axpby, &s, args);
}

clm_status clm_cast(clm_context *context, const clm_cast_args *args) {
  checker c;
  elementwise_shape s;
  clm_status status = check_begin(&c, context, "cast", args);
  if (!status) status = check_cast(&c, args, &s);
  return status ? status : OPS_CALL(&c, cast, &s, args);
}

clm_status clm_dropout(clm_context *context, const clm_dropout_args *args) {
  checker c;
  elementwise_shape s;
  clm_status status = check_begin(&c, context, "dropout", args);
  if (!status) status = check_dropout(&c, args, &s);
  return status ? status : OPS_CALL(&c, dropout, &s, args);
}

clm_status clm_column_sum(clm_context *context, const clm_column_sum_args *args) {
  checker c;
  matrix_shape s;
  clm_status status = check_begin(&c, context, "column_sum", args);
  if (!status) status = check_column_sum(&c, args, &s);
  return status ? status : OPS_CALL(&c, column_sum, &s, args);
}

clm_status clm_sum_squares(clm_context *context, const clm_sum_squares_args *args) {
  checker c;
  elementwise_shape s;
  clm_status status = check_begin(&c, context, "sum_squares", args);
  if (!status) status = check_sum_squares(&c, args, &s);
  return status ? status : OPS_CALL(&c, sum_squares, &s, args);
}
