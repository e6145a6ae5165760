#include "core/try.h"
#include "ops/check.h"

typedef struct swiglu_dims {
  check_dim rows, dim;
} swiglu_dims;

static swiglu_dims dims_of(void) { return (swiglu_dims){{.name = "rows"}, {.name = "dim"}}; }

static clm_status check(checker *c, const clm_swiglu_args *a, matrix_shape *s) {
  swiglu_dims d = dims_of();
  TRY(CHECK_TENSORS(
      c, CHECK_ROW(a, gate, 0, .dtypes = CHECK_FLOAT, .dims = {&d.rows, &d.dim}),
      CHECK_ROW(a, up, 0, .as = &a->gate, .dims = {&d.rows, &d.dim}),
      CHECK_ROW(a, out, CHECK_WRITTEN, .as = &a->gate, .dims = {&d.rows, &d.dim}, .may_be = {&a->gate, &a->up})));
  *s = (matrix_shape){d.rows.size, d.dim.size};
  return CLM_OK;
}

static clm_status check_backward(checker *c, const clm_swiglu_backward_args *b, matrix_shape *s) {
  const clm_swiglu_args *a = &b->forward;
  const unsigned gradient = CHECK_OPTIONAL | CHECK_WRITTEN;
  swiglu_dims d = dims_of();
  TRY(CHECK_TENSORS(c, CHECK_ROW(a, gate, 0, .dtypes = CHECK_FLOAT, .dims = {&d.rows, &d.dim}),
                    CHECK_ROW(a, up, 0, .as = &a->gate, .dims = {&d.rows, &d.dim}),
                    CHECK_ROW(b, dout, 0, .as = &a->gate, .dims = {&d.rows, &d.dim}),
                    CHECK_ROW(b, dgate, gradient, .as = &a->gate, .dims = {&d.rows, &d.dim}),
                    CHECK_ROW(b, dup, gradient, .as = &a->gate, .dims = {&d.rows, &d.dim})));
  *s = (matrix_shape){d.rows.size, d.dim.size};
  return CLM_OK;
}

clm_status clm_swiglu(clm_context *context, const clm_swiglu_args *args) {
  checker c;
  matrix_shape s;
  TRY(check_begin(&c, context, "swiglu", args));
  TRY(check(&c, args, &s));
  return OPS_CALL(&c, swiglu, &s, args);
}

clm_status clm_swiglu_backward(clm_context *context, const clm_swiglu_backward_args *args) {
  checker c;
  matrix_shape s;
  TRY(check_begin(&c, context, "swiglu_backward", args));
  TRY(check_backward(&c, args, &s));
  return OPS_CALL(&c, swiglu_backward, &s, args);
}
