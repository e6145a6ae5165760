#include "ops/ready.h"
#include "ops/sequences.h"
#include "ops/view.h"

#define MAX_WIDTH 32

static const op_dim dims[] = {SEQUENCE_DIMS,
                              OP_DIM('d', "channels"),
                              OP_DIM('w', "width"),
                              OP_DIM('h', "width - 1", .of = 'w', .plus = -1),
                              {0}};

/* clang-format off */
OP_FORWARD_FIRST(causal_conv1d);
static const op_tensor inputs[] = {
    OP_TENSOR(clm_causal_conv1d_args, x, OP_IN, OP_IS_FLOAT, "b l d"),
    OP_TENSOR(clm_causal_conv1d_args, weight, OP_IN, OP_IS_WEIGHT, "d w"),
    OP_TENSOR(clm_causal_conv1d_args, bias, OP_IN, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL),
    SEQUENCE_TENSORS(clm_causal_conv1d_args),
    OP_TENSOR(clm_causal_conv1d_args, initial_state, OP_IN, OP_IS_WEIGHT, "s d h", .flags = OP_OPTIONAL),
};

static const op_tensor outputs[] = {
    OP_TENSOR(clm_causal_conv1d_args, out, OP_OUT, OP_AS("x"), "b l d"),
    OP_TENSOR(clm_causal_conv1d_args, final_state, OP_OUT, OP_IS_WEIGHT, "s d h", .flags = OP_OPTIONAL,
              .may_be = "initial_state"),
};

static const op_tensor gradients[] = {
    OP_TENSOR(clm_causal_conv1d_backward_args, dout, OP_IN, OP_AS("x"), "b l d"),
    OP_TENSOR(clm_causal_conv1d_backward_args, dfinal_state, OP_IN, OP_IS_WEIGHT, "s d h", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_causal_conv1d_backward_args, dx, OP_OUT, OP_AS("x"), "b l d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_causal_conv1d_backward_args, dweight, OP_OUT, OP_IS_WEIGHT, "d w", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_causal_conv1d_backward_args, dbias, OP_OUT, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_causal_conv1d_backward_args, dinitial_state, OP_OUT, OP_IS_WEIGHT, "s d h", .flags = OP_OPTIONAL),
};

static const op_scalar scalars[] = {
    OP_SCALAR(clm_causal_conv1d_args, silu, OP_BOOL),
    OP_SCALAR(clm_causal_conv1d_args, reverse, OP_BOOL),
    {0},
};
/* clang-format on */

const op_table causal_conv1d_table = {.name = "causal_conv1d",
                                      .main = "x",
                                      .dims = dims,
                                      .parts = {OP_PART(inputs), OP_PART(outputs)},
                                      .scalars = scalars};
const op_table causal_conv1d_backward_table = {.name = "causal_conv1d_backward",
                                               .main = "x",
                                               .dims = dims,
                                               .parts = {OP_PART(inputs), OP_PART(gradients)},
                                               .scalars = scalars};

static clm_status check_width(const op_call *c) {
  const int64_t width = op_length(c, 'w');
  if (width <= MAX_WIDTH) return CLM_OK;
  return op_fail(c, "weight has width %lld, expected 1 to %d", (long long)width, MAX_WIDTH);
}

static clm_status shape_of(const op_call *c, const clm_causal_conv1d_args *a, causal_conv1d_shape *s) {
  TRY(check_width(c));
  TRY(check_sequences(c, "x"));
  *s = (causal_conv1d_shape){
      .batch = op_length(c, 'b'),
      .length = op_length(c, 'l'),
      .channels = op_length(c, 'd'),
      .width = op_length(c, 'w'),
      .dtype = c->main,
      .sequences = sequence_count(c),
      .packed = sequences_packed(c),
      .reversed = a->reverse,
  };
  return CLM_OK;
}

/* Backends know one direction: the other one is the same call on views that run backwards. */
static void turn(const op_call *c, void *ready, clm_causal_conv1d_args *a) {
  if (!a->reverse) return;
  ready_reverse(c, ready, 'l');
  a->reverse = false;
}

clm_status clm_causal_conv1d(clm_context *context, const clm_causal_conv1d_args *args) {
  op_call c;
  causal_conv1d_shape s;
  TRY(op_check(&c, context, &causal_conv1d_table, args));
  TRY(shape_of(&c, args, &s));
  clm_causal_conv1d_args ready = *args;
  turn(&c, &ready, &ready);
  return OP_RUN(&c, causal_conv1d, &s, &ready);
}

clm_status clm_causal_conv1d_backward(clm_context *context, const clm_causal_conv1d_backward_args *args) {
  op_call c;
  causal_conv1d_shape s;
  TRY(op_check(&c, context, &causal_conv1d_backward_table, args));
  TRY(shape_of(&c, &args->forward, &s));
  clm_causal_conv1d_backward_args ready = *args;
  turn(&c, &ready, &ready.forward);
  return OP_RUN(&c, causal_conv1d_backward, &s, &ready);
}

/* ---- The update ---- */

static const op_dim update_dims[] = {OP_DIM('b', "batch"),
                                     OP_DIM('t', "steps"),
                                     OP_DIM('d', "channels"),
                                     OP_DIM('w', "width"),
                                     OP_DIM('p', "pool", .with = "state_indices", .otherwise = 'b'),
                                     OP_DIM('h', "size"),
                                     {0}};

/* clang-format off */
static const op_tensor update[] = {
    OP_TENSOR(clm_causal_conv1d_update_args, x, OP_IN, OP_IS_FLOAT, "b t d | b d"),
    OP_TENSOR(clm_causal_conv1d_update_args, weight, OP_IN, OP_IS_WEIGHT, "d w"),
    OP_TENSOR(clm_causal_conv1d_update_args, bias, OP_IN, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_causal_conv1d_update_args, state, OP_INOUT, OP_IS_WEIGHT, "p d h", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_causal_conv1d_update_args, cache_seqlens, OP_IN, OP_IS_INDEX, "b", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_causal_conv1d_update_args, state_indices, OP_IN, OP_IS_INDEX, "b", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_causal_conv1d_update_args, out, OP_OUT, OP_AS("x"), "b t d | b d", .shape_as = "x"),
};

static const op_scalar update_scalars[] = {OP_SCALAR(clm_causal_conv1d_update_args, silu, OP_BOOL), {0}};
/* clang-format on */

const op_table causal_conv1d_update_table = {.name = "causal_conv1d_update",
                                             .main = "x",
                                             .dims = update_dims,
                                             .parts = {OP_PART(update)},
                                             .scalars = update_scalars};

static clm_status update_shape_of(const op_call *c, const clm_causal_conv1d_update_args *a, conv_update_shape *s) {
  const int64_t width = op_length(c, 'w'), size = op_length(c, 'h');
  const bool stateful = op_present(&a->state);
  TRY(check_width(c));
  /* A filter of width 1 has no state, and a tensor cannot be empty. */
  if (width > 1 && !stateful) return op_fail(c, "state is missing");
  if (stateful && size < width - 1)
    return op_fail(c, "state has size %lld, expected at least width - 1 = %lld", (long long)size,
                   (long long)width - 1);
  *s = (conv_update_shape){
      .batch = op_length(c, 'b'),
      .steps = a->x.rank == 3 ? op_length(c, 't') : 1,
      .channels = op_length(c, 'd'),
      .width = width,
      .pool = op_present(&a->state_indices) && !stateful ? INT32_MAX : op_length(c, 'p'),
      .size = size,
      .dtype = c->main,
  };
  return CLM_OK;
}

clm_status clm_causal_conv1d_update(clm_context *context, const clm_causal_conv1d_update_args *args) {
  op_call c;
  conv_update_shape s;
  TRY(op_check(&c, context, &causal_conv1d_update_table, args));
  TRY(update_shape_of(&c, args, &s));
  clm_causal_conv1d_update_args ready = *args;
  if (args->x.rank == 2) {
    view_insert(&ready.x, 1);
    view_insert(&ready.out, 1);
  }
  return OP_RUN(&c, causal_conv1d_update, &s, &ready);
}
