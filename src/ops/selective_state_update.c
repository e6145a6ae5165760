#include "core/try.h"
#include "ops/check.h"
#include "ops/halves.h"
#include "ops/view.h"

/* The dimensions of each kind of tensor, which follow from the form of the call. */
typedef struct update_dims {
  check_dim batch, steps, d_inner, n_heads, head_dim, d_state, n_groups, pool;
  check_dim *sequence[CLM_MAX_RANK], *matrix[CLM_MAX_RANK], *channel[CLM_MAX_RANK], *inputs[CLM_MAX_RANK];
  check_dim *state[CLM_MAX_RANK], *gradient[CLM_MAX_RANK]; /* of the pool, of the rows of batch */
} update_dims;

static void append(check_dim **dims, check_dim *dim) {
  while (*dims) dims++;
  *dims = dim;
}

static bool has_heads(const clm_selective_state_update_args *a) { return a->state.rank == 4; }
static bool has_steps(const clm_selective_state_update_args *a) { return a->u.rank == (has_heads(a) ? 4 : 3); }

/* The state's rank tells the form: a wrong one is no other tensor's fault. */
static clm_status check_form(checker *c, const clm_selective_state_update_args *a) {
  const int rank = a->state.rank;
  if (!check_present(&a->state) || rank == 3 || rank == 4) return CLM_OK;
  if (rank < 1 || rank > CLM_MAX_RANK)
    return check_fail(c, "state has rank %d, expected 1 to %d", rank, CLM_MAX_RANK);
  return check_fail(c, "state has rank %d, expected (%s, d_inner, d_state) or (%s, n_heads, head_dim, d_state)", rank,
                    check_present(&a->state_indices) ? "pool" : "batch",
                    check_present(&a->state_indices) ? "pool" : "batch");
}

static void update_dims_init(update_dims *d, const clm_selective_state_update_args *a) {
  *d = (update_dims){CHECK_DIM(batch),    CHECK_DIM(steps),   CHECK_DIM(d_inner),  CHECK_DIM(n_heads),
                     CHECK_DIM(head_dim), CHECK_DIM(d_state), CHECK_DIM(n_groups), CHECK_DIM(pool)};
  append(d->sequence, &d->batch);
  append(d->inputs, &d->batch);
  append(d->state, check_present(&a->state_indices) ? &d->pool : &d->batch);
  append(d->gradient, &d->batch);
  if (has_steps(a)) {
    append(d->sequence, &d->steps);
    append(d->inputs, &d->steps);
  }
  check_dim **const of_channels[] = {d->sequence, d->matrix, d->channel, d->state, d->gradient};
  for (size_t i = 0; i < sizeof of_channels / sizeof *of_channels; i++) {
    append(of_channels[i], has_heads(a) ? &d->n_heads : &d->d_inner);
    if (has_heads(a)) append(of_channels[i], &d->head_dim);
  }
  append(d->inputs, &d->n_groups);
  check_dim **const of_states[] = {d->inputs, d->matrix, d->state, d->gradient};
  for (size_t i = 0; i < sizeof of_states / sizeof *of_states; i++) append(of_states[i], &d->d_state);
}

/* Of B, C, the state and the gradients of A, B and C: complex with a complex A, else stored as each likes. */
static unsigned number_dtypes(const clm_selective_state_update_args *a) {
  const clm_dtype u = a->u.dtype;
  return check_is_complex(a->A.dtype) ? CHECK_DTYPE(check_complex_of(u)) : check_storage_of(u);
}

/* clang-format off */
#define DIMS(list) .dims = {(list)[0], (list)[1], (list)[2], (list)[3], (list)[4]}
#define STORAGE .dtypes = check_storage_of(a->u.dtype)
#define NUMBERS .dtypes = number_dtypes(a)
#define SUMS    .dtypes = check_number_beside(a->u.dtype, a->A.dtype)
#define INPUTS                                                                                                        \
  CHECK_ROW(a, u, 0, .dtypes = CHECK_FLOAT, DIMS(d.sequence)), CHECK_ROW(a, delta, 0, STORAGE, DIMS(d.sequence)),     \
  CHECK_ROW(a, A, 0, .dtypes = check_storage_of(a->u.dtype) | CHECK_DTYPE(check_complex_of(a->u.dtype)),              \
            DIMS(d.matrix)),                                                                                          \
  CHECK_ROW(a, B, 0, NUMBERS, DIMS(d.inputs)),                                                                        \
  CHECK_ROW(a, C, 0, NUMBERS, DIMS(d.inputs)),                                                                        \
  CHECK_ROW(a, D, CHECK_OPTIONAL, STORAGE, DIMS(d.channel)),                                                          \
  CHECK_ROW(a, z, CHECK_OPTIONAL, STORAGE, DIMS(d.sequence)),                                                         \
  CHECK_ROW(a, delta_bias, CHECK_OPTIONAL, STORAGE, DIMS(d.channel)),                                                 \
  CHECK_ROW(a, state_indices, CHECK_OPTIONAL, .dtypes = CHECK_I32, .dims = {&d.batch})
/* clang-format on */

static clm_status shape_of(checker *c, const update_dims *d, const clm_selective_state_update_args *a,
                           state_update_shape *s) {
  const check_dim *grouped = has_heads(a) ? &d->n_heads : &d->d_inner;
  if (grouped->size % d->n_groups.size)
    return check_fail(c, "B has n_groups %lld, which does not divide %s %lld", (long long)d->n_groups.size,
                      grouped->name, (long long)grouped->size);
  *s = (state_update_shape){
      .batch = d->batch.size,
      .steps = has_steps(a) ? d->steps.size : 1,
      .n_heads = grouped->size,
      .head_dim = has_heads(a) ? d->head_dim.size : 1,
      .d_state = d->d_state.size,
      .n_groups = d->n_groups.size,
      .pool = check_present(&a->state_indices) ? d->pool.size : d->batch.size,
      .complex = check_is_complex(a->A.dtype),
      .dtype = a->u.dtype,
  };
  return CLM_OK;
}

static clm_status check(checker *c, const clm_selective_state_update_args *a, state_update_shape *s) {
  update_dims d;
  update_dims_init(&d, a);
  clm_status status = check_form(c, a);
  if (status) return status;
  status = CHECK_TENSORS(c, INPUTS, CHECK_ROW(a, state, CHECK_WRITTEN, NUMBERS, DIMS(d.state)),
                         CHECK_ROW(a, out, CHECK_WRITTEN, .as = &a->u, DIMS(d.sequence)));
  return status ? status : shape_of(c, &d, a, s);
}

static clm_status check_backward(checker *c, const clm_selective_state_update_backward_args *b,
                                 state_update_shape *s) {
  const clm_selective_state_update_args *a = &b->forward;
  const unsigned gradient = CHECK_OPTIONAL | CHECK_WRITTEN;
  update_dims d;
  update_dims_init(&d, a);
  clm_status status = check_form(c, a);
  if (status) return status;
  status = CHECK_TENSORS(
      c, INPUTS, CHECK_ROW(a, state, 0, NUMBERS, DIMS(d.state)), CHECK_ROW(b, dout, 0, .as = &a->u, DIMS(d.sequence)),
      CHECK_ROW(b, dnew_state, CHECK_OPTIONAL, SUMS, DIMS(d.gradient)),
      CHECK_ROW(b, du, gradient, .as = &a->u, DIMS(d.sequence)),
      CHECK_ROW(b, ddelta, gradient, .as = &a->delta, DIMS(d.sequence)),
      CHECK_ROW(b, dz, gradient, STORAGE, DIMS(d.sequence)), CHECK_ROW(b, dA, gradient, NUMBERS, DIMS(d.matrix)),
      CHECK_ROW(b, dB, gradient, NUMBERS, DIMS(d.inputs)), CHECK_ROW(b, dC, gradient, NUMBERS, DIMS(d.inputs)),
      CHECK_ROW(b, dD, gradient, STORAGE, DIMS(d.channel)),
      CHECK_ROW(b, ddelta_bias, gradient, STORAGE, DIMS(d.channel)),
      CHECK_ROW(b, dstate, gradient, SUMS, DIMS(d.gradient)));
  if (!status && check_present(&b->dz) && !check_present(&a->z))
    return check_fail(c, "dz is given, but z is missing");
  if (!status && check_present(&b->dz) && b->dz.dtype != a->z.dtype)
    return check_fail(c, "dz is %s, expected %s as z", clm_dtype_name(b->dz.dtype), clm_dtype_name(a->z.dtype));
  return status ? status : shape_of(c, &d, a, s);
}

/* Backends know one form: (batch, steps, n_heads, head_dim); a channel is a head of one. */
static void spread(const clm_selective_state_update_args *form, clm_tensor *const *sequences, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (!has_steps(form)) view_insert(sequences[i], 1);
    if (!has_heads(form)) view_insert(sequences[i], 3);
  }
}
#define SPREAD(form, ...)                                                                                            \
  spread(form, (clm_tensor *const[]){__VA_ARGS__}, sizeof((clm_tensor *[]){__VA_ARGS__}) / sizeof(clm_tensor *))

static void spread_channels(const clm_selective_state_update_args *form, clm_tensor *t, int dim) {
  if (!has_heads(form)) view_insert(t, dim);
}

static void spread_inputs(const clm_selective_state_update_args *form, clm_tensor *t) {
  if (!has_steps(form)) view_insert(t, 1);
}

static clm_selective_state_update_args ready_of(const clm_selective_state_update_args *args) {
  clm_selective_state_update_args a = *args;
  SPREAD(args, &a.u, &a.delta, &a.z, &a.out);
  spread_inputs(args, &a.B);
  spread_inputs(args, &a.C);
  spread_channels(args, &a.A, 1);
  spread_channels(args, &a.D, 1);
  spread_channels(args, &a.delta_bias, 1);
  spread_channels(args, &a.state, 2);
  return a;
}

static ops_halves halves_of(clm_selective_state_update_args *a) {
  ops_halves h = {.count = 0};
  halves_add(&h, &a->A, false);
  halves_add(&h, &a->D, false);
  halves_add(&h, &a->delta_bias, false);
  return h;
}

clm_status clm_selective_state_update(clm_context *context, const clm_selective_state_update_args *args) {
  checker c;
  state_update_shape s;
  clm_status status = check_begin(&c, context, "selective_state_update", args);
  if (!status) status = check(&c, args, &s);
  if (status) return status;
  clm_selective_state_update_args ready = ready_of(args);
  ops_halves halves = halves_of(&ready);
  TRY(halves_begin(context, &halves));
  return halves_end(context, &halves, OPS_CALL(&c, selective_state_update, &s, &ready));
}

clm_status clm_selective_state_update_backward(clm_context *context,
                                               const clm_selective_state_update_backward_args *args) {
  checker c;
  state_update_shape s;
  clm_status status = check_begin(&c, context, "selective_state_update_backward", args);
  if (!status) status = check_backward(&c, args, &s);
  if (status) return status;
  const clm_selective_state_update_args *form = &args->forward;
  clm_selective_state_update_backward_args ready = *args;
  ready.forward = ready_of(form);
  SPREAD(form, &ready.dout, &ready.du, &ready.ddelta, &ready.dz);
  spread_inputs(form, &ready.dB);
  spread_inputs(form, &ready.dC);
  spread_channels(form, &ready.dA, 1);
  spread_channels(form, &ready.dD, 1);
  spread_channels(form, &ready.ddelta_bias, 1);
  spread_channels(form, &ready.dnew_state, 2);
  spread_channels(form, &ready.dstate, 2);
  ops_halves halves = halves_of(&ready.forward);
  halves_add(&halves, &ready.dA, true);
  halves_add(&halves, &ready.dD, true);
  halves_add(&halves, &ready.ddelta_bias, true);
  TRY(halves_begin(context, &halves));
  return halves_end(context, &halves, OPS_CALL(&c, selective_state_update_backward, &s, &ready));
}
