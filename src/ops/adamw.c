#include "ops/check.h"
#include <math.h>

static clm_status check_scalars(checker *c, const clm_adamw_args *a) {
  const struct {
    const char *name;
    double value, low, high;
    const char *expected;
  } scalars[] = {
      {"lr", a->lr, 0, INFINITY, "a finite number of at least 0"},
      {"beta1", a->beta1, 0, 1, "0 <= beta1 < 1"},
      {"beta2", a->beta2, 0, 1, "0 <= beta2 < 1"},
      {"epsilon", a->epsilon, 0, INFINITY, "a finite number of at least 0"},
      {"weight_decay", a->weight_decay, 0, INFINITY, "a finite number of at least 0"},
      {"gradient_scale", a->gradient_scale, 0, INFINITY, "a finite number of at least 0"},
      {"max_norm", a->max_norm, 0, INFINITY, "a finite number of at least 0"},
      {"step", (double)a->step, 1, INFINITY, "at least 1"},
  };
  for (size_t i = 0; i < sizeof scalars / sizeof scalars[0]; i++) {
    clm_status status =
        check_number(c, scalars[i].name, scalars[i].value, scalars[i].low, scalars[i].high, scalars[i].expected);
    if (status) return status;
  }
  return CLM_OK;
}

static clm_status check(checker *c, const clm_adamw_args *a, elementwise_shape *s) {
  const unsigned storage = check_storage_of(a->parameter.dtype);
  check_dim CHECK_NAMED(count), one = {.name = "count", .size = 1};
  clm_status status =
      CHECK_TENSORS(c, CHECK_ROW(a, parameter, CHECK_WRITTEN, .dtypes = CHECK_REAL, .dims = {&count}),
                    CHECK_ROW(a, gradient, 0, .dtypes = storage, .dims = {&count}),
                    CHECK_ROW(a, m, CHECK_WRITTEN, .as = &a->parameter, .dims = {&count}),
                    CHECK_ROW(a, v, CHECK_WRITTEN, .as = &a->parameter, .dims = {&count}),
                    CHECK_ROW(a, sum_squares, CHECK_OPTIONAL, .as = &a->parameter, .dims = {&one}),
                    CHECK_ROW(a, copy, CHECK_OPTIONAL | CHECK_WRITTEN, .dtypes = storage, .dims = {&count}));
  s->count = count.size;
  return status ? status : check_scalars(c, a);
}

clm_status clm_adamw(clm_context *context, const clm_adamw_args *args) {
  checker c;
  elementwise_shape s;
  clm_status status = check_begin(&c, context, "adamw", args);
  if (!status) status = check(&c, args, &s);
  return status ? status : OPS_CALL(&c, adamw, &s, args);
}
