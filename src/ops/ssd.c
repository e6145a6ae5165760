#include "ops/ready.h"
#include "ops/sequences.h"
#include "ops/widened.h"

static const op_dim dims[] = {SEQUENCE_DIMS,           OP_DIM('h', "n_heads"), OP_DIM('p', "head_dim"),
                              OP_DIM('g', "n_groups"), OP_DIM('n', "d_state"), {0}};

/* clang-format off */
OP_FORWARD_FIRST(ssd);
static const op_tensor inputs[] = {
    OP_TENSOR(clm_ssd_args, x, OP_IN, OP_IS_FLOAT, "b l h p"),
    OP_TENSOR(clm_ssd_args, dt, OP_IN, OP_AS("x"), "b l h"),
    OP_TENSOR(clm_ssd_args, A, OP_IN, OP_IS_WEIGHT, "h", .flags = OP_WIDENED),
    OP_TENSOR(clm_ssd_args, B, OP_IN, OP_AS("x"), "b l g n"),
    OP_TENSOR(clm_ssd_args, C, OP_IN, OP_AS("x"), "b l g n"),
    OP_TENSOR(clm_ssd_args, D, OP_IN, OP_IS_WEIGHT, "h | h p", .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_ssd_args, z, OP_IN, OP_AS("x"), "b l h p", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_ssd_args, dt_bias, OP_IN, OP_IS_WEIGHT, "h", .flags = OP_OPTIONAL | OP_WIDENED),
    SEQUENCE_TENSORS(clm_ssd_args),
    OP_TENSOR(clm_ssd_args, initial_state, OP_IN, OP_IS_REAL, "s h p n", .flags = OP_OPTIONAL),
};

static const op_tensor outputs[] = {
    OP_TENSOR(clm_ssd_args, out, OP_OUT, OP_AS("x"), "b l h p"),
    OP_TENSOR(clm_ssd_args, final_state, OP_OUT, OP_IS_REAL, "s h p n", .flags = OP_OPTIONAL,
              .may_be = "initial_state"),
};

static const op_tensor gradients[] = {
    OP_TENSOR(clm_ssd_backward_args, dout, OP_IN, OP_AS("x"), "b l h p"),
    OP_TENSOR(clm_ssd_backward_args, dfinal_state, OP_IN, OP_IS_REAL, "s h p n", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_ssd_backward_args, dx, OP_OUT, OP_AS("x"), "b l h p", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_ssd_backward_args, dz, OP_OUT, OP_AS("x"), "b l h p", .flags = OP_OPTIONAL, .with = "z"),
    OP_TENSOR(clm_ssd_backward_args, ddt, OP_OUT, OP_AS("x"), "b l h", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_ssd_backward_args, dB, OP_OUT, OP_IS_WEIGHT, "b l g n", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_ssd_backward_args, dC, OP_OUT, OP_IS_WEIGHT, "b l g n", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_ssd_backward_args, dA, OP_OUT, OP_IS_WEIGHT, "h", .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_ssd_backward_args, ddt_bias, OP_OUT, OP_IS_WEIGHT, "h", .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_ssd_backward_args, dD, OP_OUT, OP_IS_WEIGHT, "h | h p", .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_ssd_backward_args, dinitial_state, OP_OUT, OP_IS_REAL, "s h p n", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_ssd_backward_args, out, OP_OUT, OP_AS("x"), "b l h p", .flags = OP_OPTIONAL),
};

static const op_scalar scalars[] = {
    OP_SCALAR(clm_ssd_args, dt_min, OP_NUMBER),
    OP_SCALAR(clm_ssd_args, dt_max, OP_NUMBER),
    OP_SCALAR(clm_ssd_args, chunk, OP_COUNT, .high = INFINITY, .expected = "0 or more"),
    OP_SCALAR(clm_ssd_args, dt_softplus, OP_BOOL),
    OP_SCALAR(clm_ssd_args, A_is_log, OP_BOOL),
    OP_SCALAR(clm_ssd_args, reverse, OP_BOOL),
    {0},
};
/* clang-format on */

const op_table ssd_table = {
    .name = "ssd", .main = "x", .dims = dims, .parts = {OP_PART(inputs), OP_PART(outputs)}, .scalars = scalars};
const op_table ssd_backward_table = {.name = "ssd_backward",
                                     .main = "x",
                                     .dims = dims,
                                     .parts = {OP_PART(inputs), OP_PART(gradients)},
                                     .scalars = scalars};

static clm_status shape_of(const op_call *c, const clm_ssd_args *a, ssd_shape *s) {
  const op_size *groups = op_size_of(c, 'g');
  const int64_t n_heads = op_length(c, 'h');
  if (n_heads % groups->size)
    return op_fail(c, "%s has n_groups %lld, which does not divide n_heads %lld", groups->from,
                   (long long)groups->size, (long long)n_heads);
  TRY(check_sequences(c, "x"));
  if (!(a->dt_min <= a->dt_max))
    return op_fail(c, "dt_min is %g and dt_max %g, expected dt_min <= dt_max", (double)a->dt_min, (double)a->dt_max);
  *s = (ssd_shape){
      .batch = op_length(c, 'b'),
      .length = op_length(c, 'l'),
      .n_heads = n_heads,
      .head_dim = op_length(c, 'p'),
      .n_groups = groups->size,
      .d_state = op_length(c, 'n'),
      .dtype = c->main,
      .sequences = sequence_count(c),
      .packed = sequences_packed(c),
      .reversed = a->reverse,
      .limited = a->dt_min != 0 || a->dt_max != 0,
  };
  return CLM_OK;
}

/* Backends know one direction: the other one is the same call on views that run backwards. */
static void turn(const op_call *c, void *ready, clm_ssd_args *a) {
  if (!a->reverse) return;
  ready_reverse(c, ready, 'l');
  a->reverse = false;
}

/* What backend functions get: the arguments checked, and turned if they ask for it. */
static clm_status begin(op_call *c, clm_context *context, const clm_ssd_args *args, ssd_shape *s,
                        clm_ssd_args *ready) {
  TRY(op_check(c, context, &ssd_table, args));
  TRY(shape_of(c, args, s));
  *ready = *args;
  turn(c, ready, ready);
  return CLM_OK;
}

static clm_status begin_backward(op_call *c, clm_context *context, const clm_ssd_backward_args *args, ssd_shape *s,
                                 clm_ssd_backward_args *ready) {
  TRY(op_check(c, context, &ssd_backward_table, args));
  TRY(shape_of(c, &args->forward, s));
  *ready = *args;
  turn(c, ready, &ready->forward);
  return CLM_OK;
}

clm_status clm_ssd(clm_context *context, const clm_ssd_args *args) {
  op_call c;
  ssd_shape s;
  clm_ssd_args ready;
  TRY(begin(&c, context, args, &s, &ready));
  ops_widened widened = widened_of(&c, &ready);
  TRY(widened_begin(context, &widened));
  return widened_end(context, &widened, OP_RUN(&c, ssd, &s, &ready));
}

clm_status clm_ssd_backward(clm_context *context, const clm_ssd_backward_args *args) {
  op_call c;
  ssd_shape s;
  clm_ssd_backward_args ready;
  TRY(begin_backward(&c, context, args, &s, &ready));
  ops_widened widened = widened_of(&c, &ready);
  TRY(widened_begin(context, &widened));
  return widened_end(context, &widened, OP_RUN(&c, ssd_backward, &s, &ready));
}

size_t clm_ssd_workspace_size(clm_context *context, const clm_ssd_args *args) {
  op_call c;
  ssd_shape s;
  clm_ssd_args ready;
  if (begin(&c, context, args, &s, &ready)) return 0;
  ops_widened widened = widened_of(&c, &ready);
  const size_t bytes = widened_assume(&widened);
  return bytes + (context->ops.ssd_workspace ? context->ops.ssd_workspace(context, &s, &ready) : 0);
}

size_t clm_ssd_backward_workspace_size(clm_context *context, const clm_ssd_backward_args *args) {
  op_call c;
  ssd_shape s;
  clm_ssd_backward_args ready;
  if (begin_backward(&c, context, args, &s, &ready)) return 0;
  ops_widened widened = widened_of(&c, &ready);
  const size_t bytes = widened_assume(&widened);
  return bytes + (context->ops.ssd_backward_workspace ? context->ops.ssd_backward_workspace(context, &s, &ready) : 0);
}
