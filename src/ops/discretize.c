#include "core/try.h"
#include "ops/check.h"
#include "ops/halves.h"

typedef struct discretize_dims {
  check_dim batch, length, d_inner, d_state;
} discretize_dims;

static unsigned weight_dtypes(const clm_discretize_args *a) {
  return check_weight_beside(a->delta.dtype, a->A.dtype);
}

/* clang-format off */
#define DIMS {CHECK_DIM(batch), CHECK_DIM(length), CHECK_DIM(d_inner), CHECK_DIM(d_state)}
#define STEP    .dims = {&d.batch, &d.length, &d.d_inner}
#define MATRIX  .dims = {&d.d_inner, &d.d_state}
#define INPUT   .dims = {&d.batch, &d.length, &d.d_state}, .or_dims = {&d.d_inner, &d.d_state}
#define PAIR    .dtypes = weight_dtypes(a), .dims = {&d.batch, &d.length, &d.d_inner, &d.d_state}
#define INPUTS                                                                                                        \
  CHECK_ROW(a, delta, 0, .dtypes = CHECK_FLOAT, STEP),                                                                 \
  CHECK_ROW(a, A, 0, .dtypes = check_weight_of(a->delta.dtype) | CHECK_DTYPE(check_complex_of(a->delta.dtype)), MATRIX), \
  CHECK_ROW(a, B, 0, .dtypes = weight_dtypes(a), INPUT)
/* clang-format on */

static clm_status shape_of(checker *c, const discretize_dims *d, const clm_discretize_args *a, discretize_shape *s) {
  *s = (discretize_shape){
      .batch = d->batch.size,
      .length = d->length.size,
      .d_inner = d->d_inner.size,
      .d_state = d->d_state.size,
      .B_varies = a->B.rank == 3,
      .complex = check_is_complex(a->A.dtype),
  };
  return check_choice(c, "method", (int)a->method, CLM_BILINEAR + 1);
}

static clm_status check(checker *c, const clm_discretize_args *a, discretize_shape *s) {
  discretize_dims d = DIMS;
  clm_status status = CHECK_TENSORS(c, INPUTS, CHECK_ROW(a, A_bar, CHECK_WRITTEN, PAIR),
                                    CHECK_ROW(a, B_bar, CHECK_WRITTEN, .as = &a->A_bar, PAIR));
  return status ? status : shape_of(c, &d, a, s);
}

static clm_status check_backward(checker *c, const clm_discretize_backward_args *b, discretize_shape *s) {
  const clm_discretize_args *a = &b->forward;
  const unsigned gradient = CHECK_OPTIONAL | CHECK_WRITTEN;
  discretize_dims d = DIMS;
  clm_status status = CHECK_TENSORS(
      c, INPUTS, CHECK_ROW(b, dA_bar, CHECK_OPTIONAL, PAIR), CHECK_ROW(b, dB_bar, CHECK_OPTIONAL, PAIR),
      CHECK_ROW(b, ddelta, gradient, .as = &a->delta, STEP),
      CHECK_ROW(b, dA, gradient, .dtypes = weight_dtypes(a), MATRIX),
      CHECK_ROW(b, dB, gradient, .dtypes = check_number_beside(a->delta.dtype, a->A.dtype) | CHECK_DTYPE(a->B.dtype),
                INPUT, .shape_as = &a->B));
  return status ? status : shape_of(c, &d, a, s);
}

static ops_halves halves_of(clm_discretize_args *a) {
  ops_halves h = {.count = 0};
  halves_add(&h, &a->A, false);
  if (a->B.rank == 2) halves_add(&h, &a->B, false);
  return h;
}

clm_status clm_discretize(clm_context *context, const clm_discretize_args *args) {
  checker c;
  discretize_shape s;
  TRY(check_begin(&c, context, "discretize", args));
  TRY(check(&c, args, &s));
  clm_discretize_args ready = *args;
  ops_halves halves = halves_of(&ready);
  TRY(halves_begin(context, &halves));
  return halves_end(context, &halves, OPS_CALL(&c, discretize, &s, &ready));
}

clm_status clm_discretize_backward(clm_context *context, const clm_discretize_backward_args *args) {
  checker c;
  discretize_shape s;
  TRY(check_begin(&c, context, "discretize_backward", args));
  TRY(check_backward(&c, args, &s));
  clm_discretize_backward_args ready = *args;
  ops_halves halves = halves_of(&ready.forward);
  halves_add(&halves, &ready.dA, true);
  if (args->forward.B.rank == 2) halves_add(&halves, &ready.dB, true);
  TRY(halves_begin(context, &halves));
  return halves_end(context, &halves, OPS_CALL(&c, discretize_backward, &s, &ready));
}
