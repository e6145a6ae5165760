#include "core/try.h"
#include "ops/check.h"
#include "ops/halves.h"
#include <math.h>

/* clang-format off */
#define MATRIX    .dims = {&rows, &dim}
#define STORAGE   .dtypes = check_storage_of(a->x.dtype), MATRIX
#define PARAMETER .dtypes = check_weight_of(a->x.dtype), .dims = {&dim}
#define INPUTS                                                                                                        \
  CHECK_ROW(a, x, 0, .dtypes = CHECK_FLOAT, MATRIX),                                                                  \
  CHECK_ROW(a, weight, CHECK_OPTIONAL, PARAMETER),                                                                    \
  CHECK_ROW(a, bias, CHECK_OPTIONAL, PARAMETER)
/* clang-format on */

static clm_status check_scalars(checker *c, const clm_norm_args *a) {
  clm_status status = check_choice(c, "kind", (int)a->kind, CLM_LAYER_NORM + 1);
  return status ? status : check_number(c, "epsilon", a->epsilon, 0, INFINITY, "a finite number of at least 0");
}

static clm_status check(checker *c, const clm_norm_args *a, matrix_shape *s) {
  check_dim CHECK_NAMED(rows), CHECK_NAMED(dim);
  clm_status status = CHECK_TENSORS(
      c, INPUTS, CHECK_ROW(a, residual, CHECK_OPTIONAL, STORAGE),
      CHECK_ROW(a, out, CHECK_WRITTEN, STORAGE, .may_be = {&a->x}),
      CHECK_ROW(a, residual_out, CHECK_OPTIONAL | CHECK_WRITTEN, STORAGE, .may_be = {&a->residual, &a->x}));
  *s = (matrix_shape){rows.size, dim.size};
  return status ? status : check_scalars(c, a);
}

static clm_status check_backward(checker *c, const clm_norm_backward_args *b, matrix_shape *s) {
  const clm_norm_args *a = &b->forward;
  const unsigned gradient = CHECK_OPTIONAL | CHECK_WRITTEN;
  check_dim CHECK_NAMED(rows), CHECK_NAMED(dim);
  clm_status status =
      CHECK_TENSORS(c, INPUTS, CHECK_ROW(b, forward.residual, CHECK_OPTIONAL, STORAGE),
                    CHECK_ROW(b, dout, 0, STORAGE), CHECK_ROW(b, residual, CHECK_OPTIONAL, STORAGE),
                    CHECK_ROW(b, dx, gradient, .as = &a->x, MATRIX, .may_be = {&b->residual}),
                    CHECK_ROW(b, dweight, gradient, PARAMETER), CHECK_ROW(b, dbias, gradient, PARAMETER),
                    CHECK_ROW(b, dresidual, gradient, .as = &a->residual, MATRIX, .may_be = {&b->residual}));
  if (!status && check_present(&b->dresidual) && !check_present(&a->residual))
    return check_fail(c, "dresidual is given, but forward.residual is missing");
  if (!status && check_present(&b->residual) && !check_present(&b->dx) && !check_present(&b->dresidual))
    return check_fail(c, "residual is given, but dx is missing");
  *s = (matrix_shape){rows.size, dim.size};
  return status ? status : check_scalars(c, a);
}

static ops_halves halves_of(clm_norm_args *a) {
  ops_halves h = {.count = 0};
  halves_add(&h, &a->weight, false);
  halves_add(&h, &a->bias, false);
  return h;
}

clm_status clm_norm(clm_context *context, const clm_norm_args *args) {
  checker c;
  matrix_shape s;
  TRY(check_begin(&c, context, "norm", args));
  TRY(check(&c, args, &s));
  clm_norm_args ready = *args;
  ops_halves halves = halves_of(&ready);
  TRY(halves_begin(context, &halves));
  return halves_end(context, &halves, OPS_CALL(&c, norm, &s, &ready));
}

clm_status clm_norm_backward(clm_context *context, const clm_norm_backward_args *args) {
  checker c;
  matrix_shape s;
  TRY(check_begin(&c, context, "norm_backward", args));
  TRY(check_backward(&c, args, &s));
  clm_norm_backward_args ready = *args;
  ready.forward.residual_out = (clm_tensor){0};
  ops_halves halves = halves_of(&ready.forward);
  halves_add(&halves, &ready.dweight, true);
  halves_add(&halves, &ready.dbias, true);
  TRY(halves_begin(context, &halves));
  return halves_end(context, &halves, OPS_CALL(&c, norm_backward, &s, &ready));
}
