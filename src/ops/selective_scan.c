#include "ops/ready.h"
#include "ops/sequences.h"
#include "ops/widened.h"

static const op_dim dims[] = {
    SEQUENCE_DIMS, OP_DIM('d', "d_inner"), OP_DIM('n', "d_state"), OP_DIM('g', "n_groups"), {0}};

/* clang-format off */
/* B and C: for each time step as u (complex with a complex A), else a weight as A is one. */
#define IS_INPUT {.set = OP_MAIN, .complex = OP_COMPLEX, .second = OP_REAL | OP_MAIN}

OP_FORWARD_FIRST(selective_scan);
static const op_tensor inputs[] = {
    OP_TENSOR(clm_selective_scan_args, u, OP_IN, OP_IS_FLOAT, "b l d"),
    OP_TENSOR(clm_selective_scan_args, delta, OP_IN, OP_AS("u"), "b l d"),
    OP_TENSOR(clm_selective_scan_args, A, OP_IN, OP_IS_RATE, "d n", .flags = OP_WIDENED),
    OP_TENSOR(clm_selective_scan_args, B, OP_IN, IS_INPUT, "b l g n | d n", .flags = OP_WIDENED_SECOND),
    OP_TENSOR(clm_selective_scan_args, C, OP_IN, IS_INPUT, "b l g n | d n", .flags = OP_WIDENED_SECOND),
    OP_TENSOR(clm_selective_scan_args, D, OP_IN, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_selective_scan_args, z, OP_IN, OP_AS("u"), "b l d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_selective_scan_args, delta_bias, OP_IN, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_selective_scan_args, gate, OP_IN, OP_AS("u"), "b l d", .flags = OP_OPTIONAL),
    SEQUENCE_TENSORS(clm_selective_scan_args),
    OP_TENSOR(clm_selective_scan_args, initial_state, OP_IN, OP_IS_NUMBER, "s d n", .flags = OP_OPTIONAL),
};

static const op_tensor outputs[] = {
    OP_TENSOR(clm_selective_scan_args, out, OP_OUT, OP_AS("u"), "b l d"),
    OP_TENSOR(clm_selective_scan_args, final_state, OP_OUT, OP_IS_NUMBER, "s d n", .flags = OP_OPTIONAL,
              .may_be = "initial_state"),
};

/* Those of B and C: in their dtype, or with the precision of the sums. */
static const op_tensor gradients[] = {
    OP_TENSOR(clm_selective_scan_backward_args, dout, OP_IN, OP_AS("u"), "b l d"),
    OP_TENSOR(clm_selective_scan_backward_args, dfinal_state, OP_IN, OP_IS_NUMBER, "s d n", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_selective_scan_backward_args, du, OP_OUT, OP_AS("u"), "b l d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_selective_scan_backward_args, ddelta, OP_OUT, OP_AS("u"), "b l d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_selective_scan_backward_args, dz, OP_OUT, OP_AS("u"), "b l d", .flags = OP_OPTIONAL, .with = "z"),
    OP_TENSOR(clm_selective_scan_backward_args, dA, OP_OUT, OP_IS_NUMBER_WEIGHT, "d n",
              .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_selective_scan_backward_args, dB, OP_OUT, OP_IS_NUMBER_WEIGHT, "b l g n | d n",
              .flags = OP_OPTIONAL | OP_WIDENED_SECOND, .shape_as = "B"),
    OP_TENSOR(clm_selective_scan_backward_args, dC, OP_OUT, OP_IS_NUMBER_WEIGHT, "b l g n | d n",
              .flags = OP_OPTIONAL | OP_WIDENED_SECOND, .shape_as = "C"),
    OP_TENSOR(clm_selective_scan_backward_args, dD, OP_OUT, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_selective_scan_backward_args, ddelta_bias, OP_OUT, OP_IS_WEIGHT, "d",
              .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_selective_scan_backward_args, dinitial_state, OP_OUT, OP_IS_NUMBER, "s d n", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_selective_scan_backward_args, out, OP_OUT, OP_AS("u"), "b l d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_selective_scan_backward_args, dgate, OP_OUT, OP_AS("u"), "b l d", .flags = OP_OPTIONAL,
              .with = "gate"),
};

static const op_scalar scalars[] = {
    OP_SCALAR(clm_selective_scan_args, chunk, OP_COUNT, .high = INFINITY, .expected = "0 or more"),
    OP_SCALAR(clm_selective_scan_args, delta_softplus, OP_BOOL),
    OP_SCALAR(clm_selective_scan_args, A_is_log, OP_BOOL),
    OP_SCALAR(clm_selective_scan_args, reverse, OP_BOOL),
    {0},
};
/* clang-format on */

const op_table selective_scan_table = {.name = "selective_scan",
                                       .main = "u",
                                       .rate = "A",
                                       .dims = dims,
                                       .parts = {OP_PART(inputs), OP_PART(outputs)},
                                       .scalars = scalars};
const op_table selective_scan_backward_table = {.name = "selective_scan_backward",
                                                .main = "u",
                                                .rate = "A",
                                                .dims = dims,
                                                .parts = {OP_PART(inputs), OP_PART(gradients)},
                                                .scalars = scalars};

static clm_status shape_of(const op_call *c, const clm_selective_scan_args *a, selective_scan_shape *s) {
  const op_size *groups = op_size_of(c, 'g');
  const int64_t n_groups = groups->size ? groups->size : 1, d_inner = op_length(c, 'd');
  if (d_inner % n_groups)
    return op_fail(c, "%s has n_groups %lld, which does not divide d_inner %lld", groups->from, (long long)n_groups,
                   (long long)d_inner);
  TRY(check_sequences(c, "u"));
  *s = (selective_scan_shape){
      .batch = op_length(c, 'b'),
      .length = op_length(c, 'l'),
      .d_inner = d_inner,
      .d_state = op_length(c, 'n'),
      .n_groups = n_groups,
      .B_varies = a->B.rank == 4,
      .C_varies = a->C.rank == 4,
      .complex = c->complex,
      .dtype = c->main,
      .sequences = sequence_count(c),
      .packed = sequences_packed(c),
      .reversed = a->reverse,
  };
  return CLM_OK;
}

/* Backends know one direction: the other one is the same call on views that run backwards. */
static void turn(const op_call *c, void *ready, clm_selective_scan_args *a) {
  if (!a->reverse) return;
  ready_reverse(c, ready, 'l');
  a->reverse = false;
}

/* What backend functions get: the arguments checked, and turned if they ask for it. */
static clm_status begin(op_call *c, clm_context *context, const clm_selective_scan_args *args,
                        selective_scan_shape *s, clm_selective_scan_args *ready) {
  TRY(op_check(c, context, &selective_scan_table, args));
  TRY(shape_of(c, args, s));
  *ready = *args;
  turn(c, ready, ready);
  return CLM_OK;
}

static clm_status begin_backward(op_call *c, clm_context *context, const clm_selective_scan_backward_args *args,
                                 selective_scan_shape *s, clm_selective_scan_backward_args *ready) {
  TRY(op_check(c, context, &selective_scan_backward_table, args));
  TRY(shape_of(c, &args->forward, s));
  *ready = *args;
  turn(c, ready, &ready->forward);
  return CLM_OK;
}

clm_status clm_selective_scan(clm_context *context, const clm_selective_scan_args *args) {
  op_call c;
  selective_scan_shape s;
  clm_selective_scan_args ready;
  TRY(begin(&c, context, args, &s, &ready));
  ops_widened widened = widened_of(&c, &ready);
  TRY(widened_begin(context, &widened));
  return widened_end(context, &widened, OP_RUN(&c, selective_scan, &s, &ready));
}

clm_status clm_selective_scan_backward(clm_context *context, const clm_selective_scan_backward_args *args) {
  op_call c;
  selective_scan_shape s;
  clm_selective_scan_backward_args ready;
  TRY(begin_backward(&c, context, args, &s, &ready));
  ops_widened widened = widened_of(&c, &ready);
  TRY(widened_begin(context, &widened));
  return widened_end(context, &widened, OP_RUN(&c, selective_scan_backward, &s, &ready));
}

size_t clm_selective_scan_workspace_size(clm_context *context, const clm_selective_scan_args *args) {
  op_call c;
  selective_scan_shape s;
  clm_selective_scan_args ready;
  if (begin(&c, context, args, &s, &ready)) return 0;
  ops_widened widened = widened_of(&c, &ready);
  const size_t bytes = widened_assume(&widened);
  if (!context->ops.selective_scan_workspace) return bytes;
  return bytes + context->ops.selective_scan_workspace(context, &s, &ready);
}

size_t clm_selective_scan_backward_workspace_size(clm_context *context,
                                                  const clm_selective_scan_backward_args *args) {
  op_call c;
  selective_scan_shape s;
  clm_selective_scan_backward_args ready;
  if (begin_backward(&c, context, args, &s, &ready)) return 0;
  ops_widened widened = widened_of(&c, &ready);
  const size_t bytes = widened_assume(&widened);
  if (!context->ops.selective_scan_backward_workspace) return bytes;
  return bytes + context->ops.selective_scan_backward_workspace(context, &s, &ready);
}
