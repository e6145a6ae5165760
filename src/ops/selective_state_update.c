#include "ops/ready.h"
#include "ops/widened.h"

/* Channels are heads of one: (batch, d_inner) stands for (batch, steps, n_heads, head_dim). */
static const op_dim dims[] = {OP_DIM('b', "batch"),
                              OP_DIM('t', "steps"),
                              OP_DIM('h', "n_heads", .along = 'e', .otherwise = 'd'),
                              OP_DIM('e', "head_dim"),
                              OP_DIM('d', "d_inner"),
                              OP_DIM('n', "d_state"),
                              OP_DIM('g', "n_groups"),
                              OP_DIM('p', "pool", .with = "state_indices", .otherwise = 'b'),
                              {0}};

/* clang-format off */
/* Of B, C, the state and the gradients of A, B and C: complex with a complex A, else stored as each likes. */
#define IS_NUMBER {.set = OP_STORAGE, .complex = OP_COMPLEX}

OP_FORWARD_FIRST(selective_state_update);
static const op_tensor inputs[] = {
    OP_TENSOR(clm_selective_state_update_args, u, OP_IN, OP_IS_FLOAT, "b t h e"),
    OP_TENSOR(clm_selective_state_update_args, delta, OP_IN, OP_IS_STORAGE, "b t h e"),
    OP_TENSOR(clm_selective_state_update_args, A, OP_IN, {.set = OP_STORAGE | OP_COMPLEX}, "h e n", .flags = OP_WIDENED),
    OP_TENSOR(clm_selective_state_update_args, B, OP_IN, IS_NUMBER, "b t g n"),
    OP_TENSOR(clm_selective_state_update_args, C, OP_IN, IS_NUMBER, "b t g n"),
    OP_TENSOR(clm_selective_state_update_args, D, OP_IN, OP_IS_STORAGE, "h e", .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_selective_state_update_args, z, OP_IN, OP_IS_STORAGE, "b t h e", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_selective_state_update_args, delta_bias, OP_IN, OP_IS_STORAGE, "h e",
              .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_selective_state_update_args, state_indices, OP_IN, OP_IS_INDEX, "b", .flags = OP_OPTIONAL),
};

static const op_tensor outputs[] = {
    OP_TENSOR(clm_selective_state_update_args, state, OP_INOUT, IS_NUMBER, "p h e n"),
    OP_TENSOR(clm_selective_state_update_args, out, OP_OUT, OP_AS("u"), "b t h e"),
};

static const op_tensor gradients[] = {
    OP_TENSOR(clm_selective_state_update_args, state, OP_IN, IS_NUMBER, "p h e n"),
    OP_TENSOR(clm_selective_state_update_backward_args, dout, OP_IN, OP_AS("u"), "b t h e"),
    OP_TENSOR(clm_selective_state_update_backward_args, dnew_state, OP_IN, OP_IS_NUMBER, "b h e n",
              .flags = OP_OPTIONAL),
    OP_TENSOR(clm_selective_state_update_backward_args, du, OP_OUT, OP_AS("u"), "b t h e", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_selective_state_update_backward_args, ddelta, OP_OUT, OP_AS("delta"), "b t h e",
              .flags = OP_OPTIONAL),
    OP_TENSOR(clm_selective_state_update_backward_args, dz, OP_OUT, OP_AS("z"), "b t h e", .flags = OP_OPTIONAL,
              .with = "z"),
    OP_TENSOR(clm_selective_state_update_backward_args, dA, OP_OUT, IS_NUMBER, "h e n",
              .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_selective_state_update_backward_args, dB, OP_OUT, IS_NUMBER, "b t g n", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_selective_state_update_backward_args, dC, OP_OUT, IS_NUMBER, "b t g n", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_selective_state_update_backward_args, dD, OP_OUT, OP_IS_STORAGE, "h e",
              .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_selective_state_update_backward_args, ddelta_bias, OP_OUT, OP_IS_STORAGE, "h e",
              .flags = OP_OPTIONAL | OP_WIDENED),
    OP_TENSOR(clm_selective_state_update_backward_args, dstate, OP_OUT, OP_IS_NUMBER, "b h e n",
              .flags = OP_OPTIONAL),
};

static const op_scalar scalars[] = {
    OP_SCALAR(clm_selective_state_update_args, delta_softplus, OP_BOOL),
    OP_SCALAR(clm_selective_state_update_args, A_is_log, OP_BOOL),
    {0},
};
/* clang-format on */

/* The state's rank tells the form: a wrong one is no other tensor's fault. */
static clm_status form(op_call *c) {
  const clm_selective_state_update_args *a = c->args; /* of either direction */
  const int rank = a->state.rank;
  const char *rows = op_present(&a->state_indices) ? "pool" : "batch";
  const bool heads = rank == 4, steps = a->u.rank == (heads ? 4 : 3);
  c->lacks = heads ? (steps ? "" : "t") : steps ? "e" : "te";
  if (!op_present(&a->state) || rank == 3 || rank == 4) return CLM_OK;
  if (rank < 1 || rank > CLM_MAX_RANK) return op_fail(c, "state has rank %d, expected 1 to %d", rank, CLM_MAX_RANK);
  return op_fail(c, "state has rank %d, expected (%s, d_inner, d_state) or (%s, n_heads, head_dim, d_state)", rank,
                 rows, rows);
}

const op_table selective_state_update_table = {.name = "selective_state_update",
                                               .main = "u",
                                               .rate = "A",
                                               .dims = dims,
                                               .parts = {OP_PART(inputs), OP_PART(outputs)},
                                               .scalars = scalars,
                                               .form = form};
const op_table selective_state_update_backward_table = {.name = "selective_state_update_backward",
                                                        .main = "u",
                                                        .rate = "A",
                                                        .dims = dims,
                                                        .parts = {OP_PART(inputs), OP_PART(gradients)},
                                                        .scalars = scalars,
                                                        .form = form};

static clm_status shape_of(const op_call *c, state_update_shape *s) {
  const op_size *heads = op_size_of(c, 'h');
  const int64_t groups = op_length(c, 'g');
  if (heads->size % groups)
    return op_fail(c, "B has n_groups %lld, which does not divide %s %lld", (long long)groups, heads->dim->name,
                   (long long)heads->size);
  *s = (state_update_shape){
      .batch = op_length(c, 'b'),
      .steps = op_lacks(c, 't') ? 1 : op_length(c, 't'),
      .n_heads = heads->size,
      .head_dim = op_lacks(c, 'e') ? 1 : op_length(c, 'e'),
      .d_state = op_length(c, 'n'),
      .n_groups = groups,
      .pool = op_length(c, 'p'),
      .complex = c->complex,
      .dtype = c->main,
  };
  return CLM_OK;
}

clm_status clm_selective_state_update(clm_context *context, const clm_selective_state_update_args *args) {
  op_call c;
  state_update_shape s;
  TRY(op_check(&c, context, &selective_state_update_table, args));
  TRY(shape_of(&c, &s));
  clm_selective_state_update_args ready = *args;
  ready_spread(&c, &ready);
  ops_widened widened = widened_of(&c, &ready);
  TRY(widened_begin(context, &widened));
  return widened_end(context, &widened, OP_RUN(&c, selective_state_update, &s, &ready));
}

clm_status clm_selective_state_update_backward(clm_context *context,
                                               const clm_selective_state_update_backward_args *args) {
  op_call c;
  state_update_shape s;
  TRY(op_check(&c, context, &selective_state_update_backward_table, args));
  TRY(shape_of(&c, &s));
  clm_selective_state_update_backward_args ready = *args;
  ready_spread(&c, &ready);
  ops_widened widened = widened_of(&c, &ready);
  TRY(widened_begin(context, &widened));
  return widened_end(context, &widened, OP_RUN(&c, selective_state_update_backward, &s, &ready));
}
