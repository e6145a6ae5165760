#include "ops/check.h"

#define MOST_WIDTH 32

typedef struct conv_dims {
  check_dim batch, length, channels, width, history;
} conv_dims;

static void conv_dims_init(conv_dims *d) {
  *d = (conv_dims){CHECK_DIM(batch), CHECK_DIM(length), CHECK_DIM(channels), CHECK_DIM(width)};
  d->history = (check_dim){.name = "width - 1", .of = &d->width, .plus = -1};
}

/* clang-format off */
#define SEQUENCE  .dims = {&d.batch, &d.length, &d.channels}
#define STEP      .dims = {&d.batch, &d.channels}
#define STATE     .dims = {&d.batch, &d.channels, &d.history}
#define PARAMETER .dtypes = CHECK_DTYPE(check_real_of(a->x.dtype))
#define FILTER                                                                                                        \
  CHECK_ROW(a, weight, 0, PARAMETER, .dims = {&d.channels, &d.width}),                                                \
  CHECK_ROW(a, bias, CHECK_OPTIONAL, PARAMETER, .dims = {&d.channels})
#define INPUTS                                                                                                        \
  CHECK_ROW(a, x, 0, .dtypes = CHECK_FLOAT, SEQUENCE), FILTER,                                                        \
  CHECK_ROW(a, initial_state, CHECK_OPTIONAL, .as = &a->x, STATE)
/* clang-format on */

static clm_status shape_of(checker *c, const conv_dims *d, clm_dtype dtype, causal_conv1d_shape *s) {
  if (d->width.size > MOST_WIDTH)
    return check_fail(c, "weight has width %lld, expected 1 to %d", (long long)d->width.size, MOST_WIDTH);
  int64_t length = d->length.size ? d->length.size : 1;
  *s = (causal_conv1d_shape){d->batch.size, length, d->channels.size, d->width.size, dtype};
  return CLM_OK;
}

static clm_status check(checker *c, const clm_causal_conv1d_args *a, causal_conv1d_shape *s) {
  conv_dims d;
  conv_dims_init(&d);
  clm_status status = CHECK_TENSORS(
      c, INPUTS, CHECK_ROW(a, out, CHECK_WRITTEN, .as = &a->x, SEQUENCE),
      CHECK_ROW(a, final_state, CHECK_OPTIONAL | CHECK_WRITTEN, .as = &a->x, STATE, .may_be = {&a->initial_state}));
  return status ? status : shape_of(c, &d, a->x.dtype, s);
}

static clm_status check_backward(checker *c, const clm_causal_conv1d_backward_args *b, causal_conv1d_shape *s) {
  const clm_causal_conv1d_args *a = &b->forward;
  const unsigned gradient = CHECK_OPTIONAL | CHECK_WRITTEN;
  conv_dims d;
  conv_dims_init(&d);
  clm_status status = CHECK_TENSORS(c, INPUTS, CHECK_ROW(b, dout, 0, .as = &a->x, SEQUENCE),
                                    CHECK_ROW(b, dfinal_state, CHECK_OPTIONAL, .as = &a->x, STATE),
                                    CHECK_ROW(b, dx, gradient, .as = &a->x, SEQUENCE),
                                    CHECK_ROW(b, dweight, gradient, PARAMETER, .dims = {&d.channels, &d.width}),
                                    CHECK_ROW(b, dbias, gradient, PARAMETER, .dims = {&d.channels}),
                                    CHECK_ROW(b, dinitial_state, gradient, .as = &a->x, STATE));
  return status ? status : shape_of(c, &d, a->x.dtype, s);
}

static clm_status check_update(checker *c, const clm_causal_conv1d_update_args *a, causal_conv1d_shape *s) {
  conv_dims d;
  conv_dims_init(&d);
  clm_status status = CHECK_TENSORS(c, CHECK_ROW(a, x, 0, .dtypes = CHECK_FLOAT, STEP), FILTER,
                                    CHECK_ROW(a, state, CHECK_OPTIONAL | CHECK_WRITTEN, .as = &a->x, STATE),
                                    CHECK_ROW(a, out, CHECK_WRITTEN, .as = &a->x, STEP));
  /* A filter of width 1 has no state, and a tensor cannot be empty. */
  if (!status && d.width.size > 1 && !check_present(&a->state)) return check_fail(c, "state is missing");
  return status ? status : shape_of(c, &d, a->x.dtype, s);
}

clm_status clm_causal_conv1d(clm_context *context, const clm_causal_conv1d_args *args) {
  checker c;
  causal_conv1d_shape s;
  clm_status status = check_begin(&c, context, "causal_conv1d", args);
  if (!status) status = check(&c, args, &s);
  return status ? status : OPS_CALL(&c, causal_conv1d, &s, args);
}

clm_status clm_causal_conv1d_backward(clm_context *context, const clm_causal_conv1d_backward_args *args) {
  checker c;
  causal_conv1d_shape s;
  clm_status status = check_begin(&c, context, "causal_conv1d_backward", args);
  if (!status) status = check_backward(&c, args, &s);
  return status ? status : OPS_CALL(&c, causal_conv1d_backward, &s, args);
}

clm_status clm_causal_conv1d_update(clm_context *context, const clm_causal_conv1d_update_args *args) {
  checker c;
  causal_conv1d_shape s;
  clm_status status = check_begin(&c, context, "causal_conv1d_update", args);
  if (!status) status = check_update(&c, args, &s);
  return status ? status : OPS_CALL(&c, causal_conv1d_update, &s, args);
}
