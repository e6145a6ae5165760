/* The Mamba-1 mixer (Gu & Dao 2023, figure 3): in_proj, convolution, selective scan, gate, out_proj. Its sizes are
 * members of the model's configuration. */
#include "core/try.h"
#include "model/layers/kinds.h"
#include "model/linear.h"
#include "ops/view.h"
#include <clmamba/causal_conv1d.h>
#include <clmamba/mamba_inner.h>
#include <clmamba/norm.h>
#include <clmamba/selective_scan.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

enum {
  IN_PROJ,
  IN_PROJ_BIAS,
  CONV,
  CONV_BIAS,
  X_PROJ,
  DT_PROJ,
  DT_BIAS,
  A_LOG,
  D,
  OUT_PROJ,
  OUT_PROJ_BIAS,
  DT_NORM,
  B_NORM,
  C_NORM
};
enum { STATE_SCAN, STATE_CONV };
enum { KEPT_XZ, KEPT_DBC };
enum { STEP_CONV, STEP_DELTA, STEP_Y, DXZ = 0 }; /* scratch of a step, and of the way back */

/* ---- Parameters ---- */

/* log(1 .. d_state) */
static void init_A_log(const param *p, const clm_model_config *c, rng *r, float *out) {
  (void)r;
  for (size_t i = 0; i < param_count(p); i++) out[i] = (float)log((double)((int64_t)i % c->d_state + 1));
}

/* clang-format off */
static void params(const model_layer *l, param *p) {
  const clm_model_config *c = l->config;
  const int64_t model = c->d_model, inner = c->d_inner, rank = c->dt_rank, state = c->d_state;
  p[IN_PROJ] =  (param){"in_proj.weight",  "ssm_in.weight",     .number = 4,  .rank = 2, .shape = {2 * inner, model},        .init = param_uniform_fan_in, .decay = true, .matrix = true};
  p[CONV] =     (param){"conv1d.weight",   "ssm_conv1d.weight", .number = 6,  .rank = 2, .shape = {inner, c->d_conv},        .init = param_uniform_fan_in, .decay = true, .depthwise = true};
  p[X_PROJ] =   (param){"x_proj.weight",   "ssm_x.weight",      .number = 8,  .rank = 2, .shape = {rank + 2 * state, inner}, .init = param_uniform_fan_in, .decay = true, .matrix = true};
  p[DT_PROJ] =  (param){"dt_proj.weight",  "ssm_dt.weight",     .number = 9,  .rank = 2, .shape = {inner, rank},             .init = param_uniform_fan_in, .decay = true, .matrix = true};
  p[DT_BIAS] =  (param){"dt_proj.bias",    "ssm_dt.bias",       .number = 10, .rank = 1, .shape = {inner},                   .init = param_dt_bias};
  p[A_LOG] =    (param){"A_log",           "ssm_a",             .number = 11, .rank = 2, .shape = {inner, state},            .init = init_A_log, .is_A = true};
  p[D] =        (param){"D",               "ssm_d",             .number = 12, .rank = 1, .shape = {inner},                   .init = param_ones};
  p[OUT_PROJ] = (param){"out_proj.weight", "ssm_out.weight",    .number = 13, .rank = 2, .shape = {model, inner},            .init = param_uniform_out, .decay = true, .matrix = true};
  if (!c->no_conv_bias)
    p[CONV_BIAS] =     (param){"conv1d.bias",   "ssm_conv1d.bias", .number = 7,  .rank = 1, .shape = {inner}, .init = param_conv_bias};
  if (c->mixer_norm && c->mixer_norm_weights) {
    p[DT_NORM] = (param){"dt_layernorm.weight", "ssm_dt_norm.weight", .number = 21, .rank = 1, .shape = {rank},  .init = param_ones};
    p[B_NORM] =  (param){"b_layernorm.weight",  "ssm_b_norm.weight",  .number = 22, .rank = 1, .shape = {state}, .init = param_ones};
    p[C_NORM] =  (param){"c_layernorm.weight",  "ssm_c_norm.weight",  .number = 23, .rank = 1, .shape = {state}, .init = param_ones};
  }
  if (!c->projection_bias) return;
  p[IN_PROJ_BIAS] =  (param){"in_proj.bias",  "ssm_in.bias",  .number = 5,  .rank = 1, .shape = {2 * inner}};
  p[OUT_PROJ_BIAS] = (param){"out_proj.bias", "ssm_out.bias", .number = 14, .rank = 1, .shape = {model}};
}
/* clang-format on */

/* ---- Memory ---- */

static void state(const model_layer *l, const state_shape *shape, tensor_list *list) {
  const int64_t batch = shape->batch;
  const clm_model_config *c = l->config;
  tensor_list_add(list, "scan", CLM_F32, 3, (int64_t[]){batch, c->d_inner, c->d_state});
  if (c->d_conv > 1) tensor_list_add(list, "conv", CLM_F32, 3, (int64_t[]){batch, c->d_inner, c->d_conv - 1});
}

static void add_rows(tensor_list *list, const char *name, const layer_shape *s, int64_t width) {
  tensor_list_add(list, name, s->dtype, 3, (int64_t[]){s->batch, s->length, width});
}

/* The outputs of in_proj and x_proj; the rest is computed again on the way back. */
static void kept(const model_layer *l, const layer_shape *s, tensor_list *list) {
  const clm_model_config *c = l->config;
  add_rows(list, "xz", s, 2 * c->d_inner);
  add_rows(list, "dbc", s, c->dt_rank + 2 * c->d_state);
}

static void scratch(const model_layer *l, const layer_shape *s, tensor_list *list) {
  static const char *const names[] = {"step's conv", "step's delta", "step's y"};
  const int64_t d_inner = l->config->d_inner;
  if (s->train) add_rows(list, "dxz", s, 2 * d_inner);
  else if (s->length == 1)
    for (int i = 0; i < 3; i++) tensor_list_add(list, names[i], s->dtype, 2, (int64_t[]){s->batch, d_inner});
}

static void describe(const model_layer *l, char text[LAYER_TEXT]) {
  const clm_model_config *c = l->config;
  snprintf(text, LAYER_TEXT, "d_state %" PRId64 ", d_conv %" PRId64 ", d_inner %" PRId64 ", dt_rank %" PRId64 "%s",
           c->d_state, c->d_conv, c->d_inner, c->dt_rank, c->mixer_norm ? ", normed delta, B and C" : "");
}

/* ---- Forward and backward ---- */

static clm_mamba_inner_args inner_args(const model_layer *l, const layer_pass *pass) {
  const clm_tensor *w = l->params.value, *scale = l->params.scale;
  clm_tensor conv = {0}, scan = {0};
  if (pass->state) {
    conv = pass->state[STATE_CONV];
    scan = pass->state[STATE_SCAN];
  }
  return (clm_mamba_inner_args){.xz = l->kept[KEPT_XZ],
                                .conv_weight = w[CONV],
                                .conv_bias = w[CONV_BIAS],
                                .x_proj = w[X_PROJ],
                                .dt_proj = w[DT_PROJ],
                                .delta_bias = w[DT_BIAS],
                                .A = w[A_LOG],
                                .D = w[D],
                                .out_proj = w[OUT_PROJ],
                                .out_bias = w[OUT_PROJ_BIAS],
                                .x_proj_scale = scale[X_PROJ],
                                .dt_proj_scale = scale[DT_PROJ],
                                .out_proj_scale = scale[OUT_PROJ],
                                .residual = pass->residual,
                                .out = pass->out,
                                .conv_initial = conv,
                                .conv_final = conv,
                                .scan_initial = scan,
                                .scan_final = scan,
                                .dbc = l->kept[KEPT_DBC],
                                .cu_seqlens = pass->cu_seqlens,
                                .delta_norm = w[DT_NORM],
                                .B_norm = w[B_NORM],
                                .C_norm = w[C_NORM],
                                .norm_epsilon = l->config->mixer_norm_epsilon,
                                .norm_delta = l->config->mixer_norm,
                                .norm_B = l->config->mixer_norm,
                                .norm_C = l->config->mixer_norm,
                                .delta_softplus = true,
                                .A_is_log = true,
                                .math = linear_math(l->kept[KEPT_XZ].dtype)};
}

static linear in_proj(const model_layer *l, clm_tensor x) {
  return (linear){.input = rows_of(x),
                  .weight = l->params.value[IN_PROJ],
                  .scale = l->params.scale[IN_PROJ],
                  .bias = l->params.value[IN_PROJ_BIAS],
                  .out = rows_of(l->kept[KEPT_XZ])};
}

static clm_status forward(clm_context *ctx, const model_layer *l, const layer_pass *pass) {
  linear in = in_proj(l, pass->x);
  clm_mamba_inner_args inner = inner_args(l, pass);
  TRY(linear_forward(ctx, &in));
  return clm_mamba_inner(ctx, &inner);
}

static clm_status backward(clm_context *ctx, const model_layer *l, const layer_gradient *g) {
  const clm_tensor *dw = l->params.gradient;
  clm_tensor dxz = l->scratch[DXZ];
  linear in = in_proj(l, g->x);
  TRY(clm_mamba_inner_backward(
      ctx, &(clm_mamba_inner_backward_args){.forward = inner_args(l, &(layer_pass){.out = g->dout}),
                                            .dout = g->dout,
                                            .dxz = dxz,
                                            .dconv_weight = dw[CONV],
                                            .dconv_bias = dw[CONV_BIAS],
                                            .dx_proj = dw[X_PROJ],
                                            .ddt_proj = dw[DT_PROJ],
                                            .ddelta_bias = dw[DT_BIAS],
                                            .dA = dw[A_LOG],
                                            .dD = dw[D],
                                            .dout_proj = dw[OUT_PROJ],
                                            .dout_bias = dw[OUT_PROJ_BIAS],
                                            .ddelta_norm = dw[DT_NORM],
                                            .dB_norm = dw[B_NORM],
                                            .dC_norm = dw[C_NORM]}));
  return linear_backward(ctx, &in,
                         &(linear_gradients){.dout = rows_of(dxz),
                                             .dinput = rows_of(g->dx),
                                             .accumulate_dinput = g->accumulate,
                                             .dweight = dw[IN_PROJ],
                                             .dbias = dw[IN_PROJ_BIAS]});
}

/* ---- One step ---- */

typedef struct step_parts {
  clm_tensor x, z, dt, B, C;
} step_parts;

/* The parts of a (..., 2 d_inner) or (..., dt_rank + 2 d_state) tensor, along its last dimension. */
/* B and C have a dimension of groups before d_state; Mamba-1 has one group. */
static clm_tensor with_group(clm_tensor t) {
  int last = t.rank - 1;
  t.shape[last + 1] = t.shape[last];
  t.stride[last + 1] = t.stride[last];
  t.shape[last] = 1;
  t.stride[last] = t.shape[last + 1];
  t.rank++;
  return t;
}

static step_parts split(const clm_model_config *c, clm_tensor xz, clm_tensor dbc) {
  return (step_parts){.x = view_columns(xz, 0, c->d_inner),
                      .z = view_columns(xz, c->d_inner, c->d_inner),
                      .dt = view_columns(dbc, 0, c->dt_rank),
                      .B = with_group(view_columns(dbc, c->dt_rank, c->d_state)),
                      .C = with_group(view_columns(dbc, c->dt_rank + c->d_state, c->d_state))};
}

/* Delta, B and C where they lie. */
static clm_status norm_parts(clm_context *ctx, const model_layer *l, clm_tensor dbc) {
  const clm_model_config *c = l->config;
  const int64_t widths[] = {c->dt_rank, c->d_state, c->d_state};
  int64_t begin = 0;
  for (int i = 0; i < 3 && c->mixer_norm; begin += widths[i++]) {
    clm_tensor part = view_columns(dbc, begin, widths[i]);
    TRY(clm_norm(
        ctx, &(clm_norm_args){
                 .x = part, .weight = l->params.value[DT_NORM + i], .out = part, .epsilon = c->mixer_norm_epsilon}));
  }
  return CLM_OK;
}

static clm_status step(clm_context *ctx, const model_layer *l, const layer_pass *pass) {
  const clm_model_config *c = l->config;
  if (c->d_conv == 1) return forward(ctx, l, pass); /* there is no convolution to update */
  const clm_tensor *w = l->params.value, *scale = l->params.scale;
  clm_tensor conv = l->scratch[STEP_CONV], delta = l->scratch[STEP_DELTA], y = l->scratch[STEP_Y],
             dbc = rows_of(l->kept[KEPT_DBC]);
  linear in = in_proj(l, pass->x);
  step_parts parts = split(c, in.out, dbc);
  linear x = {.input = conv, .weight = w[X_PROJ], .scale = scale[X_PROJ], .out = dbc};
  linear dt = {.input = parts.dt, .weight = w[DT_PROJ], .scale = scale[DT_PROJ], .out = delta};
  linear out = {.input = y,
                .weight = w[OUT_PROJ],
                .scale = scale[OUT_PROJ],
                .bias = w[OUT_PROJ_BIAS],
                .residual = pass->residual.buffer ? rows_of(pass->residual) : pass->residual,
                .out = rows_of(pass->out)};
  TRY(linear_forward(ctx, &in));
  TRY(clm_causal_conv1d_update(ctx, &(clm_causal_conv1d_update_args){.state = pass->state[STATE_CONV],
                                                                     .x = parts.x,
                                                                     .weight = w[CONV],
                                                                     .bias = w[CONV_BIAS],
                                                                     .out = conv,
                                                                     .silu = true}));
  TRY(linear_forward(ctx, &x));
  TRY(norm_parts(ctx, l, dbc));
  TRY(linear_forward(ctx, &dt));
  TRY(clm_selective_state_update(ctx, &(clm_selective_state_update_args){.state = pass->state[STATE_SCAN],
                                                                         .u = conv,
                                                                         .delta = delta,
                                                                         .A = w[A_LOG],
                                                                         .B = parts.B,
                                                                         .C = parts.C,
                                                                         .D = w[D],
                                                                         .z = parts.z,
                                                                         .delta_bias = w[DT_BIAS],
                                                                         .out = y,
                                                                         .delta_softplus = true,
                                                                         .A_is_log = true}));
  return linear_forward(ctx, &out);
}

const layer_kind layer_mamba1 = {.name = "mamba1",
                                 .module = "mamba",
                                 .params = params,
                                 .state = state,
                                 .kept = kept,
                                 .scratch = scratch,
                                 .forward = forward,
                                 .step = step,
                                 .backward = backward,
                                 .describe = describe};
