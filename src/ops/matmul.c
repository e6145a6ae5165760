#include "ops/check.h"

static clm_status check(checker *c, const clm_matmul_args *a, matmul_shape *s) {
  check_dim CHECK_NAMED(m), CHECK_NAMED(n), CHECK_NAMED(k);
  const unsigned real = CHECK_DTYPE(check_real_of(a->out.dtype));
  clm_status status = CHECK_TENSORS(
      c, CHECK_ROW(a, a, 0, .dtypes = CHECK_FLOAT, .dims = {&m, &k}),
      CHECK_ROW(a, b, 0, .dtypes = CHECK_FLOAT | CHECK_I8, .dims = {&k, &n}),
      CHECK_ROW(a, out, CHECK_WRITTEN, .dtypes = CHECK_FLOAT, .dims = {&m, &n}, .may_be = {&a->residual}),
      CHECK_ROW(a, bias, CHECK_OPTIONAL, .dtypes = real, .dims = {&n}),
      CHECK_ROW(a, residual, CHECK_OPTIONAL, .as = &a->out, .dims = {&m, &n}),
      CHECK_ROW(a, b_scale, CHECK_OPTIONAL, .dtypes = real, .dims = {&n}));
  if (!status) status = check_scale(c, "b_scale", &a->b_scale, "b", &a->b);
  if (!status) status = check_choice(c, "activation", (int)a->activation, CLM_ACTIVATION_SOFTPLUS + 1);
  if (!status) status = check_choice(c, "math", (int)a->math, CLM_MATH_TF32 + 1);
  if (status) return status;
  if (a->accumulate && (check_present(&a->bias) || check_present(&a->residual) || a->activation))
    return check_fail(c, "accumulate is set, expected no bias, residual or activation beside it");
  *s = (matmul_shape){.m = m.size, .n = n.size, .k = k.size};
  return CLM_OK;
}

clm_status clm_matmul(clm_context *context, const clm_matmul_args *args) {
  checker c;
  matmul_shape s;
  clm_status status = check_begin(&c, context, "matmul", args);
  if (!status) status = check(&c, args, &s);
  return status ? status : OPS_CALL(&c, matmul, &s, args);
}
