#include "ops/sequences.h"
#include "ops/view.h"

#define MOST_WIDTH 32

typedef struct conv_dims {
  sequence_dims row;
  check_dim channels, width, history;
} conv_dims;

static void conv_dims_init(conv_dims *d) {
  *d = (conv_dims){.row = SEQUENCE_DIMS, CHECK_DIM(channels), CHECK_DIM(width)};
  d->history = (check_dim){.name = "width - 1", .of = &d->width, .plus = -1};
}

/* clang-format off */
#define SEQUENCE  .dims = {&d.row.batch, &d.row.length, &d.channels}
#define STATE     .dims = {sequence_rows(&d.row, &a->cu_seqlens), &d.channels, &d.history}
#define PARAMETER .dtypes = check_weight_of(a->x.dtype)
#define FILTER(channels, width)                                                                                       \
  CHECK_ROW(a, weight, 0, PARAMETER, .dims = {channels, width}),                                                      \
  CHECK_ROW(a, bias, CHECK_OPTIONAL, PARAMETER, .dims = {channels})
#define INPUTS                                                                                                        \
  CHECK_ROW(a, x, 0, .dtypes = CHECK_FLOAT, SEQUENCE), FILTER(&d.channels, &d.width), SEQUENCE_ROWS(a, &d.row),       \
  CHECK_ROW(a, initial_state, CHECK_OPTIONAL, .as = &a->x, STATE)
/* clang-format on */

static clm_status check_width(checker *c, int64_t width) {
  if (width <= MOST_WIDTH) return CLM_OK;
  return check_fail(c, "weight has width %lld, expected 1 to %d", (long long)width, MOST_WIDTH);
}

static clm_status shape_of(checker *c, const conv_dims *d, const clm_causal_conv1d_args *a, causal_conv1d_shape *s) {
  clm_status status = check_width(c, d->width.size);
  if (!status) status = check_sequences(c, &d->row, "x", &a->seq_idx, &a->cu_seqlens);
  *s = (causal_conv1d_shape){
      .batch = d->row.batch.size,
      .length = d->row.length.size,
      .channels = d->channels.size,
      .width = d->width.size,
      .dtype = a->x.dtype,
      .sequences = sequence_count(&d->row, &a->cu_seqlens),
      .packed = check_present(&a->cu_seqlens),
      .reversed = a->reverse,
  };
  return status;
}

static clm_status check(checker *c, const clm_causal_conv1d_args *a, causal_conv1d_shape *s) {
  conv_dims d;
  conv_dims_init(&d);
  clm_status status = CHECK_TENSORS(
      c, INPUTS, CHECK_ROW(a, out, CHECK_WRITTEN, .as = &a->x, SEQUENCE),
      CHECK_ROW(a, final_state, CHECK_OPTIONAL | CHECK_WRITTEN, .as = &a->x, STATE, .may_be = {&a->initial_state}));
  return status ? status : shape_of(c, &d, a, s);
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
  return status ? status : shape_of(c, &d, a, s);
}

/* Backends know one direction: the other one is the same call on views that run backwards. */
static void turn(clm_causal_conv1d_args *a) {
  clm_tensor *const sequences[] = {&a->x, &a->seq_idx, &a->out};
  for (size_t i = 0; i < sizeof sequences / sizeof *sequences; i++) view_reverse(sequences[i], 1);
  a->reverse = false;
}

clm_status clm_causal_conv1d(clm_context *context, const clm_causal_conv1d_args *args) {
  checker c;
  causal_conv1d_shape s;
  clm_status status = check_begin(&c, context, "causal_conv1d", args);
  if (!status) status = check(&c, args, &s);
  if (status) return status;
  clm_causal_conv1d_args ready = *args;
  if (args->reverse) turn(&ready);
  return OPS_CALL(&c, causal_conv1d, &s, &ready);
}

clm_status clm_causal_conv1d_backward(clm_context *context, const clm_causal_conv1d_backward_args *args) {
  checker c;
  causal_conv1d_shape s;
  clm_status status = check_begin(&c, context, "causal_conv1d_backward", args);
  if (!status) status = check_backward(&c, args, &s);
  if (status) return status;
  clm_causal_conv1d_backward_args ready = *args;
  if (args->forward.reverse) {
    turn(&ready.forward);
    view_reverse(&ready.dout, 1);
    view_reverse(&ready.dx, 1);
  }
  return OPS_CALL(&c, causal_conv1d_backward, &s, &ready);
}

/* ---- The update ---- */

static clm_status check_update(checker *c, const clm_causal_conv1d_update_args *a, conv_update_shape *s) {
  check_dim CHECK_NAMED(batch), CHECK_NAMED(steps), CHECK_NAMED(channels), CHECK_NAMED(width), CHECK_NAMED(pool),
      CHECK_NAMED(size);
  const bool pooled = check_present(&a->state_indices);
  clm_status status = CHECK_TENSORS(
      c,
      CHECK_ROW(a, x, 0, .dtypes = CHECK_FLOAT, .dims = {&batch, &steps, &channels}, .or_dims = {&batch, &channels}),
      FILTER(&channels, &width),
      CHECK_ROW(a, state, CHECK_OPTIONAL | CHECK_WRITTEN, .as = &a->x,
                .dims = {pooled ? &pool : &batch, &channels, &size}),
      CHECK_ROW(a, cache_seqlens, CHECK_OPTIONAL, .dtypes = CHECK_I32, .dims = {&batch}),
      CHECK_ROW(a, state_indices, CHECK_OPTIONAL, .dtypes = CHECK_I32, .dims = {&batch}),
      CHECK_ROW(a, out, CHECK_WRITTEN, .as = &a->x, .dims = {&batch, &steps, &channels},
                .or_dims = {&batch, &channels}, .shape_as = &a->x));
  if (!status) status = check_width(c, width.size);
  /* A filter of width 1 has no state, and a tensor cannot be empty. */
  if (!status && width.size > 1 && !check_present(&a->state)) return check_fail(c, "state is missing");
  if (!status && check_present(&a->state) && size.size < width.size - 1)
    return check_fail(c, "state has size %lld, expected at least width - 1 = %lld", (long long)size.size,
                      (long long)width.size - 1);
  *s = (conv_update_shape){
      .batch = batch.size,
      .steps = a->x.rank == 3 ? steps.size : 1,
      .channels = channels.size,
      .width = width.size,
      .pool = pooled && check_present(&a->state) ? pool.size
              : pooled                           ? INT32_MAX
                                                 : batch.size,
      .size = check_present(&a->state) ? size.size : 0,
      .dtype = a->x.dtype,
  };
  return status;
}

clm_status clm_causal_conv1d_update(clm_context *context, const clm_causal_conv1d_update_args *args) {
  checker c;
  conv_update_shape s;
  clm_status status = check_begin(&c, context, "causal_conv1d_update", args);
  if (!status) status = check_update(&c, args, &s);
  if (status) return status;
  clm_causal_conv1d_update_args ready = *args;
  if (args->x.rank == 2) {
    view_insert(&ready.x, 1);
    view_insert(&ready.out, 1);
  }
  return OPS_CALL(&c, causal_conv1d_update, &s, &ready);
}
