#include "core/try.h"
#include "ops/halves.h"
#include "ops/sequences.h"
#include "ops/view.h"

typedef struct scan_dims {
  sequence_dims row;
  check_dim d_inner, d_state, n_groups;
} scan_dims;

/* B and C: for each time step as u (complex with a complex A), else a weight as A is one. */
static unsigned input_dtypes(const clm_selective_scan_args *a, const clm_tensor *t) {
  if (t->rank == 2) return check_weight_beside(a->u.dtype, a->A.dtype);
  return CHECK_DTYPE(check_is_complex(a->A.dtype) ? check_complex_of(a->u.dtype) : a->u.dtype);
}

/* Their gradients: in the dtype of B and C, or with the precision of the sums. */
static unsigned gradient_dtypes(const clm_selective_scan_args *a, const clm_tensor *t) {
  return input_dtypes(a, t) | check_number_beside(a->u.dtype, a->A.dtype);
}

/* clang-format off */
#define DIMS {.row = SEQUENCE_DIMS, CHECK_DIM(d_inner), CHECK_DIM(d_state), CHECK_DIM(n_groups)}
#define SEQUENCE  .dims = {&d.row.batch, &d.row.length, &d.d_inner}
#define CHANNEL   .dims = {&d.d_inner}
#define MATRIX    .dims = {&d.d_inner, &d.d_state}
#define STATE     .dims = {sequence_rows(&d.row, &a->cu_seqlens), &d.d_inner, &d.d_state}
#define B_OR_C    .dims = {&d.row.batch, &d.row.length, &d.n_groups, &d.d_state}, .or_dims = {&d.d_inner, &d.d_state}
#define PARAMETER .dtypes = check_weight_of(a->u.dtype)
#define NUMBER    .dtypes = check_number_beside(a->u.dtype, a->A.dtype)
#define INPUTS                                                                                                        \
  CHECK_ROW(a, u, 0, .dtypes = CHECK_FLOAT, SEQUENCE),                                                                \
  CHECK_ROW(a, delta, 0, .as = &a->u, SEQUENCE),                                                                      \
  CHECK_ROW(a, A, 0, .dtypes = check_weight_of(a->u.dtype) | CHECK_DTYPE(check_complex_of(a->u.dtype)), MATRIX),                                                                                                  \
  CHECK_ROW(a, B, 0, .dtypes = input_dtypes(a, &a->B), B_OR_C),                                                       \
  CHECK_ROW(a, C, 0, .dtypes = input_dtypes(a, &a->C), B_OR_C),                                                       \
  CHECK_ROW(a, D, CHECK_OPTIONAL, PARAMETER, CHANNEL),                                                                \
  CHECK_ROW(a, z, CHECK_OPTIONAL, .as = &a->u, SEQUENCE),                                                             \
  CHECK_ROW(a, delta_bias, CHECK_OPTIONAL, PARAMETER, CHANNEL),                                                       \
  CHECK_ROW(a, gate, CHECK_OPTIONAL, .as = &a->u, SEQUENCE),                                                          \
  SEQUENCE_ROWS(a, &d.row),                                                                                           \
  CHECK_ROW(a, initial_state, CHECK_OPTIONAL, NUMBER, STATE)
/* clang-format on */

static clm_status shape_of(checker *c, const scan_dims *d, const clm_selective_scan_args *a,
                           selective_scan_shape *s) {
  int64_t groups = d->n_groups.size ? d->n_groups.size : 1;
  if (d->d_inner.size % groups)
    return check_fail(c, "%s has n_groups %lld, which does not divide d_inner %lld", d->n_groups.from,
                      (long long)groups, (long long)d->d_inner.size);
  clm_status status = check_sequences(c, &d->row, "u", &a->seq_idx, &a->cu_seqlens);
  if (status) return status;
  if (a->chunk < 0) return check_fail(c, "chunk is %lld, expected 0 or more", (long long)a->chunk);
  *s = (selective_scan_shape){
      .batch = d->row.batch.size,
      .length = d->row.length.size,
      .d_inner = d->d_inner.size,
      .d_state = d->d_state.size,
      .n_groups = groups,
      .B_varies = a->B.rank == 4,
      .C_varies = a->C.rank == 4,
      .complex = check_is_complex(a->A.dtype),
      .dtype = a->u.dtype,
      .sequences = sequence_count(&d->row, &a->cu_seqlens),
      .packed = check_present(&a->cu_seqlens),
      .reversed = a->reverse,
  };
  return CLM_OK;
}

/* Backends know one direction: the other one is the same call on views that run backwards. */
static void turn(clm_selective_scan_args *a) {
  clm_tensor *const sequences[] = {&a->u, &a->delta, &a->z, &a->gate, &a->seq_idx, &a->out};
  for (size_t i = 0; i < sizeof sequences / sizeof *sequences; i++) view_reverse(sequences[i], 1);
  if (a->B.rank == 4) view_reverse(&a->B, 1);
  if (a->C.rank == 4) view_reverse(&a->C, 1);
  a->reverse = false;
}

static void turn_backward(clm_selective_scan_backward_args *b) {
  clm_tensor *const sequences[] = {&b->dout, &b->du, &b->ddelta, &b->dz, &b->dgate, &b->out};
  turn(&b->forward);
  for (size_t i = 0; i < sizeof sequences / sizeof *sequences; i++) view_reverse(sequences[i], 1);
  if (b->forward.B.rank == 4) view_reverse(&b->dB, 1);
  if (b->forward.C.rank == 4) view_reverse(&b->dC, 1);
}

static clm_status check(checker *c, const clm_selective_scan_args *a, selective_scan_shape *s) {
  scan_dims d = DIMS;
  clm_status status = CHECK_TENSORS(
      c, INPUTS, CHECK_ROW(a, out, CHECK_WRITTEN, .as = &a->u, SEQUENCE),
      CHECK_ROW(a, final_state, CHECK_OPTIONAL | CHECK_WRITTEN, NUMBER, STATE, .may_be = {&a->initial_state}));
  return status ? status : shape_of(c, &d, a, s);
}

static clm_status check_backward(checker *c, const clm_selective_scan_backward_args *b, selective_scan_shape *s) {
  const clm_selective_scan_args *a = &b->forward;
  const unsigned gradient = CHECK_OPTIONAL | CHECK_WRITTEN;
  scan_dims d = DIMS;
  clm_status status = CHECK_TENSORS(
      c, INPUTS, CHECK_ROW(b, dout, 0, .as = &a->u, SEQUENCE),
      CHECK_ROW(b, dfinal_state, CHECK_OPTIONAL, NUMBER, STATE), CHECK_ROW(b, du, gradient, .as = &a->u, SEQUENCE),
      CHECK_ROW(b, ddelta, gradient, .as = &a->u, SEQUENCE), CHECK_ROW(b, dz, gradient, .as = &a->u, SEQUENCE),
      CHECK_ROW(b, dA, gradient, .dtypes = check_weight_beside(a->u.dtype, a->A.dtype), MATRIX),
      CHECK_ROW(b, dB, gradient, .dtypes = gradient_dtypes(a, &a->B), B_OR_C, .shape_as = &a->B),
      CHECK_ROW(b, dC, gradient, .dtypes = gradient_dtypes(a, &a->C), B_OR_C, .shape_as = &a->C),
      CHECK_ROW(b, dD, gradient, PARAMETER, CHANNEL), CHECK_ROW(b, ddelta_bias, gradient, PARAMETER, CHANNEL),
      CHECK_ROW(b, dinitial_state, gradient, NUMBER, STATE), CHECK_ROW(b, out, gradient, .as = &a->u, SEQUENCE),
      CHECK_ROW(b, dgate, gradient, .as = &a->u, SEQUENCE));
  if (!status && check_present(&b->dgate) && !check_present(&a->gate))
    return check_fail(c, "dgate is given, but gate is missing");
  if (!status && check_present(&b->dz) && !check_present(&a->z))
    return check_fail(c, "dz is given, but z is missing");
  return status ? status : shape_of(c, &d, a, s);
}

/* What backend functions get: the arguments checked, and turned if they ask for it. */
static clm_status begin(checker *c, clm_context *context, const clm_selective_scan_args *args,
                        selective_scan_shape *s, clm_selective_scan_args *ready) {
  clm_status status = check_begin(c, context, "selective_scan", args);
  if (!status) status = check(c, args, s);
  if (status) return status;
  *ready = *args;
  if (args->reverse) turn(ready);
  return CLM_OK;
}

static clm_status begin_backward(checker *c, clm_context *context, const clm_selective_scan_backward_args *args,
                                 selective_scan_shape *s, clm_selective_scan_backward_args *ready) {
  clm_status status = check_begin(c, context, "selective_scan_backward", args);
  if (!status) status = check_backward(c, args, s);
  if (status) return status;
  *ready = *args;
  if (args->forward.reverse) turn_backward(ready);
  return CLM_OK;
}

static ops_halves halves_of(clm_selective_scan_args *a) {
  ops_halves h = {.count = 0};
  halves_add(&h, &a->A, false);
  if (a->B.rank == 2) halves_add(&h, &a->B, false);
  if (a->C.rank == 2) halves_add(&h, &a->C, false);
  halves_add(&h, &a->D, false);
  halves_add(&h, &a->delta_bias, false);
  return h;
}

static ops_halves halves_of_backward(clm_selective_scan_backward_args *b) {
  ops_halves h = halves_of(&b->forward);
  halves_add(&h, &b->dA, true);
  if (b->forward.B.rank == 2) halves_add(&h, &b->dB, true);
  if (b->forward.C.rank == 2) halves_add(&h, &b->dC, true);
  halves_add(&h, &b->dD, true);
  halves_add(&h, &b->ddelta_bias, true);
  return h;
}

clm_status clm_selective_scan(clm_context *context, const clm_selective_scan_args *args) {
  checker c;
  selective_scan_shape s;
  clm_selective_scan_args ready;
  TRY(begin(&c, context, args, &s, &ready));
  ops_halves halves = halves_of(&ready);
  TRY(halves_begin(context, &halves));
  return halves_end(context, &halves, OPS_CALL(&c, selective_scan, &s, &ready));
}

clm_status clm_selective_scan_backward(clm_context *context, const clm_selective_scan_backward_args *args) {
  checker c;
  selective_scan_shape s;
  clm_selective_scan_backward_args ready;
  TRY(begin_backward(&c, context, args, &s, &ready));
  ops_halves halves = halves_of_backward(&ready);
  TRY(halves_begin(context, &halves));
  return halves_end(context, &halves, OPS_CALL(&c, selective_scan_backward, &s, &ready));
}

size_t clm_selective_scan_workspace_size(clm_context *context, const clm_selective_scan_args *args) {
  checker c;
  selective_scan_shape s;
  clm_selective_scan_args ready;
  if (begin(&c, context, args, &s, &ready)) return 0;
  ops_halves halves = halves_of(&ready);
  const size_t bytes = halves_pretend(&halves);
  if (!context->ops.selective_scan_workspace) return bytes;
  return bytes + context->ops.selective_scan_workspace(context, &s, &ready);
}

size_t clm_selective_scan_backward_workspace_size(clm_context *context,
                                                  const clm_selective_scan_backward_args *args) {
  checker c;
  selective_scan_shape s;
  clm_selective_scan_backward_args ready;
  if (begin_backward(&c, context, args, &s, &ready)) return 0;
  ops_halves halves = halves_of_backward(&ready);
  const size_t bytes = halves_pretend(&halves);
  if (!context->ops.selective_scan_backward_workspace) return bytes;
  return bytes + context->ops.selective_scan_backward_workspace(context, &s, &ready);
}
