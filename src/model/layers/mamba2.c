/* The Mamba-2 mixer (Dao & Gu 2024, section 7): in_proj gives the gate, the inputs of one convolution over x, B and
 * C, and a step size for each head; then the scan over heads, the gated norm and out_proj. Its sizes are members of
 * the model's configuration. Rows of in_proj, and columns of what it gives:
 *
 *   [z0 d_mlp | x0 d_mlp | z d_inner | x d_inner | B n_groups d_state | C n_groups d_state | dt heads]
 *
 * With d_mlp the layer has an MLP in parallel to the heads: out_proj takes [silu(z0) x0 | y]. */
#include "core/context.h"
#include "core/try.h"
#include "model/layers/kinds.h"
#include "model/linear.h"
#include "ops/view.h"
#include <clmamba/causal_conv1d.h>
#include <clmamba/elementwise.h>
#include <clmamba/norm.h>
#include <clmamba/selective_scan.h>
#include <clmamba/ssd.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum { IN_PROJ, IN_PROJ_BIAS, CONV, CONV_BIAS, DT_BIAS, A_LOG, D, NORM, OUT_PROJ, OUT_PROJ_BIAS };
enum { STATE_SCAN, STATE_CONV };
enum { KEPT_PROJECTED };                              /* what in_proj gives               */
enum { XBC, Y, DXBC, DY, DGATED, GATED, DPROJECTED }; /* scratch; from DXBC on: of the backward pass */

/* ---- Sizes ---- */

typedef struct sizes {
  int64_t mlp, inner, heads, head_dim, groups, state;
  int64_t conv;      /* channels of the convolution */
  int64_t projected; /* rows of in_proj             */
} sizes;

static sizes sizes_of(const clm_model_config *c) {
  sizes s = {.mlp = c->d_mlp,
             .inner = c->d_inner,
             .heads = c->d_inner / c->head_dim,
             .head_dim = c->head_dim,
             .groups = c->n_groups,
             .state = c->d_state};
  s.conv = s.inner + 2 * s.groups * s.state;
  s.projected = 2 * s.mlp + s.inner + s.conv + s.heads;
  return s;
}

static clm_status check(clm_context *ctx, const clm_model_config *c, const int64_t *options) {
  (void)options;
  const int64_t heads = c->d_inner / c->head_dim;
  if (c->d_inner % c->head_dim)
    return context_fail(ctx, CLM_INVALID_ARGUMENT,
                        "model: head_dim is %" PRId64 ", which does not divide d_inner %" PRId64, c->head_dim,
                        c->d_inner);
  if (heads % c->n_groups)
    return context_fail(ctx, CLM_INVALID_ARGUMENT,
                        "model: n_groups is %" PRId64 ", which does not divide the number of heads %" PRId64,
                        c->n_groups, heads);
  if (c->mixer_norm)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "model: mixer_norm is of mamba1 layers, a mamba2 layer has none");
  return CLM_OK;
}

/* ---- Parameters ---- */

/* The logarithm of numbers that are uniform in [1, 16]. */
static void init_A_log(const param *p, const clm_model_config *c, rng *r, float *out) {
  (void)c;
  for (size_t i = 0; i < param_count(p); i++) out[i] = (float)log(1 + 15 * rng_uniform(r));
}

/* clang-format off */
static void params(const model_layer *l, param *p) {
  const clm_model_config *c = l->config;
  const sizes s = sizes_of(c);
  const int64_t model = c->d_model;
  p[IN_PROJ] =  (param){"in_proj.weight",  "ssm_in.weight",     .number = 4,  .rank = 2, .shape = {s.projected, model},        .init = param_uniform_fan_in, .decay = true, .matrix = true};
  p[CONV] =     (param){"conv1d.weight",   "ssm_conv1d.weight", .number = 6,  .rank = 2, .shape = {s.conv, c->d_conv},         .init = param_uniform_fan_in, .decay = true, .depthwise = true};
  p[DT_BIAS] =  (param){"dt_bias",         "ssm_dt.bias",       .number = 10, .rank = 1, .shape = {s.heads},                   .init = param_dt_bias};
  p[A_LOG] =    (param){"A_log",           "ssm_a",             .number = 11, .rank = 1, .shape = {s.heads},                   .init = init_A_log, .is_A = true};
  p[D] =        (param){"D",               "ssm_d",             .number = 12, .rank = 1, .shape = {c->D_per_channel ? s.inner : s.heads}, .init = param_ones};
  p[OUT_PROJ] = (param){"out_proj.weight", "ssm_out.weight",    .number = 13, .rank = 2, .shape = {model, s.mlp + s.inner},    .init = param_uniform_out, .decay = true, .matrix = true};
  if (!c->no_gated_norm)
    p[NORM] =          (param){"norm.weight",   "ssm_norm.weight",  .number = 8,  .rank = 1, .shape = {s.inner},     .init = param_ones};
  if (!c->no_conv_bias)
    p[CONV_BIAS] =     (param){"conv1d.bias",   "ssm_conv1d.bias",  .number = 7,  .rank = 1, .shape = {s.conv},      .init = param_conv_bias};
  if (!c->projection_bias) return;
  p[IN_PROJ_BIAS] =    (param){"in_proj.bias",  "ssm_in.bias",      .number = 5,  .rank = 1, .shape = {s.projected}};
  p[OUT_PROJ_BIAS] =   (param){"out_proj.bias", "ssm_out.bias",     .number = 14, .rank = 1, .shape = {model}};
}
/* clang-format on */

/* ---- Memory ---- */

static void state(const model_layer *l, const state_shape *shape, tensor_list *list) {
  const int64_t batch = shape->batch;
  const clm_model_config *c = l->config;
  const sizes s = sizes_of(c);
  tensor_list_add(list, "scan", CLM_F32, 4, (int64_t[]){batch, s.heads, s.head_dim, s.state});
  if (c->d_conv > 1) tensor_list_add(list, "conv", CLM_F32, 3, (int64_t[]){batch, s.conv, c->d_conv - 1});
}

static void add_rows(tensor_list *list, const char *name, const layer_shape *s, int64_t width) {
  tensor_list_add(list, name, s->dtype, 3, (int64_t[]){s->batch, s->length, width});
}

/* Everything else is recomputed in the backward pass. */
static void kept(const model_layer *l, const layer_shape *s, tensor_list *list) {
  add_rows(list, "projected", s, sizes_of(l->config).projected);
}

static void scratch(const model_layer *l, const layer_shape *shape, tensor_list *list) {
  const sizes s = sizes_of(l->config);
  add_rows(list, "xbc", shape, s.conv);
  add_rows(list, "y", shape, s.mlp + s.inner);
  if (!shape->train) return;
  add_rows(list, "dxbc", shape, s.conv);
  add_rows(list, "dy", shape, s.inner);
  add_rows(list, "dgated", shape, s.mlp + s.inner);
  add_rows(list, "gated", shape, s.mlp + s.inner);
  add_rows(list, "dprojected", shape, s.projected);
}

static void describe(const model_layer *l, char text[LAYER_TEXT]) {
  const sizes s = sizes_of(l->config);
  snprintf(text, LAYER_TEXT,
           "heads %" PRId64 ", head_dim %" PRId64 ", d_state %" PRId64 ", n_groups %" PRId64 ", d_conv %" PRId64
           ", d_mlp %" PRId64,
           s.heads, s.head_dim, s.state, s.groups, l->config->d_conv, s.mlp);
}

/* ---- Views ---- */

/* Columns of a (batch, length, width) tensor as a matrix. */
static clm_tensor matrix(clm_tensor t, int64_t begin, int64_t count) {
  return view_columns(rows_of(t), begin, count);
}

/* Parts of what in_proj gives, (batch, length, ...), or of the gradient of it. */
typedef struct projected_parts {
  clm_tensor z0, x0, z, xbc, dt;
} projected_parts;

static projected_parts parts_of(const sizes *s, clm_tensor t) {
  const int64_t z = 2 * s->mlp, xbc = z + s->inner;
  projected_parts p = {.z = view_columns(t, z, s->inner),
                       .xbc = view_columns(t, xbc, s->conv),
                       .dt = view_columns(t, xbc + s->conv, s->heads)};
  if (s->mlp == 0) return p;
  p.z0 = view_columns(t, 0, s->mlp);
  p.x0 = view_columns(t, s->mlp, s->mlp);
  return p;
}

/* A strided (batch, length, width) tensor whose rows lie evenly, as a matrix. */
static clm_tensor flat(clm_tensor t) {
  t.shape[0] *= t.shape[1];
  t.stride[0] = t.stride[1];
  t.shape[1] = t.shape[2];
  t.stride[1] = t.stride[2];
  t.rank = 2;
  return t;
}

/* x, B and C of the convolution's output, or their gradients. */
static clm_tensor x_of(const sizes *s, clm_tensor xbc) {
  return view_parts(view_columns(xbc, 0, s->inner), s->head_dim);
}
static clm_tensor B_of(const sizes *s, clm_tensor xbc) {
  return view_parts(view_columns(xbc, s->inner, s->groups * s->state), s->state);
}
static clm_tensor C_of(const sizes *s, clm_tensor xbc) {
  return view_parts(view_columns(xbc, s->inner + s->groups * s->state, s->groups * s->state), s->state);
}

/* Where the scan writes: after the output of the MLP. */
static clm_tensor y_of(const sizes *s, clm_tensor y) { return view_columns(y, s->mlp, s->inner); }

/* D, or its gradient: for each head, or for each channel of a head. */
static clm_tensor D_of(const clm_model_config *c, clm_tensor t) {
  return t.buffer && c->D_per_channel ? view_parts(t, c->head_dim) : t;
}

/* ---- Operations ---- */

static linear in_proj(const model_layer *l, clm_tensor x) {
  return (linear){.input = rows_of(x),
                  .weight = l->params.value[IN_PROJ],
                  .scale = l->params.scale[IN_PROJ],
                  .bias = l->params.value[IN_PROJ_BIAS],
                  .out = rows_of(l->kept[KEPT_PROJECTED])};
}

static linear out_proj(const model_layer *l, clm_tensor input, clm_tensor out) {
  return (linear){.input = rows_of(input),
                  .weight = l->params.value[OUT_PROJ],
                  .scale = l->params.scale[OUT_PROJ],
                  .bias = l->params.value[OUT_PROJ_BIAS],
                  .out = rows_of(out)};
}

static clm_causal_conv1d_args conv_args(const model_layer *l, const projected_parts *p, const layer_pass *pass) {
  const clm_tensor state = pass->state ? pass->state[STATE_CONV] : (clm_tensor){0};
  return (clm_causal_conv1d_args){.x = p->xbc,
                                  .weight = l->params.value[CONV],
                                  .bias = l->params.value[CONV_BIAS],
                                  .initial_state = state,
                                  .out = l->scratch[XBC],
                                  .final_state = state,
                                  .silu = true,
                                  .cu_seqlens = pass->cu_seqlens};
}

static clm_ssd_args scan_args(const model_layer *l, const projected_parts *p, const layer_pass *pass) {
  const clm_model_config *c = l->config;
  const sizes s = sizes_of(c);
  const clm_tensor *w = l->params.value, xbc = l->scratch[XBC],
                   state = pass->state ? pass->state[STATE_SCAN] : (clm_tensor){0};
  return (clm_ssd_args){.x = x_of(&s, xbc),
                        .dt = p->dt,
                        .A = w[A_LOG],
                        .B = B_of(&s, xbc),
                        .C = C_of(&s, xbc),
                        .D = D_of(c, w[D]),
                        .dt_bias = w[DT_BIAS],
                        .initial_state = state,
                        .cu_seqlens = pass->cu_seqlens,
                        .out = view_parts(y_of(&s, l->scratch[Y]), s.head_dim),
                        .final_state = state,
                        .dt_min = c->dt_limit_low,
                        .dt_max = c->dt_limit_high > 0 || c->dt_limit_low <= 0 ? c->dt_limit_high : INFINITY,
                        .dt_softplus = true,
                        .A_is_log = true};
}

static clm_swiglu_args mlp_args(const sizes *s, const projected_parts *p, clm_tensor out) {
  return (clm_swiglu_args){.gate = flat(p->z0), .up = flat(p->x0), .out = matrix(out, 0, s->mlp)};
}

/* Without a norm the gate is the one of SwiGLU. */
static clm_swiglu_args gate_args(const model_layer *l, const sizes *s, const projected_parts *p, clm_tensor out) {
  return (clm_swiglu_args){
      .gate = flat(p->z), .up = matrix(l->scratch[Y], s->mlp, s->inner), .out = matrix(out, s->mlp, s->inner)};
}

static clm_gated_norm_args norm_args(const model_layer *l, const sizes *s, const projected_parts *p, clm_tensor out) {
  const clm_model_config *c = l->config;
  return (clm_gated_norm_args){.x = matrix(l->scratch[Y], s->mlp, s->inner),
                               .z = flat(p->z),
                               .weight = l->params.value[NORM],
                               .out = matrix(out, s->mlp, s->inner),
                               .epsilon = c->norm_epsilon,
                               .n_groups = s->groups,
                               .norm_before_gate = c->norm_before_gate};
}

/* The input of out_proj, computed from scratch Y; `out` may be Y. */
static clm_status gate(clm_context *ctx, const model_layer *l, const projected_parts *p, clm_tensor out) {
  const sizes s = sizes_of(l->config);
  if (s.mlp) {
    const clm_swiglu_args mlp = mlp_args(&s, p, out);
    TRY(clm_swiglu(ctx, &mlp));
  }
  if (l->config->no_gated_norm) {
    const clm_swiglu_args plain = gate_args(l, &s, p, out);
    return clm_swiglu(ctx, &plain);
  }
  const clm_gated_norm_args norm = norm_args(l, &s, p, out);
  return clm_gated_norm(ctx, &norm);
}

/* ---- Forward and step ---- */

static clm_status finish(clm_context *ctx, const model_layer *l, const projected_parts *p, const layer_pass *pass) {
  linear out = out_proj(l, l->scratch[Y], pass->out);
  if (pass->residual.buffer) out.residual = rows_of(pass->residual);
  TRY(gate(ctx, l, p, l->scratch[Y]));
  return linear_forward(ctx, &out);
}

static clm_status forward(clm_context *ctx, const model_layer *l, const layer_pass *pass) {
  const sizes s = sizes_of(l->config);
  const projected_parts p = parts_of(&s, l->kept[KEPT_PROJECTED]);
  const linear in = in_proj(l, pass->x);
  const clm_causal_conv1d_args conv = conv_args(l, &p, pass);
  const clm_ssd_args scan = scan_args(l, &p, pass);
  TRY(linear_forward(ctx, &in));
  TRY(clm_causal_conv1d(ctx, &conv));
  TRY(clm_ssd(ctx, &scan));
  return finish(ctx, l, &p, pass);
}

/* What all channels of a head share. */
static clm_tensor spread(clm_tensor t, const sizes *s) {
  t.shape[t.rank] = s->head_dim;
  t.stride[t.rank] = 0;
  t.rank++;
  return t;
}

/* (batch, 1, ...) as (batch, ...) */
static clm_tensor one_step(clm_tensor t) {
  view_take(&t, 1, 0);
  return t;
}

static clm_selective_state_update_args update_args(const model_layer *l, const projected_parts *p,
                                                   const layer_pass *pass) {
  const clm_model_config *c = l->config;
  const sizes s = sizes_of(c);
  const clm_tensor *w = l->params.value, xbc = one_step(l->scratch[XBC]);
  clm_tensor A = spread(w[A_LOG], &s);
  A.shape[2] = s.state;
  A.stride[2] = 0;
  A.rank = 3;
  return (clm_selective_state_update_args){.state = pass->state[STATE_SCAN],
                                           .u = x_of(&s, xbc),
                                           .delta = spread(one_step(p->dt), &s),
                                           .A = A,
                                           .B = B_of(&s, xbc),
                                           .C = C_of(&s, xbc),
                                           .D = c->D_per_channel ? D_of(c, w[D]) : spread(w[D], &s),
                                           .delta_bias = spread(w[DT_BIAS], &s),
                                           .out = view_parts(y_of(&s, one_step(l->scratch[Y])), s.head_dim),
                                           .delta_softplus = true,
                                           .A_is_log = true};
}

/* clm_selective_state_update has no limits of the step size. */
static clm_status step(clm_context *ctx, const model_layer *l, const layer_pass *pass) {
  const clm_model_config *c = l->config;
  if (c->d_conv == 1 || c->dt_limit_low > 0 || c->dt_limit_high > 0) return forward(ctx, l, pass);
  const sizes s = sizes_of(c);
  const projected_parts p = parts_of(&s, l->kept[KEPT_PROJECTED]);
  const linear in = in_proj(l, pass->x);
  const clm_selective_state_update_args update = update_args(l, &p, pass);
  TRY(linear_forward(ctx, &in));
  TRY(clm_causal_conv1d_update(ctx, &(clm_causal_conv1d_update_args){.state = pass->state[STATE_CONV],
                                                                     .x = one_step(p.xbc),
                                                                     .weight = l->params.value[CONV],
                                                                     .bias = l->params.value[CONV_BIAS],
                                                                     .out = one_step(l->scratch[XBC]),
                                                                     .silu = true}));
  TRY(clm_selective_state_update(ctx, &update));
  return finish(ctx, l, &p, pass);
}

/* ---- Backward ---- */

/* DGATED is the gradient of the input of out_proj. Computes DY and the gradients of z, z0 and x0; recomputes GATED.
 */
static clm_status gate_backward(clm_context *ctx, const model_layer *l, const projected_parts *p,
                                const projected_parts *dp) {
  const sizes s = sizes_of(l->config);
  const clm_tensor dgated = matrix(l->scratch[DGATED], s.mlp, s.inner), dy = rows_of(l->scratch[DY]);
  if (s.mlp) {
    const clm_swiglu_args mlp = mlp_args(&s, p, l->scratch[GATED]);
    TRY(clm_swiglu(ctx, &mlp));
    TRY(clm_swiglu_backward(ctx, &(clm_swiglu_backward_args){.forward = mlp,
                                                             .dout = matrix(l->scratch[DGATED], 0, s.mlp),
                                                             .dgate = flat(dp->z0),
                                                             .dup = flat(dp->x0)}));
  }
  if (l->config->no_gated_norm) {
    const clm_swiglu_args plain = gate_args(l, &s, p, l->scratch[GATED]);
    TRY(clm_swiglu(ctx, &plain));
    return clm_swiglu_backward(
        ctx, &(clm_swiglu_backward_args){.forward = plain, .dout = dgated, .dgate = flat(dp->z), .dup = dy});
  }
  const clm_gated_norm_args norm = norm_args(l, &s, p, l->scratch[GATED]);
  return clm_gated_norm_backward(ctx, &(clm_gated_norm_backward_args){.forward = norm,
                                                                      .dout = dgated,
                                                                      .dx = dy,
                                                                      .dz = flat(dp->z),
                                                                      .dweight = l->params.gradient[NORM],
                                                                      .out = norm.out});
}

static clm_status scan_backward(clm_context *ctx, const model_layer *l, const clm_ssd_args *scan,
                                const projected_parts *dp) {
  const sizes s = sizes_of(l->config);
  const clm_tensor *dw = l->params.gradient, dxbc = l->scratch[DXBC];
  return clm_ssd_backward(ctx, &(clm_ssd_backward_args){.forward = *scan,
                                                        .dout = view_parts(l->scratch[DY], s.head_dim),
                                                        .dx = x_of(&s, dxbc),
                                                        .ddt = dp->dt,
                                                        .dB = B_of(&s, dxbc),
                                                        .dC = C_of(&s, dxbc),
                                                        .dA = dw[A_LOG],
                                                        .ddt_bias = dw[DT_BIAS],
                                                        .dD = D_of(l->config, dw[D])});
}

static clm_status backward(clm_context *ctx, const model_layer *l, const layer_gradient *g) {
  const sizes s = sizes_of(l->config);
  const clm_tensor *dw = l->params.gradient, *scratch = l->scratch;
  const layer_pass from_zero = {.cu_seqlens = {0}};
  const projected_parts p = parts_of(&s, l->kept[KEPT_PROJECTED]), dp = parts_of(&s, scratch[DPROJECTED]);
  const linear in = in_proj(l, g->x), out = out_proj(l, scratch[GATED], g->dout);
  const clm_causal_conv1d_args conv = conv_args(l, &p, &from_zero);
  const clm_ssd_args scan = scan_args(l, &p, &from_zero);
  TRY(clm_causal_conv1d(ctx, &conv));
  TRY(clm_ssd(ctx, &scan));
  TRY(linear_backward(ctx, &out, &(linear_gradients){.dout = rows_of(g->dout), .dinput = rows_of(scratch[DGATED])}));
  TRY(gate_backward(ctx, l, &p, &dp));
  TRY(linear_backward(
      ctx, &out, &(linear_gradients){.dout = rows_of(g->dout), .dweight = dw[OUT_PROJ], .dbias = dw[OUT_PROJ_BIAS]}));
  TRY(scan_backward(ctx, l, &scan, &dp));
  TRY(clm_causal_conv1d_backward(
      ctx, &(clm_causal_conv1d_backward_args){
               .forward = conv, .dout = scratch[DXBC], .dx = dp.xbc, .dweight = dw[CONV], .dbias = dw[CONV_BIAS]}));
  return linear_backward(ctx, &in,
                         &(linear_gradients){.dout = rows_of(scratch[DPROJECTED]),
                                             .dinput = rows_of(g->dx),
                                             .accumulate_dinput = g->accumulate,
                                             .dweight = dw[IN_PROJ],
                                             .dbias = dw[IN_PROJ_BIAS]});
}

const layer_kind layer_mamba2 = {.name = "mamba2",
                                 .module = "mamba",
                                 .check = check,
                                 .params = params,
                                 .state = state,
                                 .kept = kept,
                                 .scratch = scratch,
                                 .forward = forward,
                                 .step = step,
                                 .backward = backward,
                                 .describe = describe};
