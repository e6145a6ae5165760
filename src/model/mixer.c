/* The Mamba-1 block (Gu & Dao 2023, figure 3): norm, in_proj, convolution, selective scan, gate, out_proj, skip. */
#include "core/try.h"
#include "model/linear.h"
#include "model/model.h"
#include <clmamba/causal_conv1d.h>
#include <clmamba/elementwise.h>
#include <clmamba/mamba_inner.h>
#include <clmamba/norm.h>
#include <clmamba/selective_scan.h>

/* The parts of a (..., 2 d_inner) or (..., dt_rank + 2 d_state) tensor, along its last dimension. */
static clm_tensor columns(clm_tensor t, int64_t begin, int64_t count) {
  return clm_tensor_slice(t, t.rank - 1, begin, count);
}

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

/* The part of a state that belongs to one layer. */
static clm_tensor of_layer(clm_tensor t, int layer) {
  if (!t.buffer) return t;
  t = clm_tensor_slice(t, 0, layer, 1);
  return clm_tensor_reshape(t, t.rank - 1, t.shape + 1);
}

static clm_norm_args norm_args(const clm_model *m, int layer) {
  return (clm_norm_args){.x = rows_of(m->act.x[layer]),
                         .weight = m->weights[layer][W_NORM],
                         .bias = m->weights[layer][W_NORM_BIAS],
                         .out = rows_of(m->act.normed),
                         .epsilon = m->config.norm_epsilon,
                         .kind = m->config.layer_norm ? CLM_LAYER_NORM : CLM_RMS_NORM};
}

/* From in_proj's output to the residual stream; with dropout, to act.branch. */
static clm_mamba_inner_args inner_args(const clm_model *m, const mixer_pass *pass) {
  const clm_tensor *w = m->weights[pass->layer], *scale = m->scales[pass->layer];
  const activations *act = &m->act;
  clm_tensor conv = {0}, scan = {0};
  if (pass->state) {
    conv = of_layer(pass->state->conv, pass->layer);
    scan = of_layer(pass->state->scan, pass->layer);
  }
  clm_mamba_inner_args a = {.xz = act->xz[pass->layer],
                            .conv_weight = w[W_CONV],
                            .conv_bias = w[W_CONV_BIAS],
                            .x_proj = w[W_X_PROJ],
                            .dt_proj = w[W_DT_PROJ],
                            .delta_bias = w[W_DT_BIAS],
                            .A = w[W_A_LOG],
                            .D = w[W_D],
                            .out_proj = w[W_OUT_PROJ],
                            .out_bias = w[W_OUT_PROJ_BIAS],
                            .x_proj_scale = scale[W_X_PROJ],
                            .dt_proj_scale = scale[W_DT_PROJ],
                            .out_proj_scale = scale[W_OUT_PROJ],
                            .out = act->branch,
                            .conv_initial = conv,
                            .conv_final = conv,
                            .scan_initial = scan,
                            .scan_final = scan,
                            .dbc = act->dbc[pass->layer],
                            .cu_seqlens = pass->cu_seqlens,
                            .norm_epsilon = m->config.mixer_norm_epsilon,
                            .norm_delta = m->config.mixer_norm,
                            .norm_B = m->config.mixer_norm,
                            .norm_C = m->config.mixer_norm,
                            .delta_softplus = true,
                            .A_is_log = true};
  if (pass->dropout > 0) return a;
  a.residual = act->x[pass->layer];
  a.out = act->x[pass->layer + 1];
  return a;
}

static linear in_proj(const clm_model *m, int layer) {
  const clm_tensor *w = m->weights[layer];
  return (linear){.input = rows_of(m->act.normed),
                  .weight = w[W_IN_PROJ],
                  .scale = m->scales[layer][W_IN_PROJ],
                  .bias = w[W_IN_PROJ_BIAS],
                  .out = rows_of(m->act.xz[layer])};
}

clm_status mixer_forward(clm_model *m, const mixer_pass *pass) {
  clm_context *ctx = m->context;
  clm_norm_args norm = norm_args(m, pass->layer);
  linear in = in_proj(m, pass->layer);
  clm_mamba_inner_args inner = inner_args(m, pass);
  TRY(clm_norm(ctx, &norm));
  TRY(linear_forward(ctx, &in));
  TRY(clm_mamba_inner(ctx, &inner));
  if (!(pass->dropout > 0)) return CLM_OK;
  return clm_dropout(ctx, &(clm_dropout_args){.x = inner.out,
                                              .residual = m->act.x[pass->layer],
                                              .out = m->act.x[pass->layer + 1],
                                              .rate = pass->dropout,
                                              .seed = pass->seed});
}

clm_status mixer_backward(clm_model *m, const mixer_pass *pass) {
  clm_context *ctx = m->context;
  const clm_tensor *dw = m->dweights[pass->layer];
  activations *a = &m->act;
  clm_tensor dbranch = a->dx;
  if (pass->dropout > 0) {
    dbranch = a->branch;
    TRY(clm_dropout(ctx, &(clm_dropout_args){.x = a->dx, .out = dbranch, .rate = pass->dropout, .seed = pass->seed}));
  }
  clm_norm_args norm = norm_args(m, pass->layer);
  linear in = in_proj(m, pass->layer);
  TRY(clm_mamba_inner_backward(ctx, &(clm_mamba_inner_backward_args){.forward = inner_args(m, pass),
                                                                     .dout = dbranch,
                                                                     .dxz = a->dxz,
                                                                     .dconv_weight = dw[W_CONV],
                                                                     .dconv_bias = dw[W_CONV_BIAS],
                                                                     .dx_proj = dw[W_X_PROJ],
                                                                     .ddt_proj = dw[W_DT_PROJ],
                                                                     .ddelta_bias = dw[W_DT_BIAS],
                                                                     .dA = dw[W_A_LOG],
                                                                     .dD = dw[W_D],
                                                                     .dout_proj = dw[W_OUT_PROJ],
                                                                     .dout_bias = dw[W_OUT_PROJ_BIAS]}));
  TRY(clm_norm(ctx, &norm));
  TRY(linear_backward(ctx, &in,
                      &(linear_gradients){.dout = rows_of(a->dxz),
                                          .dinput = rows_of(a->dnormed),
                                          .dweight = dw[W_IN_PROJ],
                                          .dbias = dw[W_IN_PROJ_BIAS]}));
  clm_tensor dx = rows_of(a->dx);
  return clm_norm_backward(ctx, &(clm_norm_backward_args){.forward = norm,
                                                          .dout = rows_of(a->dnormed),
                                                          .residual = dx,
                                                          .dx = dx,
                                                          .dweight = dw[W_NORM],
                                                          .dbias = dw[W_NORM_BIAS]});
}

/* ---- One step ---- */

typedef struct step_parts {
  clm_tensor x, z, dt, B, C;
} step_parts;

static step_parts split(const clm_model *m, clm_tensor xz, clm_tensor dbc) {
  const clm_model_config *c = &m->config;
  return (step_parts){.x = columns(xz, 0, c->d_inner),
                      .z = columns(xz, c->d_inner, c->d_inner),
                      .dt = columns(rows_of(dbc), 0, c->dt_rank),
                      .B = with_group(columns(dbc, c->dt_rank, c->d_state)),
                      .C = with_group(columns(dbc, c->dt_rank + c->d_state, c->d_state))};
}

/* Delta, B and C where they lie. */
static clm_status norm_parts(const clm_model *m, clm_tensor dbc) {
  const clm_model_config *c = &m->config;
  const int64_t widths[] = {c->dt_rank, c->d_state, c->d_state};
  int64_t begin = 0;
  for (int i = 0; i < 3 && c->mixer_norm; begin += widths[i++]) {
    clm_tensor part = columns(dbc, begin, widths[i]);
    TRY(clm_norm(m->context, &(clm_norm_args){.x = part, .out = part, .epsilon = c->mixer_norm_epsilon}));
  }
  return CLM_OK;
}

clm_status mixer_step(clm_model *m, const mixer_pass *pass) {
  clm_context *ctx = m->context;
  const clm_tensor *w = m->weights[pass->layer], *scale = m->scales[pass->layer];
  activations *a = &m->act;
  clm_norm_args norm = norm_args(m, pass->layer);
  linear in = in_proj(m, pass->layer);
  step_parts parts = split(m, rows_of(a->xz[pass->layer]), rows_of(a->dbc[pass->layer]));
  clm_tensor conv = a->step_conv, y = a->step_y, delta = a->step_delta;
  linear x = {.input = conv, .weight = w[W_X_PROJ], .scale = scale[W_X_PROJ], .out = rows_of(a->dbc[pass->layer])};
  linear dt = {.input = parts.dt, .weight = w[W_DT_PROJ], .scale = scale[W_DT_PROJ], .out = delta};
  linear out = {.input = y,
                .weight = w[W_OUT_PROJ],
                .scale = scale[W_OUT_PROJ],
                .bias = w[W_OUT_PROJ_BIAS],
                .residual = rows_of(a->x[pass->layer]),
                .out = rows_of(a->x[pass->layer + 1])};
  TRY(clm_norm(ctx, &norm));
  TRY(linear_forward(ctx, &in));
  TRY(clm_causal_conv1d_update(ctx,
                               &(clm_causal_conv1d_update_args){.state = of_layer(pass->state->conv, pass->layer),
                                                                .x = parts.x,
                                                                .weight = w[W_CONV],
                                                                .bias = w[W_CONV_BIAS],
                                                                .out = conv,
                                                                .silu = true}));
  TRY(linear_forward(ctx, &x));
  TRY(norm_parts(m, x.out));
  TRY(linear_forward(ctx, &dt));
  TRY(clm_selective_state_update(ctx,
                                 &(clm_selective_state_update_args){.state = of_layer(pass->state->scan, pass->layer),
                                                                    .u = conv,
                                                                    .delta = delta,
                                                                    .A = w[W_A_LOG],
                                                                    .B = parts.B,
                                                                    .C = parts.C,
                                                                    .D = w[W_D],
                                                                    .z = parts.z,
                                                                    .delta_bias = w[W_DT_BIAS],
                                                                    .out = y,
                                                                    .delta_softplus = true,
                                                                    .A_is_log = true}));
  return linear_forward(ctx, &out);
}
