/* The inside of a Mamba block: arguments, and the plain sequence of operations where a backend has nothing better. */
#include "core/tensor_list.h"
#include "ops/sequences.h"
#include "ops/view.h"
#include "ops/widened.h"
#include <string.h>

/* xz shows batch, length and 2 d_inner before any of the weights is looked at. */
static const op_dim dims[] = {SEQUENCE_DIMS,
                              OP_DIM('B', "2 d_inner"),
                              OP_DIM('d', "d_inner", .apart = true),
                              OP_DIM('w', "width"),
                              OP_DIM('h', "width - 1", .of = 'w', .plus = -1),
                              OP_DIM('f', "features", .apart = true),
                              OP_DIM('r', "dt_rank", .apart = true),
                              OP_DIM('n', "d_state"),
                              OP_DIM('m', "d_model", .apart = true),
                              {0}};

/* clang-format off */
OP_FORWARD_FIRST(mamba_inner);
static const op_tensor inputs[] = {
    OP_TENSOR(clm_mamba_inner_args, xz, OP_IN, OP_IS_FLOAT, "b l B"),
    SEQUENCE_TENSORS(clm_mamba_inner_args),
    OP_TENSOR(clm_mamba_inner_args, conv_weight, OP_IN, OP_IS_WEIGHT, "d w"),
    OP_TENSOR(clm_mamba_inner_args, conv_bias, OP_IN, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL),
};

#define IS_MATRIX {.set = OP_STORAGE | OP_DTYPE(CLM_I8)}
static const op_tensor matrices[] = {
    OP_TENSOR(clm_mamba_inner_args, x_proj, OP_IN, IS_MATRIX, "f d"),
    OP_TENSOR(clm_mamba_inner_args, dt_proj, OP_IN, IS_MATRIX, "d r"),
    OP_TENSOR(clm_mamba_inner_args, out_proj, OP_IN, IS_MATRIX, "m d", .flags = OP_OPTIONAL),
};

static const op_tensor matrices_backward[] = {
    OP_TENSOR(clm_mamba_inner_args, x_proj, OP_IN, OP_IS_STORAGE, "f d"),
    OP_TENSOR(clm_mamba_inner_args, dt_proj, OP_IN, OP_IS_STORAGE, "d r"),
    OP_TENSOR(clm_mamba_inner_args, out_proj, OP_IN, OP_IS_STORAGE, "m d", .flags = OP_OPTIONAL),
};

static const op_tensor parameters[] = {
    OP_TENSOR(clm_mamba_inner_args, delta_bias, OP_IN, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_mamba_inner_args, A, OP_IN, OP_IS_RATE, "d n"),
    OP_TENSOR(clm_mamba_inner_args, B, OP_IN, OP_IS_NUMBER_WEIGHT, "d n", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_mamba_inner_args, C, OP_IN, OP_IS_NUMBER_WEIGHT, "d n", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_mamba_inner_args, D, OP_IN, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_mamba_inner_args, delta_norm, OP_IN, OP_IS_WEIGHT, "r", .flags = OP_OPTIONAL, .when = "norm_delta"),
    OP_TENSOR(clm_mamba_inner_args, B_norm, OP_IN, OP_IS_WEIGHT, "n", .flags = OP_OPTIONAL, .when = "norm_B"),
    OP_TENSOR(clm_mamba_inner_args, C_norm, OP_IN, OP_IS_WEIGHT, "n", .flags = OP_OPTIONAL, .when = "norm_C"),
    OP_TENSOR(clm_mamba_inner_args, conv_initial, OP_IN, OP_IS_WEIGHT, "s d h", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_mamba_inner_args, scan_initial, OP_IN, OP_IS_NUMBER, "s d n", .flags = OP_OPTIONAL),
};

/* u, delta and dbc are kept for the backward pass. What an operation takes as it is stands here without OP_WIDENED:
 * that operation widens it. */
static const op_tensor outputs[] = {
    OP_TENSOR(clm_mamba_inner_args, u, OP_OUT, OP_AS("xz"), "b l d", .flags = OP_OPTIONAL | OP_ROWS),
    OP_TENSOR(clm_mamba_inner_args, delta, OP_OUT, OP_AS("xz"), "b l d", .flags = OP_OPTIONAL | OP_ROWS),
    OP_TENSOR(clm_mamba_inner_args, dbc, OP_OUT, OP_AS("xz"), "b l f", .flags = OP_OPTIONAL | OP_ROWS),
    OP_TENSOR(clm_mamba_inner_args, out_bias, OP_IN, OP_IS_WEIGHT, "m",
              .flags = OP_OPTIONAL | OP_WIDENED, .with = "out_proj"),
    OP_TENSOR(clm_mamba_inner_args, out, OP_OUT, OP_IS_STORAGE, "b l m", .flags = OP_ROWS, .may_be = "residual"),
    OP_TENSOR(clm_mamba_inner_args, residual, OP_IN, OP_AS("out"), "b l m",
              .flags = OP_OPTIONAL | OP_ROWS, .with = "out_proj"),
    OP_TENSOR(clm_mamba_inner_args, conv_final, OP_OUT, OP_IS_WEIGHT, "s d h",
              .flags = OP_OPTIONAL, .may_be = "conv_initial"),
    OP_TENSOR(clm_mamba_inner_args, scan_final, OP_OUT, OP_IS_NUMBER, "s d n",
              .flags = OP_OPTIONAL, .may_be = "scan_initial"),
    OP_TENSOR(clm_mamba_inner_args, x_proj_scale, OP_IN, OP_IS_REAL, "f", .flags = OP_OPTIONAL, .scale_of = "x_proj"),
    OP_TENSOR(clm_mamba_inner_args, dt_proj_scale, OP_IN, OP_IS_REAL, "d",
              .flags = OP_OPTIONAL, .scale_of = "dt_proj"),
    OP_TENSOR(clm_mamba_inner_args, out_proj_scale, OP_IN, OP_IS_REAL, "m",
              .flags = OP_OPTIONAL, .scale_of = "out_proj"),
};

static const op_tensor gradients[] = {
    OP_TENSOR(clm_mamba_inner_args, u, OP_IN, OP_AS("xz"), "b l d", .flags = OP_OPTIONAL | OP_ROWS),
    OP_TENSOR(clm_mamba_inner_args, delta, OP_IN, OP_AS("xz"), "b l d", .flags = OP_OPTIONAL | OP_ROWS),
    OP_TENSOR(clm_mamba_inner_args, dbc, OP_IN, OP_AS("xz"), "b l f", .flags = OP_OPTIONAL | OP_ROWS),
    OP_TENSOR(clm_mamba_inner_backward_args, dout, OP_IN, OP_IS_STORAGE, "b l m", .flags = OP_ROWS),
    OP_TENSOR(clm_mamba_inner_backward_args, dconv_final, OP_IN, OP_IS_WEIGHT, "s d h", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_mamba_inner_backward_args, dscan_final, OP_IN, OP_IS_NUMBER, "s d n", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_mamba_inner_backward_args, dxz, OP_OUT, OP_AS("xz"), "b l B", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_mamba_inner_backward_args, dconv_weight, OP_OUT, OP_IS_WEIGHT, "d w", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_mamba_inner_backward_args, dconv_bias, OP_OUT, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_mamba_inner_backward_args, dx_proj, OP_OUT, OP_IS_WEIGHT, "f d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_mamba_inner_backward_args, ddt_proj, OP_OUT, OP_IS_WEIGHT, "d r", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_mamba_inner_backward_args, ddelta_bias, OP_OUT, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_mamba_inner_backward_args, dA, OP_OUT, OP_IS_NUMBER_WEIGHT, "d n", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_mamba_inner_backward_args, dB, OP_OUT, OP_IS_NUMBER_WEIGHT, "d n",
              .flags = OP_OPTIONAL, .with = "B"),
    OP_TENSOR(clm_mamba_inner_backward_args, dC, OP_OUT, OP_IS_NUMBER_WEIGHT, "d n",
              .flags = OP_OPTIONAL, .with = "C"),
    OP_TENSOR(clm_mamba_inner_backward_args, dD, OP_OUT, OP_IS_WEIGHT, "d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_mamba_inner_backward_args, dout_proj, OP_OUT, OP_IS_WEIGHT, "m d",
              .flags = OP_OPTIONAL, .with = "out_proj"),
    OP_TENSOR(clm_mamba_inner_backward_args, dout_bias, OP_OUT, OP_IS_WEIGHT, "m",
              .flags = OP_OPTIONAL | OP_WIDENED, .with = "out_proj"),
    OP_TENSOR(clm_mamba_inner_backward_args, ddelta_norm, OP_OUT, OP_IS_WEIGHT, "r",
              .flags = OP_OPTIONAL | OP_WIDENED, .when = "norm_delta"),
    OP_TENSOR(clm_mamba_inner_backward_args, dB_norm, OP_OUT, OP_IS_WEIGHT, "n",
              .flags = OP_OPTIONAL | OP_WIDENED, .when = "norm_B"),
    OP_TENSOR(clm_mamba_inner_backward_args, dC_norm, OP_OUT, OP_IS_WEIGHT, "n",
              .flags = OP_OPTIONAL | OP_WIDENED, .when = "norm_C"),
    OP_TENSOR(clm_mamba_inner_backward_args, dconv_initial, OP_OUT, OP_IS_WEIGHT, "s d h", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_mamba_inner_backward_args, dscan_initial, OP_OUT, OP_IS_NUMBER, "s d n", .flags = OP_OPTIONAL),
};

static const op_scalar scalars[] = {
    OP_SCALAR(clm_mamba_inner_args, norm_delta, OP_BOOL),
    OP_SCALAR(clm_mamba_inner_args, norm_B, OP_BOOL),
    OP_SCALAR(clm_mamba_inner_args, norm_C, OP_BOOL),
    OP_SCALAR(clm_mamba_inner_args, delta_softplus, OP_BOOL),
    OP_SCALAR(clm_mamba_inner_args, A_is_log, OP_BOOL),
    OP_SCALAR(clm_mamba_inner_args, reverse, OP_BOOL),
    OP_SCALAR(clm_mamba_inner_args, norm_epsilon, OP_NUMBER, OP_NOT_NEGATIVE),
    OP_SCALAR(clm_mamba_inner_args, math, OP_CHOICE, .high = CLM_MATH_F16 + 1),
    {0},
};
/* clang-format on */

const op_table mamba_inner_table = {
    .name = "mamba_inner",
    .main = "xz",
    .rate = "A",
    .dims = dims,
    .parts = {OP_PART(inputs), OP_PART(matrices), OP_PART(parameters), OP_PART(outputs)},
    .scalars = scalars};
const op_table mamba_inner_backward_table = {
    .name = "mamba_inner_backward",
    .main = "xz",
    .rate = "A",
    .dims = dims,
    .parts = {OP_PART(inputs), OP_PART(matrices_backward), OP_PART(parameters), OP_PART(gradients)},
    .scalars = scalars};

/* Norms are of what x_proj makes. */
static clm_status check_norms(const op_call *c, const clm_mamba_inner_args *a) {
  const struct {
    const char *norm, *fixed;
    bool set;
    const clm_tensor *given;
  } norms[] = {{"norm_delta", NULL, a->norm_delta, NULL},
               {"norm_B", "B", a->norm_B, &a->B},
               {"norm_C", "C", a->norm_C, &a->C}};
  for (size_t i = 0; i < sizeof norms / sizeof *norms; i++) {
    if (!norms[i].set) continue;
    if (c->complex) return op_fail(c, "%s is set, expected no norms as A is complex", norms[i].norm);
    if (norms[i].fixed && op_present(norms[i].given))
      return op_fail(c, "%s is set, but %s is given", norms[i].norm, norms[i].fixed);
  }
  return CLM_OK;
}

/* The scan writes out, and reads its gradient, where there is no out_proj. */
static clm_status check_out(const op_call *c, const clm_mamba_inner_args *a, const clm_tensor *out,
                            const char *name) {
  if (op_present(&a->out_proj) || out->dtype == c->main) return CLM_OK;
  return op_fail(c, "%s is %s, expected %s as xz without out_proj", name, clm_dtype_name(out->dtype),
                 clm_dtype_name(c->main));
}

/* n_groups, from what x_proj's rows are besides dt's. */
static clm_status check_groups(const op_call *c, const clm_mamba_inner_args *a, int64_t *groups) {
  const int varying = !op_present(&a->B) + !op_present(&a->C);
  const int64_t d_state = op_length(c, 'n'), features = op_length(c, 'f'), dt_rank = op_length(c, 'r');
  const int64_t parts = features - dt_rank, all = varying * d_state * (c->complex ? 2 : 1);
  *groups = all ? parts / all : 1;
  if (all ? parts > 0 && parts % all == 0 : parts == 0) return CLM_OK;
  if (!varying)
    return op_fail(c, "x_proj has features %lld, expected dt_rank %lld as B and C are given", (long long)features,
                   (long long)dt_rank);
  return op_fail(c, "x_proj has features %lld, expected dt_rank %lld and %lld n_groups times d_state %lld",
                 (long long)features, (long long)dt_rank, (long long)(all / d_state), (long long)d_state);
}

/* What the table cannot say. */
static clm_status shape_of(const op_call *c, const clm_mamba_inner_args *a, mamba_inner_shape *s) {
  int64_t groups;
  const int64_t both = op_length(c, 'B'), d_inner = op_length(c, 'd'), d_model = op_length(c, 'm');
  if (both != 2 * d_inner)
    return op_fail(c, "xz has 2 d_inner %lld, expected %lld as conv_weight has d_inner %lld", (long long)both,
                   (long long)(2 * d_inner), (long long)d_inner);
  TRY(check_groups(c, a, &groups));
  TRY(check_norms(c, a));
  if (d_inner % groups)
    return op_fail(c, "x_proj has n_groups %lld, which does not divide d_inner %lld", (long long)groups,
                   (long long)d_inner);
  if (!op_present(&a->out_proj) && d_model != d_inner)
    return op_fail(c, "out_proj is missing, expected d_model %lld to be d_inner %lld without it", (long long)d_model,
                   (long long)d_inner);
  if (op_length(c, 'w') > 32)
    return op_fail(c, "conv_weight has width %lld, expected 1 to 32", (long long)op_length(c, 'w'));
  TRY(check_sequences(c, "xz"));
  *s = (mamba_inner_shape){.batch = op_length(c, 'b'),
                           .length = op_length(c, 'l'),
                           .d_inner = d_inner,
                           .d_state = op_length(c, 'n'),
                           .dt_rank = op_length(c, 'r'),
                           .n_groups = groups,
                           .d_model = d_model,
                           .features = op_length(c, 'f'),
                           .B_fixed = op_present(&a->B),
                           .C_fixed = op_present(&a->C),
                           .complex = c->complex,
                           .dtype = c->main};
  return CLM_OK;
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
  return tensor_place(block, &p->bytes, s->dtype, 3, (const int64_t[]){s->batch, s->length, width});
}

/* (batch, length, n_groups, d_state) of complex numbers. */
static clm_tensor take_complex(inner_pieces *p, clm_buffer *block, const mamba_inner_shape *s) {
  const int64_t shape[] = {s->batch, s->length, s->n_groups, s->d_state};
  return tensor_place(block, &p->bytes, op_complex_of(s->dtype), 4, shape);
}

static inner_pieces lay_out(clm_buffer *block, const mamba_inner_shape *s, const clm_mamba_inner_args *a,
                            const clm_mamba_inner_backward_args *b) {
  inner_pieces p = {.u = a->u, .delta = a->delta, .dbc = a->dbc};
  bool norms = a->norm_delta || a->norm_B || a->norm_C;
  if (!op_present(&p.u)) p.u = take(&p, block, s, s->d_inner);
  if (!op_present(&p.dbc)) p.dbc = take(&p, block, s, s->features);
  if (!op_present(&p.delta)) p.delta = take(&p, block, s, s->d_inner);
  if (norms) p.normed = take(&p, block, s, s->features);
  if (s->complex && !s->B_fixed) p.B = take_complex(&p, block, s);
  if (s->complex && !s->C_fixed) p.C = take_complex(&p, block, s);
  if (!b) {
    p.y = op_present(&a->out_proj) ? take(&p, block, s, s->d_inner) : a->out;
    return p;
  }
  if (op_present(&b->dout_proj)) p.y = take(&p, block, s, s->d_inner);
  p.dy = op_present(&a->out_proj) ? take(&p, block, s, s->d_inner) : b->dout;
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
  if (!op_present(&t)) return t;
  int64_t step = t.shape[1] == 1 ? t.stride[0] : t.stride[1];
  t.shape[0] *= t.shape[1];
  t.stride[0] = step;
  t.shape[1] = t.shape[2];
  t.stride[1] = t.stride[2];
  t.rank = 2;
  return t;
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
  return view_columns(part->norm ? normed : raw, part->begin, part->groups * part->width);
}

/* (batch, length, n_groups d_state) as (batch, length, n_groups, d_state). */
static clm_tensor by_group(clm_tensor t, const mamba_inner_shape *s) {
  if (!op_present(&t)) return t;
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
  if (!op_present(complex)) return CLM_OK;
  const inner_part p = part_of(s, a, part);
  const clm_tensor own = part_view(&p, dbc, dbc);
  const clm_tensor pairs = clm_tensor_of(complex->buffer, complex->offset, op_real_of(s->dtype), 3, own.shape);
  return clm_cast(ctx, &(clm_cast_args){.x = back ? pairs : own, .out = back ? own : pairs});
}

static clm_norm_args norm_args(const clm_mamba_inner_args *a, const inner_pieces *p, const inner_part *part,
                               int64_t group) {
  int64_t begin = part->begin + group * part->width;
  return (clm_norm_args){.x = rows_of(view_columns(p->dbc, begin, part->width)),
                         .weight = *part->weight,
                         .out = rows_of(view_columns(p->normed, begin, part->width)),
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
      if (g > 0 && op_present(&dweight)) dweight = view_columns(*sum, 0, part.width);
      TRY(clm_norm_backward(ctx,
                            &(clm_norm_backward_args){.forward = norm_args(&b->forward, p, &part, g),
                                                      .dout = rows_of(view_columns(p->dnormed, begin, part.width)),
                                                      .dx = rows_of(view_columns(p->ddbc, begin, part.width)),
                                                      .dweight = dweight}));
      if (g > 0 && op_present(&dweight))
        TRY(clm_axpby(ctx, &(clm_axpby_args){.x = dweight, .out = *dweights[i], .alpha = 1, .beta = 1}));
    }
  }
  return CLM_OK;
}

static clm_causal_conv1d_args conv_args(const mamba_inner_shape *s, const clm_mamba_inner_args *a,
                                        const inner_pieces *p) {
  return (clm_causal_conv1d_args){.x = view_columns(a->xz, 0, s->d_inner),
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
                                   .z = view_columns(a->xz, s->d_inner, s->d_inner),
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
      .dz = view_columns(b->dxz, s->d_inner, s->d_inner),
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
  if (!backward || !op_present(&a->u)) {
    clm_causal_conv1d_args conv = conv_args(s, a, p);
    if (conv_final) conv.final_state = *conv_final;
    TRY(clm_causal_conv1d(ctx, &conv));
  }
  if (!backward || !op_present(&a->dbc))
    TRY(clm_matmul(ctx, &(clm_matmul_args){.a = rows_of(p->u),
                                           .b = transposed(a->x_proj),
                                           .out = rows_of(p->dbc),
                                           .b_scale = a->x_proj_scale,
                                           .math = a->math}));
  TRY(norm_parts(ctx, s, a, p));
  TRY(convert_part(ctx, s, a, PART_B, p->dbc, &p->B, false));
  TRY(convert_part(ctx, s, a, PART_C, p->dbc, &p->C, false));
  if (!backward || !op_present(&a->delta))
    TRY(clm_matmul(ctx, &(clm_matmul_args){.a = rows_of(part_view(&dt, p->dbc, p->normed)),
                                           .b = transposed(a->dt_proj),
                                           .out = rows_of(p->delta),
                                           .b_scale = a->dt_proj_scale,
                                           .math = a->math}));
  return CLM_OK;
}

static clm_status run(clm_context *ctx, const mamba_inner_shape *s, const clm_mamba_inner_args *a,
                      const inner_pieces *p) {
  TRY(run_inputs(ctx, s, a, p, &a->conv_final, false));
  clm_selective_scan_args scan = scan_args(s, a, p);
  scan.final_state = a->scan_final;
  TRY(clm_selective_scan(ctx, &scan));
  if (!op_present(&a->out_proj)) return CLM_OK;
  return clm_matmul(ctx, &(clm_matmul_args){.a = rows_of(p->y),
                                            .b = transposed(a->out_proj),
                                            .bias = a->out_bias,
                                            .residual = rows_of(a->residual),
                                            .out = rows_of(a->out),
                                            .b_scale = a->out_proj_scale,
                                            .math = a->math});
}

/* dweight = dout^T input, for a weight of (outputs, inputs). */
static clm_status weight_gradient(clm_context *ctx, clm_math math, clm_tensor dout, clm_tensor input,
                                  const clm_tensor *dweight) {
  if (!op_present(dweight)) return CLM_OK;
  return clm_matmul(
      ctx, &(clm_matmul_args){.a = transposed(rows_of(dout)), .b = rows_of(input), .out = *dweight, .math = math});
}

static clm_status run_backward(clm_context *ctx, const mamba_inner_shape *s, const clm_mamba_inner_backward_args *b,
                               const inner_pieces *p, const clm_tensor *sum) {
  const clm_mamba_inner_args *a = &b->forward;
  inner_part dt = part_of(s, a, PART_DELTA);
  clm_tensor dt_in = part_view(&dt, p->dbc, p->normed), ddt = part_view(&dt, p->ddbc, p->dnormed);
  TRY(run_inputs(ctx, s, a, p, NULL, true));
  if (op_present(&a->out_proj))
    TRY(clm_matmul(
        ctx, &(clm_matmul_args){.a = rows_of(b->dout), .b = a->out_proj, .out = rows_of(p->dy), .math = a->math}));
  clm_selective_scan_backward_args scan = scan_backward_args(s, b, p);
  TRY(clm_selective_scan_backward(ctx, &scan));
  TRY(convert_part(ctx, s, a, PART_B, p->ddbc, &p->dB, true));
  TRY(convert_part(ctx, s, a, PART_C, p->ddbc, &p->dC, true));
  TRY(weight_gradient(ctx, a->math, b->dout, p->y, &b->dout_proj));
  if (op_present(&b->dout_bias))
    TRY(clm_column_sum(ctx, &(clm_column_sum_args){.x = rows_of(b->dout), .out = b->dout_bias}));
  TRY(clm_matmul(ctx,
                 &(clm_matmul_args){.a = rows_of(p->ddelta), .b = a->dt_proj, .out = rows_of(ddt), .math = a->math}));
  TRY(weight_gradient(ctx, a->math, p->ddelta, dt_in, &b->ddt_proj));
  TRY(norm_parts_backward(ctx, s, b, p, sum));
  TRY(clm_matmul(
      ctx, &(clm_matmul_args){
               .a = rows_of(p->ddbc), .b = a->x_proj, .out = rows_of(p->du), .accumulate = true, .math = a->math}));
  TRY(weight_gradient(ctx, a->math, p->ddbc, p->u, &b->dx_proj));
  return clm_causal_conv1d_backward(ctx, &(clm_causal_conv1d_backward_args){.forward = conv_args(s, a, p),
                                                                            .dout = p->du,
                                                                            .dfinal_state = b->dconv_final,
                                                                            .dx = view_columns(b->dxz, 0, s->d_inner),
                                                                            .dweight = b->dconv_weight,
                                                                            .dbias = b->dconv_bias,
                                                                            .dinitial_state = b->dconv_initial});
}

/* A piece's failure as one of the whole. */
static clm_status failed_inside(clm_context *ctx, const char *op, clm_status status) {
  char message[sizeof ctx->error];
  memcpy(message, ctx->error, sizeof message);
  return status ? context_fail(ctx, status, "%s: %s", op, message) : CLM_OK;
}

/* Both go through their pieces twice, first as a check: a piece that the backend lacks is reported before any runs.
 */
static clm_status plain(clm_context *ctx, const mamba_inner_shape *s, const clm_mamba_inner_args *a) {
  clm_buffer *block;
  TRY(context_enter(ctx, lay_out(NULL, s, a, NULL).bytes, &block));
  inner_pieces p = lay_out(block, s, a, NULL);
  const context_calls calls = ctx->calls;
  ctx->calls = CALLS_CHECK;
  clm_status status = run(ctx, s, a, &p);
  ctx->calls = calls;
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
  clm_tensor sum = clm_tensor_of(block, p.bytes, op_real_of(s->dtype), 1, &s->d_state);
  const context_calls calls = ctx->calls;
  ctx->calls = CALLS_CHECK;
  clm_status status = run_backward(ctx, s, b, &p, &sum);
  ctx->calls = calls;
  if (status == CLM_OK) status = run_backward(ctx, s, b, &p, &sum);
  context_leave(ctx);
  TRY(failed_inside(ctx, "mamba_inner_backward", status));
  context_explain(ctx, "mamba_inner_backward: %s, then the gradients one after another",
                  op_present(&b->forward.u) && op_present(&b->forward.delta)
                      ? "nothing large recomputed"
                      : "convolution or step sizes recomputed");
  return CLM_OK;
}

/* What backend functions get: the arguments checked, in a copy. */
static clm_status begin(op_call *c, clm_context *context, const clm_mamba_inner_args *args, mamba_inner_shape *s,
                        clm_mamba_inner_args *ready) {
  TRY(op_check(c, context, &mamba_inner_table, args));
  TRY(shape_of(c, args, s));
  TRY(check_out(c, args, &args->out, "out"));
  *ready = *args;
  return CLM_OK;
}

static clm_status begin_backward(op_call *c, clm_context *context, const clm_mamba_inner_backward_args *args,
                                 mamba_inner_shape *s, clm_mamba_inner_backward_args *ready) {
  TRY(op_check(c, context, &mamba_inner_backward_table, args));
  TRY(shape_of(c, &args->forward, s));
  TRY(check_out(c, &args->forward, &args->dout, "dout"));
  *ready = *args;
  return CLM_OK;
}

clm_status clm_mamba_inner(clm_context *context, const clm_mamba_inner_args *args) {
  op_call c;
  mamba_inner_shape s;
  clm_mamba_inner_args ready;
  TRY(begin(&c, context, args, &s, &ready));
  ops_widened widened = widened_of(&c, &ready);
  TRY(widened_begin(context, &widened));
  clm_status status = CLM_UNSUPPORTED;
  if (op_slots(context)->mamba_inner) status = op_slots(context)->mamba_inner(context, &s, &ready);
  return widened_end(context, &widened, status == CLM_UNSUPPORTED ? plain(context, &s, &ready) : status);
}

clm_status clm_mamba_inner_backward(clm_context *context, const clm_mamba_inner_backward_args *args) {
  op_call c;
  mamba_inner_shape s;
  clm_mamba_inner_backward_args ready;
  TRY(begin_backward(&c, context, args, &s, &ready));
  if (c.written == 0) return CLM_OK;
  ops_widened widened = widened_of(&c, &ready);
  TRY(widened_begin(context, &widened));
  clm_status status = CLM_UNSUPPORTED;
  if (op_slots(context)->mamba_inner_backward) status = op_slots(context)->mamba_inner_backward(context, &s, &ready);
  return widened_end(context, &widened, status == CLM_UNSUPPORTED ? plain_backward(context, &s, &ready) : status);
}

/* ---- Workspace ---- */

/* The scan is asked with views of a buffer that stands for the workspace and has no memory yet. */
size_t clm_mamba_inner_workspace_size(clm_context *context, const clm_mamba_inner_args *args) {
  op_call c;
  mamba_inner_shape s;
  clm_mamba_inner_args ready;
  if (begin(&c, context, args, &s, &ready)) return 0;
  ops_widened widened = widened_of(&c, &ready);
  const size_t small = widened_assume(&widened), bytes = lay_out(NULL, &s, &ready, NULL).bytes;
  clm_buffer block = {.context = context, .bytes = bytes};
  inner_pieces p = lay_out(&block, &s, &ready, NULL);
  clm_selective_scan_args scan = scan_args(&s, &ready, &p);
  scan.final_state = args->scan_final;
  return small + bytes + clm_selective_scan_workspace_size(context, &scan);
}

size_t clm_mamba_inner_backward_workspace_size(clm_context *context, const clm_mamba_inner_backward_args *args) {
  op_call c;
  mamba_inner_shape s;
  clm_mamba_inner_backward_args ready;
  if (begin_backward(&c, context, args, &s, &ready)) return 0;
  ops_widened widened = widened_of(&c, &ready);
  const size_t small = widened_assume(&widened),
               bytes = lay_out(NULL, &s, &args->forward, args).bytes + sum_bytes(&s);
  clm_buffer block = {.context = context, .bytes = bytes};
  inner_pieces p = lay_out(&block, &s, &args->forward, args);
  clm_selective_scan_backward_args scan = scan_backward_args(&s, args, &p);
  return small + bytes + clm_selective_scan_backward_workspace_size(context, &scan);
}
