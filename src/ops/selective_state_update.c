#include "ops/check.h"

/* clang-format off */
#define STEP    .dims = {&batch, &d_inner}
#define CHANNEL .dims = {&d_inner}
#define B_OR_C  .dims = {&batch, &n_groups, &d_state}
/* clang-format on */

static clm_status check(checker *c, const clm_selective_state_update_args *a, selective_scan_shape *s) {
  check_dim CHECK_NAMED(batch), CHECK_NAMED(d_inner), CHECK_NAMED(d_state), CHECK_NAMED(n_groups);
  const unsigned real = CHECK_DTYPE(check_real_of(a->u.dtype)), complex = CHECK_DTYPE(check_complex_of(a->u.dtype));
  const unsigned input = check_is_complex(a->A.dtype) ? complex : CHECK_DTYPE(a->u.dtype);
  clm_status status = CHECK_TENSORS(
      c, CHECK_ROW(a, u, 0, .dtypes = CHECK_FLOAT, STEP), CHECK_ROW(a, delta, 0, .as = &a->u, STEP),
      CHECK_ROW(a, A, 0, .dtypes = real | complex, .dims = {&d_inner, &d_state}),
      CHECK_ROW(a, B, 0, .dtypes = input, B_OR_C), CHECK_ROW(a, C, 0, .dtypes = input, B_OR_C),
      CHECK_ROW(a, D, CHECK_OPTIONAL, .dtypes = real, CHANNEL), CHECK_ROW(a, z, CHECK_OPTIONAL, .as = &a->u, STEP),
      CHECK_ROW(a, delta_bias, CHECK_OPTIONAL, .dtypes = real, CHANNEL),
      CHECK_ROW(a, state, CHECK_WRITTEN, .as = &a->A, .dims = {&batch, &d_inner, &d_state}),
      CHECK_ROW(a, out, CHECK_WRITTEN, .as = &a->u, STEP));
  if (status) return status;
  if (d_inner.size % n_groups.size)
    return check_fail(c, "B has n_groups %lld, which does not divide d_inner %lld", (long long)n_groups.size,
                      (long long)d_inner.size);
  *s = (selective_scan_shape){
      .batch = batch.size,
      .length = 1,
      .d_inner = d_inner.size,
      .d_state = d_state.size,
      .n_groups = n_groups.size,
      .B_varies = true,
      .C_varies = true,
      .complex = check_is_complex(a->A.dtype),
      .dtype = a->u.dtype,
  };
  return CLM_OK;
}

clm_status clm_selective_state_update(clm_context *context, const clm_selective_state_update_args *args) {
  checker c;
  selective_scan_shape s;
  clm_status status = check_begin(&c, context, "selective_state_update", args);
  if (!status) status = check(&c, args, &s);
  return status ? status : OPS_CALL(&c, selective_state_update, &s, args);
}
