#include "ops/check.h"
#include <math.h>

static clm_status check(checker *c, const clm_cross_entropy_args *a, matrix_shape *s) {
  const unsigned optional = CHECK_OPTIONAL | CHECK_WRITTEN;
  check_dim CHECK_NAMED(rows), CHECK_NAMED(vocab);
  clm_status status = CHECK_TENSORS(
      c, CHECK_ROW(a, logits, 0, .dtypes = CHECK_FLOAT, .dims = {&rows, &vocab}),
      CHECK_ROW(a, targets, 0, .dtypes = CHECK_I32, .dims = {&rows}),
      CHECK_ROW(a, losses, optional, .dtypes = CHECK_DTYPE(check_real_of(a->logits.dtype)), .dims = {&rows}),
      CHECK_ROW(a, dlogits, optional, .as = &a->logits, .dims = {&rows, &vocab}, .may_be = {&a->logits}));
  if (!status && check_present(&a->dlogits) && !isfinite(a->scale))
    return check_fail(c, "scale is %g, expected a finite number", (double)a->scale);
  *s = (matrix_shape){rows.size, vocab.size};
  return status;
}

clm_status clm_cross_entropy(clm_context *context, const clm_cross_entropy_args *args) {
  checker c;
  matrix_shape s;
  clm_status status = check_begin(&c, context, "cross_entropy", args);
  if (!status) status = check(&c, args, &s);
  return status ? status : OPS_CALL(&c, cross_entropy, &s, args);
}
