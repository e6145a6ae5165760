/* The inside of a Mamba block: arguments, and the plain sequence of operations where a backend has nothing better. */
#include "core/try.h"
#include "ops/halves.h"
#include "ops/sequences.h"
#include <math.h>
#include <string.h>

typedef struct inner_dims {
  sequence_dims row;
  check_dim both, d_inner, width, state_width, features, dt_rank, d_state, d_model;
} inner_dims;

/* clang-format off */
/* xz shows batch, length and 2 d_inner before any of the weights is looked at. */
#define WEIGHT_DIM(dim) .dim = {.name = #dim, .beside = true}
#define DIMS {.row = SEQUENCE_DIMS, .both = {.name = "2 d_inner"}, WEIGHT_DIM(d_inner), CHECK_DIM(width),              \
              .state_width = {.name = "width - 1", .of = &d.width, .plus = -1}, WEIGHT_DIM(features),                  \
              WEIGHT_DIM(dt_rank), CHECK_DIM(d_state), WEIGHT_DIM(d_model)}
#define PARAMETER  .dtypes = CHECK_DTYPE(check_real_of(a->xz.dtype))
#define WEIGHT     .dtypes = check_weight_of(a->xz.dtype)
#define MATRIX(also) .dtypes = check_storage_of(a->xz.dtype) | (also)
#define SEQUENCE(last) .as = &a->xz, .dims = {&d.row.batch, &d.row.length, &d.last}
#define CONV_STATE .as = &a->xz, .dims = {sequence_rows(&d.row, &a->cu_seqlens), &d.d_inner, &d.state_width}
#define NUMBERS    .dtypes = check_weight_beside(a->xz.dtype, a->A.dtype), .dims = {&d.d_inner, &d.d_state}
#define SCAN_STATE .dtypes = check_number_beside(a->xz.dtype, a->A.dtype), .dims = {sequence_rows(&d.row, &a->cu_seqlens), &d.d_inner, &d.d_state}
#define VECTOR(dim) WEIGHT, .dims = {&d.dim}
#define INPUTS(kept, matrices)                                                                                                  \
  CHECK_ROW(a, xz, 0, .dtypes = CHECK_FLOAT, .dims = {&d.row.batch, &d.row.length, &d.both}),                                  \
  SEQUENCE_ROWS(a, &d.row),                                                                                           \
  CHECK_ROW(a, conv_weight, 0, WEIGHT, .dims = {&d.d_inner, &d.width}),                                            \
  CHECK_ROW(a, conv_bias, CHECK_OPTIONAL, WEIGHT, .dims = {&d.d_inner}),                                                           \
  CHECK_ROW(a, x_proj, 0, MATRIX(matrices), .dims = {&d.features, &d.d_inner}),                                                 \
  CHECK_ROW(a, dt_proj, 0, MATRIX(matrices), .dims = {&d.d_inner, &d.dt_rank}),                                                 \
  CHECK_ROW(a, delta_bias, CHECK_OPTIONAL, WEIGHT, .dims = {&d.d_inner}),                                                          \
  CHECK_ROW(a, A, 0, .dtypes = check_weight_of(a->xz.dtype) | CHECK_DTYPE(check_complex_of(a->xz.dtype)),             \
            .dims = {&d.d_inner, &d.d_state}),                                                                        \
  CHECK_ROW(a, B, CHECK_OPTIONAL, NUMBERS), CHECK_ROW(a, C, CHECK_OPTIONAL, NUMBERS),                                 \
  CHECK_ROW(a, D, CHECK_OPTIONAL, WEIGHT, .dims = {&d.d_inner}),                                                                   \
  CHECK_ROW(a, out_proj, CHECK_OPTIONAL, MATRIX(matrices), .dims = {&d.d_model, &d.d_inner}),                                   \
  CHECK_ROW(a, delta_norm, CHECK_OPTIONAL, VECTOR(dt_rank)),                                                          \
  CHECK_ROW(a, B_norm, CHECK_OPTIONAL, VECTOR(d_state)),                                                              \
  CHECK_ROW(a, C_norm, CHECK_OPTIONAL, VECTOR(d_state)),                                                              \
  CHECK_ROW(a, conv_initial, CHECK_OPTIONAL, CONV_STATE),                                                             \
  CHECK_ROW(a, scan_initial, CHECK_OPTIONAL, SCAN_STATE),                                                             \
  CHECK_ROW(a, u, CHECK_OPTIONAL | (kept), SEQUENCE(d_inner)),                                                        \
  CHECK_ROW(a, delta, CHECK_OPTIONAL | (kept), SEQUENCE(d_inner)),                                                    \
  CHECK_ROW(a, dbc, CHECK_OPTIONAL | (kept), SEQUENCE(features))
/* clang-format on */

/* Rows of a matrix: batch and length one after the other. */
static clm_status check_rows(checker *c, const char *name, const clm_tensor *t) {
  if (!check_present(t) || t->shape[0] == 1 || t->shape[1] == 1 || t->stride[0] == t->shape[1] * t->stride[1])
    return CLM_OK;
  return check_fail(c, "%s has stride %lld between its batch rows, expected %lld: contiguous rows", name,
                    (long long)t->stride[0], (long long)(t->shape[1] * t->stride[1]));
}

static clm_status check_norm(checker *c, const char *weight_name, const clm_tensor *weight, const char *name,
                             bool norm) {
  if (norm || !check_present(weight)) return CLM_OK;
  return check_fail(c, "%s is given, but %s is not set", weight_name, name);
}

/* Norms are of what x_proj makes. */
static clm_status check_norms(checker *c, const clm_mamba_inner_args *a) {
  const struct {
    const char *norm, *fixed;
    bool set;
    const clm_tensor *given;
  } norms[] = {{"norm_delta", NULL, a->norm_delta, NULL},
               {"norm_B", "B", a->norm_B, &a->B},
               {"norm_C", "C", a->norm_C, &a->C}};
  for (size_t i = 0; i < sizeof norms / sizeof *norms; i++) {
    if (!norms[i].set) continue;
    if (check_is_complex(a->A.dtype))
      return check_fail(c, "%s is set, expected no norms as A is complex", norms[i].norm);
    if (norms[i].fixed && check_present(norms[i].given))
      return check_fail(c, "%s is set, but %s is given", norms[i].norm, norms[i].fixed);
  }
  return CLM_OK;
}

/* n_groups, from what x_proj's rows are besides dt's. */
static clm_status check_groups(checker *c, const clm_mamba_inner_args *a, const inner_dims *d, int64_t *groups) {
  const int varying = !check_present(&a->B) + !check_present(&a->C);
  const int64_t numbers = d->d_state.size * (check_is_complex(a->A.dtype) ? 2 : 1);
  const int64_t parts = d->features.size - d->dt_rank.size, all = varying * numbers;
  *groups = all ? parts / all : 1;
  if (all ? parts > 0 && parts % all == 0 : parts == 0) return CLM_OK;
  if (!varying)
    return check_fail(c, "x_proj has features %lld, expected dt_rank %lld as B and C are given",
                      (long long)d->features.size, (long long)d->dt_rank.size);
  return check_fail(c, "x_proj has features %lld, expected dt_rank %lld and %lld n_groups times d_state %lld",
                    (long long)d->features.size, (long long)d->dt_rank.size, (long long)(all / d->d_state.size),
                    (long long)d->d_state.size);
}

/* What the table cannot say. */
static clm_status check_rest(checker *c, const clm_mamba_inner_args *a, const inner_dims *d, mamba_inner_shape *s) {
  int64_t groups;
  if (d->both.size != 2 * d->d_inner.size)
    return check_fail(c, "xz has 2 d_inner %lld, expected %lld as conv_weight has d_inner %lld",
                      (long long)d->both.size, (long long)(2 * d->d_inner.size), (long long)d->d_inner.size);
  TRY(check_groups(c, a, d, &groups));
  TRY(check_norms(c, a));
  if (d->d_inner.size % groups)
    return check_fail(c, "x_proj has n_groups %lld, which does not divide d_inner %lld", (long long)groups,
                      (long long)d->d_inner.size);
  if (!check_present(&a->out_proj) && d->d_model.size != d->d_inner.size)
    return check_fail(c, "out_proj is missing, expected d_model %lld to be d_inner %lld without it",
                      (long long)d->d_model.size, (long long)d->d_inner.size);
  if (!check_present(&a->out_proj) && (check_present(&a->out_bias) || check_present(&a->residual)))
    return check_fail(c, "%s is given, but out_proj is missing",
                      check_present(&a->out_bias) ? "out_bias" : "residual");
  TRY(check_norm(c, "delta_norm", &a->delta_norm, "norm_delta", a->norm_delta));
  TRY(check_norm(c, "B_norm", &a->B_norm, "norm_B", a->norm_B));
  TRY(check_norm(c, "C_norm", &a->C_norm, "norm_C", a->norm_C));
  if (d->width.size > 32)
    return check_fail(c, "conv_weight has width %lld, expected 1 to 32", (long long)d->width.size);
  TRY(check_sequences(c, &d->row, "xz", &a->seq_idx, &a->cu_seqlens));
  TRY(check_scale(c, "x_proj_scale", &a->x_proj_scale, "x_proj", &a->x_proj));
  TRY(check_scale(c, "dt_proj_scale", &a->dt_proj_scale, "dt_proj", &a->dt_proj));
  TRY(check_scale(c, "out_proj_scale", &a->out_proj_scale, "out_proj", &a->out_proj));
  TRY(check_rows(c, "u", &a->u));
  TRY(check_rows(c, "delta", &a->delta));
  TRY(check_rows(c, "dbc", &a->dbc));
  TRY(check_number(c, "norm_epsilon", (double)a->norm_epsilon, 0, (double)INFINITY, "a finite number of at least 0"));
  *s = (mamba_inner_shape){.batch = d->row.batch.size,
                           .length = d->row.length.size,
                           .d_inner = d->d_inner.size,
                           .d_state = d->d_state.size,
                           .dt_rank = d->dt_rank.size,
                           .n_groups = groups,
                           .d_model = d->d_model.size,
                           .features = d->features.size,
                           .B_fixed = check_present(&a->B),
                           .C_fixed = check_present(&a->C),
                           .complex = check_is_complex(a->A.dtype),
                           .dtype = a->xz.dtype};
  return CLM_OK;
}

static clm_status check(checker *c, const clm_mamba_inner_args *a, mamba_inner_shape *s) {
  const unsigned optional = CHECK_OPTIONAL | CHECK_WRITTEN;
  inner_dims d = DIMS;
  TRY(CHECK_TENSORS(c, INPUTS(CHECK_WRITTEN, CHECK_I8), CHECK_ROW(a, out_bias, CHECK_OPTIONAL, VECTOR(d_model)),
                    CHECK_ROW(a, residual, CHECK_OPTIONAL, SEQUENCE(d_model)),
                    CHECK_ROW(a, out, CHECK_WRITTEN, SEQUENCE(d_model), .may_be = {&a->residual}),
                    CHECK_ROW(a, conv_final, optional, CONV_STATE, .may_be = {&a->conv_initial}),
                    CHECK_ROW(a, scan_final, optional, SCAN_STATE, .may_be = {&a->scan_initial}),
                    CHECK_ROW(a, x_proj_scale, CHECK_OPTIONAL, PARAMETER, .dims = {&d.features}),
                    CHECK_ROW(a, dt_proj_scale, CHECK_OPTIONAL, PARAMETER, .dims = {&d.d_inner}),
                    CHECK_ROW(a, out_proj_scale, CHECK_OPTIONAL, PARAMETER, .dims = {&d.d_model})));
  TRY(check_rows(c, "residual", &a->residual));
  TRY(check_rows(c, "out", &a->out));
  return check_rest(c, a, &d, s);
}

static clm_status check_backward(checker *c, const clm_mamba_inner_backward_args *b, mamba_inner_shape *s) {
  const clm_mamba_inner_args *a = &b->forward;
  const unsigned gradient = CHECK_OPTIONAL | CHECK_WRITTEN;
  inner_dims d = DIMS;
  TRY(CHECK_TENSORS(
      c, INPUTS(0, 0), CHECK_ROW(b, dout, 0, SEQUENCE(d_model)),
      CHECK_ROW(b, dconv_final, CHECK_OPTIONAL, CONV_STATE), CHECK_ROW(b, dscan_final, CHECK_OPTIONAL, SCAN_STATE),
      CHECK_ROW(b, dxz, gradient, SEQUENCE(both)),
      CHECK_ROW(b, dconv_weight, gradient, WEIGHT, .dims = {&d.d_inner, &d.width}),
      CHECK_ROW(b, dconv_bias, gradient, VECTOR(d_inner)),
      CHECK_ROW(b, dx_proj, gradient, WEIGHT, .dims = {&d.features, &d.d_inner}),
      CHECK_ROW(b, ddt_proj, gradient, WEIGHT, .dims = {&d.d_inner, &d.dt_rank}),
      CHECK_ROW(b, ddelta_bias, gradient, VECTOR(d_inner)), CHECK_ROW(b, dA, gradient, NUMBERS),
      CHECK_ROW(b, dB, gradient, NUMBERS), CHECK_ROW(b, dC, gradient, NUMBERS),
      CHECK_ROW(b, dD, gradient, VECTOR(d_inner)),
      CHECK_ROW(b, dout_proj, gradient, WEIGHT, .dims = {&d.d_model, &d.d_inner}),
      CHECK_ROW(b, dout_bias, gradient, VECTOR(d_model)), CHECK_ROW(b, ddelta_norm, gradient, VECTOR(dt_rank)),
      CHECK_ROW(b, dB_norm, gradient, VECTOR(d_state)), CHECK_ROW(b, dC_norm, gradient, VECTOR(d_state)),
      CHECK_ROW(b, dconv_initial, gradient, CONV_STATE), CHECK_ROW(b, dscan_initial, gradient, SCAN_STATE)));
  TRY(check_norm(c, "ddelta_norm", &b->ddelta_norm, "norm_delta", a->norm_delta));
  TRY(check_norm(c, "dB_norm", &b->dB_norm, "norm_B", a->norm_B));
  TRY(check_norm(c, "dC_norm", &b->dC_norm, "norm_C", a->norm_C));
  if ((check_present(&b->dB) && !check_present(&a->B)) || (check_present(&b->dC) && !check_present(&a->C)))
    return check_fail(c, "%s is given, but %s is missing", check_present(&a->B) ? "dC" : "dB",
                      check_present(&a->B) ? "C" : "B");
  if (!check_present(&a->out_proj) && (check_present(&b->dout_proj) || check_present(&b->dout_bias)))
    return check_fail(c, "%s is given, but out_proj is missing",
                      check_present(&b->dout_proj) ? "dout_proj" : "dout_bias");
  TRY(check_rows(c, "dout", &b->dout));
  return check_rest(c, a, &d, s);
}

/* ---- The plain sequence ---- */

/* Views of what a pass works on: the caller's where they are given, else of the workspace. */
typedef struct inner_pieces {
  clm_tensor u, delta, y;
  clm_tensor dbc, normed;          /* normed: absent without norms */
  clm_tensor du, ddelta, dy, ddbc; /* of the backward pass         */
  clm_tensor dnormed;              /* absent without norms         */
  clm_tensor B, C, dB, dC;         /* complex, of each step        */
  size_t bytes;
} inner_pieces;

static clm_tensor take(inner_pieces *p, clm_buffer *block, const mamba_inner_shape *s, int64_t width) {
  clm_tensor t = clm_tensor_of(block, p->bytes, s->dtype, 3, (const int64_t[]){s->batch, s->length, width});
  p->bytes += ((size_t)(s->batch * s->length * width) * clm_dtype_size(s->dtype) + 63) / 64 * 64;
  return t;
}

/* (batch, length, n_groups, d_state) of complex numbers. */
static clm_tensor take_complex(inner_pieces *p, clm_buffer *block, const mamba_inner_shape *s) {
  const int64_t shape[] = {s->batch, s->length, s->n_groups, s->d_state};
  clm_tensor t = clm_tensor_of(block, p->bytes, check_complex_of(s->dtype), 4, shape);
  p->bytes += ((size_t)clm_tensor_count(t) * clm_dtype_size(t.dtype) + 63) / 64 * 64;
  return t;
}

static inner_pieces lay_out(clm_buffer *block, const mamba_inner_shape *s, const clm_mamba_inner_args *a,
                            const clm_mamba_inner_backward_args *b) {
  inner_pieces p = {.u = a->u, .delta = a->delta, .dbc = a->dbc};
  bool norms = a->norm_delta || a->norm_B || a->norm_C;
  if (!check_present(&p.u)) p.u = take(&p, block, s, s->d_inner);
  if (!check_present(&p.dbc)) p.dbc = take(&p, block, s, s->features);
  if (!check_present(&p.delta)) p.delta = take(&p, block, s, s->d_inner);
  if (norms) p.normed = take(&p, block, s, s->features);
  if (s->complex && !s->B_fixed) p.B = take_complex(&p, block, s);
  if (s->complex && !s->C_fixed) p.C = take_complex(&p, block, s);
  if (!b) {
    p.y = check_present(&a->out_proj) ? take(&p, block, s, s->d_inner) : a->out;
    return p;
  }
  if (check_present(&b->dout_proj)) p.y = take(&p, block, s, s->d_inner);
  p.dy = check_present(&a->out_proj) ? take(&p, block, s, s->d_inner) : b->dout;
  p.du = take(&p, block, s, s->d_inner);
  p.ddelta = take(&p, block, s, s->d_inner);
  p.ddbc = take(&p, block, s, s->features);
  if (norms) p.dnormed = take(&p, block, s, s->features);
  if (s->complex && !s->B_fixed) p.dB = take_complex(&p, block, s);
  if (s->complex && !s->C_fixed) p.dC = take_complex(&p, block, s);
  return p;
}

/* (batch, length, n) as (batch length, n). */
static clm_tensor rows_of(clm_tensor t) {
  if (!check_present(&t)) return t;
  int64_t step = t.shape[1] == 1 ? t.stride[0] : t.stride[1];
  t.shape[0] *= t.shape[1];
  t.stride[0] = step;
  t.shape[1] = t.shape[2];
  t.stride[1] = t.stride[2];
  t.rank = 2;
  return t;
}

static clm_tensor columns(clm_tensor t, int64_t begin, int64_t count) {
  return check_present(&t) ? clm_tensor_slice(t, t.rank - 1, begin, count) : t;
}

static clm_tensor transposed(clm_tensor t) { return clm_tensor_transpose(t, 0, 1); }

enum { PART_DELTA, PART_B, PART_C, PARTS };

typedef struct inner_part {
  int64_t begin, width; /* columns of dbc; of each group */
  int64_t groups;
  bool norm;
  const clm_tensor *weight;
} inner_part;

static inner_part part_of(const mamba_inner_shape *s, const clm_mamba_inner_args *a, int part) {
  const int64_t numbers = s->d_state * (s->complex ? 2 : 1), of_B = s->B_fixed ? 0 : s->n_groups * numbers;
  switch (part) {
  case PART_DELTA: return (inner_part){0, s->dt_rank, 1, a->norm_delta, &a->delta_norm};
  case PART_B: return (inner_part){s->dt_rank, numbers, s->n_groups, a->norm_B, &a->B_norm};
  default: return (inner_part){s->dt_rank + of_B, numbers, s->n_groups, a->norm_C, &a->C_norm};
  }
}

/* Where a part stands once it may have been normed. */
static clm_tensor part_view(const inner_part *part, clm_tensor raw, clm_tensor normed) {
  return columns(part->norm ? normed : raw, part->begin, part->groups * part->width);
}

/* (batch, length, n_groups d_state) as (batch, length, n_groups, d_state). */
static clm_tensor by_group(clm_tensor t, const mamba_inner_shape *s) {
  if (!check_present(&t)) return t;
  t.rank = 4;
  t.shape[2] = s->n_groups;
  t.shape[3] = s->d_state;
  t.stride[3] = t.stride[2];
  t.stride[2] = s->d_state * t.stride[3];
  return t;
}

/* The B or C of a scan, or their gradients: `fixed` where B or C is given, else that part of dbc. */
static clm_tensor scan_input(const mamba_inner_shape *s, const clm_mamba_inner_args *a, int part, bool given,
                             const clm_tensor *fixed, const clm_tensor *complex, clm_tensor raw, clm_tensor normed) {
  if (given) return *fixed;
  if (s->complex) return *complex;
  const inner_part p = part_of(s, a, part);
  return by_group(part_view(&p, raw, normed), s);
}

/* Between a part of dbc, pairs of numbers, and the complex tensor that the scan takes or gives. */
static clm_status convert_part(clm_context *ctx, const mamba_inner_shape *s, const clm_mamba_inner_args *a, int part,
                               clm_tensor dbc, const clm_tensor *complex, bool back) {
  if (!check_present(complex)) return CLM_OK;
  const inner_part p = part_of(s, a, part);
  const clm_tensor own = part_view(&p, dbc, dbc);
  const clm_tensor pairs = clm_tensor_of(complex->buffer, complex->offset, check_real_of(s->dtype), 3, own.shape);
  return clm_cast(ctx, &(clm_cast_args){.x = back ? pairs : own, .out = back ? own : pairs});
}

static clm_norm_args norm_args(const clm_mamba_inner_args *a, const inner_pieces *p, const inner_part *part,
                               int64_t group) {
  int64_t begin = part->begin + group * part->width;
  return (clm_norm_args){.x = rows_of(columns(p->dbc, begin, part->width)),
                         .weight = *part->weight,
                         .out = rows_of(columns(p->normed, begin, part->width)),
                         .epsilon = a->norm_epsilon,
                         .kind = CLM_RMS_NORM};
}

static clm_status norm_parts(clm_context *ctx, const mamba_inner_shape *s, const clm_mamba_inner_args *a,
                             const inner_pieces *p) {
  for (int i = 0; i < PARTS; i++) {
    inner_part part = part_of(s, a, i);
    for (int64_t g = 0; part.norm && g < part.groups; g++) {
      clm_norm_args norm = norm_args(a, p, &part, g);
      TRY(clm_norm(ctx, &norm));
    }
  }
  return CLM_OK;
}

/* From the gradient of the normed parts to that of dbc. The groups share a weight: their gradients are added. */
static clm_status norm_parts_backward(clm_context *ctx, const mamba_inner_shape *s,
                                      const clm_mamba_inner_backward_args *b, const inner_pieces *p,
                                      const clm_tensor *sum) {
  const clm_tensor *const dweights[PARTS] = {&b->ddelta_norm, &b->dB_norm, &b->dC_norm};
  for (int i = 0; i < PARTS; i++) {
    inner_part part = part_of(s, &b->forward, i);
    for (int64_t g = 0; part.norm && g < part.groups; g++) {
      int64_t begin = part.begin + g * part.width;
      clm_tensor dweight = *dweights[i];
      if (g > 0 && check_present(&dweight)) dweight = columns(*sum, 0, part.width);
      TRY(clm_norm_backward(ctx, &(clm_norm_backward_args){.forward = norm_args(&b->forward, p, &part, g),
                                                           .dout = rows_of(columns(p->dnormed, begin, part.width)),
                                                           .dx = rows_of(columns(p->ddbc, begin, part.width)),
                                                           .dweight = dweight}));
      if (g > 0 && check_present(&dweight))
        TRY(clm_axpby(ctx, &(clm_axpby_args){.x = dweight, .out = *dweights[i], .alpha = 1, .beta = 1}));
    }
  }
  return CLM_OK;
}

static clm_causal_conv1d_args conv_args(const mamba_inner_shape *s, const clm_mamba_inner_args *a,
                                        const inner_pieces *p) {
  return (clm_causal_conv1d_args){.x = columns(a->xz, 0, s->d_inner),
                                  .weight = a->conv_weight,
                                  .bias = a->conv_bias,
                                  .initial_state = a->conv_initial,
                                  .out = p->u,
                                  .silu = true,
                                  .seq_idx = a->seq_idx,
                                  .cu_seqlens = a->cu_seqlens,
                                  .reverse = a->reverse};
}

static clm_selective_scan_args scan_args(const mamba_inner_shape *s, const clm_mamba_inner_args *a,
                                         const inner_pieces *p) {
  return (clm_selective_scan_args){.u = p->u,
                                   .delta = p->delta,
                                   .A = a->A,
                                   .B = scan_input(s, a, PART_B, s->B_fixed, &a->B, &p->B, p->dbc, p->normed),
                                   .C = scan_input(s, a, PART_C, s->C_fixed, &a->C, &p->C, p->dbc, p->normed),
                                   .D = a->D,
                                   .z = columns(a->xz, s->d_inner, s->d_inner),
                                   .delta_bias = a->delta_bias,
                                   .initial_state = a->scan_initial,
                                   .out = p->y,
                                   .delta_softplus = a->delta_softplus,
                                   .A_is_log = a->A_is_log,
                                   .seq_idx = a->seq_idx,
                                   .cu_seqlens = a->cu_seqlens,
                                   .reverse = a->reverse};
}

static clm_selective_scan_backward_args
scan_backward_args(const mamba_inner_shape *s, const clm_mamba_inner_backward_args *b, const inner_pieces *p) {
  const clm_mamba_inner_args *a = &b->forward;
  return (clm_selective_scan_backward_args){
      .forward = scan_args(s, &b->forward, p),
      .dout = p->dy,
      .dfinal_state = b->dscan_final,
      .du = p->du,
      .ddelta = p->ddelta,
      .dz = columns(b->dxz, s->d_inner, s->d_inner),
      .dA = b->dA,
      .dB = scan_input(s, a, PART_B, s->B_fixed, &b->dB, &p->dB, p->ddbc, p->dnormed),
      .dC = scan_input(s, a, PART_C, s->C_fixed, &b->dC, &p->dC, p->ddbc, p->dnormed),
      .dD = b->dD,
      .ddelta_bias = b->ddelta_bias,
      .dinitial_state = b->dscan_initial,
      .out = p->y};
}

/* u, dbc, the normed parts and delta: what is not `kept` yet. */
static clm_status run_inputs(clm_context *ctx, const mamba_inner_shape *s, const clm_mamba_inner_args *a,
                             const inner_pieces *p, const clm_tensor *conv_final, bool backward) {
  inner_part dt = part_of(s, a, PART_DELTA);
  if (!backward || !check_present(&a->u)) {
    clm_causal_conv1d_args conv = conv_args(s, a, p);
    if (conv_final) conv.final_state = *conv_final;
    TRY(clm_causal_conv1d(ctx, &conv));
  }
  if (!backward || !check_present(&a->dbc))
    TRY(clm_matmul(ctx, &(clm_matmul_args){.a = rows_of(p->u),
                                           .b = transposed(a->x_proj),
                                           .out = rows_of(p->dbc),
                                           .b_scale = a->x_proj_scale}));
  TRY(norm_parts(ctx, s, a, p));
  TRY(convert_part(ctx, s, a, PART_B, p->dbc, &p->B, false));
  TRY(convert_part(ctx, s, a, PART_C, p->dbc, &p->C, false));
  if (!backward || !check_present(&a->delta))
    TRY(clm_matmul(ctx, &(clm_matmul_args){.a = rows_of(part_view(&dt, p->dbc, p->normed)),
                                           .b = transposed(a->dt_proj),
                                           .out = rows_of(p->delta),
                                           .b_scale = a->dt_proj_scale}));
  return CLM_OK;
}

static clm_status run(clm_context *ctx, const mamba_inner_shape *s, const clm_mamba_inner_args *a,
                      const inner_pieces *p) {
  TRY(run_inputs(ctx, s, a, p, &a->conv_final, false));
  clm_selective_scan_args scan = scan_args(s, a, p);
  scan.final_state = a->scan_final;
  TRY(clm_selective_scan(ctx, &scan));
  if (!check_present(&a->out_proj)) return CLM_OK;
  return clm_matmul(ctx, &(clm_matmul_args){.a = rows_of(p->y),
                                            .b = transposed(a->out_proj),
                                            .bias = a->out_bias,
                                            .residual = rows_of(a->residual),
                                            .out = rows_of(a->out),
                                            .b_scale = a->out_proj_scale});
}

/* dweight = dout^T input, for a weight of (outputs, inputs). */
static clm_status weight_gradient(clm_context *ctx, clm_tensor dout, clm_tensor input, const clm_tensor *dweight) {
  if (!check_present(dweight)) return CLM_OK;
  return clm_matmul(ctx, &(clm_matmul_args){.a = transposed(rows_of(dout)), .b = rows_of(input), .out = *dweight});
}

static clm_status run_backward(clm_context *ctx, const mamba_inner_shape *s, const clm_mamba_inner_backward_args *b,
                               const inner_pieces *p, const clm_tensor *sum) {
  const clm_mamba_inner_args *a = &b->forward;
  inner_part dt = part_of(s, a, PART_DELTA);
  clm_tensor dt_in = part_view(&dt, p->dbc, p->normed), ddt = part_view(&dt, p->ddbc, p->dnormed);
  TRY(run_inputs(ctx, s, a, p, NULL, true));
  if (check_present(&a->out_proj))
    TRY(clm_matmul(ctx, &(clm_matmul_args){.a = rows_of(b->dout), .b = a->out_proj, .out = rows_of(p->dy)}));
  clm_selective_scan_backward_args scan = scan_backward_args(s, b, p);
  TRY(clm_selective_scan_backward(ctx, &scan));
  TRY(convert_part(ctx, s, a, PART_B, p->ddbc, &p->dB, true));
  TRY(convert_part(ctx, s, a, PART_C, p->ddbc, &p->dC, true));
  TRY(weight_gradient(ctx, b->dout, p->y, &b->dout_proj));
  if (check_present(&b->dout_bias))
    TRY(clm_column_sum(ctx, &(clm_column_sum_args){.x = rows_of(b->dout), .out = b->dout_bias}));
  TRY(clm_matmul(ctx, &(clm_matmul_args){.a = rows_of(p->ddelta), .b = a->dt_proj, .out = rows_of(ddt)}));
  TRY(weight_gradient(ctx, p->ddelta, dt_in, &b->ddt_proj));
  TRY(norm_parts_backward(ctx, s, b, p, sum));
  TRY(clm_matmul(
      ctx, &(clm_matmul_args){.a = rows_of(p->ddbc), .b = a->x_proj, .out = rows_of(p->du), .accumulate = true}));
  TRY(weight_gradient(ctx, p->ddbc, p->u, &b->dx_proj));
  return clm_causal_conv1d_backward(ctx, &(clm_causal_conv1d_backward_args){.forward = conv_args(s, a, p),
                                                                            .dout = p->du,
                                                                            .dfinal_state = b->dconv_final,
                                                                            .dx = columns(b->dxz, 0, s->d_inner),
                                                                            .dweight = b->dconv_weight,
                                                                            .dbias = b->dconv_bias,
                                                                            .dinitial_state = b->dconv_initial});
}

/* A piece's failure as one of the whole. */
static clm_status failed_inside(clm_context *ctx, const char *op, clm_status status) {
  char sentence[sizeof ctx->error];
  memcpy(sentence, ctx->error, sizeof sentence);
  return status ? context_fail(ctx, status, "%s: %s", op, sentence) : CLM_OK;
}

/* Both are gone through twice, first without a kernel: a piece that the backend lacks is known before any is run. */
static clm_status plain(clm_context *ctx, const mamba_inner_shape *s, const clm_mamba_inner_args *a) {
  clm_buffer *block;
  TRY(context_enter(ctx, lay_out(NULL, s, a, NULL).bytes, &block));
  inner_pieces p = lay_out(block, s, a, NULL);
  ctx->rehearsing = true;
  clm_status status = run(ctx, s, a, &p);
  ctx->rehearsing = false;
  if (status == CLM_OK) status = run(ctx, s, a, &p);
  context_leave(ctx);
  TRY(failed_inside(ctx, "mamba_inner", status));
  context_explain(ctx, "mamba_inner: convolution, products and scan one after another");
  return CLM_OK;
}

/* Behind the pieces: gradients of a norm's weight that are still to be added. */
static size_t sum_bytes(const mamba_inner_shape *s) { return (size_t)s->d_state * sizeof(double); }

static clm_status plain_backward(clm_context *ctx, const mamba_inner_shape *s,
                                 const clm_mamba_inner_backward_args *b) {
  clm_buffer *block;
  TRY(context_enter(ctx, lay_out(NULL, s, &b->forward, b).bytes + sum_bytes(s), &block));
  inner_pieces p = lay_out(block, s, &b->forward, b);
  clm_tensor sum = clm_tensor_of(block, p.bytes, check_real_of(s->dtype), 1, &s->d_state);
  ctx->rehearsing = true;
  clm_status status = run_backward(ctx, s, b, &p, &sum);
  ctx->rehearsing = false;
  if (status == CLM_OK) status = run_backward(ctx, s, b, &p, &sum);
  context_leave(ctx);
  TRY(failed_inside(ctx, "mamba_inner_backward", status));
  context_explain(ctx, "mamba_inner_backward: %s, then the gradients one after another",
                  check_present(&b->forward.u) && check_present(&b->forward.delta)
                      ? "nothing large recomputed"
                      : "convolution or step sizes recomputed");
  return CLM_OK;
}

/* Those that are not handed on to an operation as they are, which does the same. */
static ops_halves halves_of(clm_mamba_inner_args *a) {
  ops_halves h = {.count = 0};
  halves_add(&h, &a->out_bias, false);
  return h;
}

static ops_halves halves_of_backward(clm_mamba_inner_backward_args *b) {
  ops_halves h = {.count = 0};
  clm_tensor *const sums[] = {&b->dout_bias, &b->ddelta_norm, &b->dB_norm, &b->dC_norm};
  for (size_t i = 0; i < sizeof sums / sizeof *sums; i++) halves_add(&h, sums[i], true);
  return h;
}

clm_status clm_mamba_inner(clm_context *context, const clm_mamba_inner_args *args) {
  checker c;
  mamba_inner_shape s;
  TRY(check_begin(&c, context, "mamba_inner", args));
  TRY(check(&c, args, &s));
  clm_mamba_inner_args ready = *args;
  ops_halves halves = halves_of(&ready);
  TRY(halves_begin(context, &halves));
  clm_status status = CLM_UNSUPPORTED;
  if (context->ops.mamba_inner) status = context->ops.mamba_inner(context, &s, &ready);
  return halves_end(context, &halves, status == CLM_UNSUPPORTED ? plain(context, &s, &ready) : status);
}

clm_status clm_mamba_inner_backward(clm_context *context, const clm_mamba_inner_backward_args *args) {
  checker c;
  mamba_inner_shape s;
  TRY(check_begin(&c, context, "mamba_inner_backward", args));
  TRY(check_backward(&c, args, &s));
  if (c.written == 0) return CLM_OK;
  clm_mamba_inner_backward_args ready = *args;
  ops_halves halves = halves_of_backward(&ready);
  TRY(halves_begin(context, &halves));
  clm_status status = CLM_UNSUPPORTED;
  if (context->ops.mamba_inner_backward) status = context->ops.mamba_inner_backward(context, &s, &ready);
  return halves_end(context, &halves, status == CLM_UNSUPPORTED ? plain_backward(context, &s, &ready) : status);
}

/* ---- Workspace ---- */

/* The scan is asked with views of a buffer that stands for the workspace and has no memory yet. */
size_t clm_mamba_inner_workspace_size(clm_context *context, const clm_mamba_inner_args *args) {
  checker c;
  mamba_inner_shape s;
  if (check_begin(&c, context, "mamba_inner", args) || check(&c, args, &s)) return 0;
  clm_mamba_inner_args ready = *args;
  ops_halves halves = halves_of(&ready);
  const size_t small = halves_pretend(&halves), bytes = lay_out(NULL, &s, &ready, NULL).bytes;
  clm_buffer block = {.context = context, .bytes = bytes};
  inner_pieces p = lay_out(&block, &s, &ready, NULL);
  clm_selective_scan_args scan = scan_args(&s, &ready, &p);
  scan.final_state = args->scan_final;
  return small + bytes + clm_selective_scan_workspace_size(context, &scan);
}

size_t clm_mamba_inner_backward_workspace_size(clm_context *context, const clm_mamba_inner_backward_args *args) {
  checker c;
  mamba_inner_shape s;
  if (check_begin(&c, context, "mamba_inner_backward", args) || check_backward(&c, args, &s)) return 0;
  clm_mamba_inner_backward_args ready = *args;
  ops_halves halves = halves_of_backward(&ready);
  const size_t small = halves_pretend(&halves), bytes = lay_out(NULL, &s, &args->forward, args).bytes + sum_bytes(&s);
  clm_buffer block = {.context = context, .bytes = bytes};
  inner_pieces p = lay_out(&block, &s, &args->forward, args);
  clm_selective_scan_backward_args scan = scan_backward_args(&s, args, &p);
  return small + bytes + clm_selective_scan_backward_workspace_size(context, &scan);
}
