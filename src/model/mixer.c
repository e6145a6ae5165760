/* The Mamba-1 block (Gu & Dao 2023, figure 3): norm, in_proj, convolution, selective scan, gate, out_proj, skip. */
#include "core/try.h"
#include "model/linear.h"
#include "model/model.h"
#include <clmamba/causal_conv1d.h>
#include <clmamba/elementwise.h>
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

static clm_norm_args norm_args(const clm_model *m, int layer) {
  return (clm_norm_args){.x = rows_of(m->act.x[layer]),
                         .weight = m->weights[layer][W_NORM],
                         .out = rows_of(m->act.normed),
                         .epsilon = m->config.norm_epsilon,
                         .kind = CLM_RMS_NORM};
}

static clm_causal_conv1d_args conv_args(const clm_model *m, const mixer_pass *pass) {
  const clm_tensor *w = m->weights[pass->layer];
  clm_tensor state = pass->state ? of_layer(pass->state->conv, pass->layer) : (clm_tensor){0};
  return (clm_causal_conv1d_args){.x = columns(m->act.xz[pass->layer], 0, m->config.d_inner),
                                  .weight = w[W_CONV],
                                  .bias = w[W_CONV_BIAS],
                                  .initial_state = state,
                                  .out = m->act.conv,
                                  .final_state = state,
                                  .silu = true};
}

static clm_selective_scan_args scan_args(const clm_model *m, const mixer_pass *pass) {
  const clm_tensor *w = m->weights[pass->layer];
  step_parts parts = split(m, m->act.xz[pass->layer], m->act.dbc[pass->layer]);
  clm_tensor state = pass->state ? of_layer(pass->state->scan, pass->layer) : (clm_tensor){0};
  return (clm_selective_scan_args){.u = m->act.conv,
                                   .delta = m->act.delta,
                                   .A = w[W_A_LOG],
                                   .B = parts.B,
                                   .C = parts.C,
                                   .D = w[W_D],
                                   .z = parts.z,
                                   .delta_bias = w[W_DT_BIAS],
                                   .initial_state = state,
                                   .out = m->act.y,
                                   .final_state = state,
                                   .delta_softplus = true,
                                   .A_is_log = true};
}

/* The four products of a layer; linear_backward reads the same description. */
static linear in_proj(const clm_model *m, int layer) {
  const clm_tensor *w = m->weights[layer];
  return (linear){.input = rows_of(m->act.normed),
                  .weight = w[W_IN_PROJ],
                  .bias = w[W_IN_PROJ_BIAS],
                  .out = rows_of(m->act.xz[layer])};
}

static linear x_proj(const clm_model *m, int layer) {
  return (linear){
      .input = rows_of(m->act.conv), .weight = m->weights[layer][W_X_PROJ], .out = rows_of(m->act.dbc[layer])};
}

static linear dt_proj(const clm_model *m, int layer) {
  return (linear){.input = columns(rows_of(m->act.dbc[layer]), 0, m->config.dt_rank),
                  .weight = m->weights[layer][W_DT_PROJ],
                  .out = rows_of(m->act.delta)};
}

static linear out_proj(const clm_model *m, const mixer_pass *pass) {
  const clm_tensor *w = m->weights[pass->layer];
  linear l = {.input = rows_of(m->act.y), .weight = w[W_OUT_PROJ], .bias = w[W_OUT_PROJ_BIAS]};
  if (pass->dropout > 0) {
    l.out = rows_of(m->act.branch);
  } else {
    l.residual = rows_of(m->act.x[pass->layer]);
    l.out = rows_of(m->act.x[pass->layer + 1]);
  }
  return l;
}

static clm_status finish_branch(clm_model *m, const mixer_pass *pass) {
  linear l = out_proj(m, pass);
  TRY(linear_forward(m->context, &l));
  if (!(pass->dropout > 0)) return CLM_OK;
  return clm_dropout(m->context, &(clm_dropout_args){.x = l.out,
                                                     .residual = rows_of(m->act.x[pass->layer]),
                                                     .out = rows_of(m->act.x[pass->layer + 1]),
                                                     .rate = pass->dropout,
                                                     .seed = pass->seed});
}

clm_status mixer_forward(clm_model *m, const mixer_pass *pass) {
  clm_context *ctx = m->context;
  clm_norm_args norm = norm_args(m, pass->layer);
  clm_causal_conv1d_args conv = conv_args(m, pass);
  clm_selective_scan_args scan = scan_args(m, pass);
  linear in = in_proj(m, pass->layer), x = x_proj(m, pass->layer), dt = dt_proj(m, pass->layer);
  TRY(clm_norm(ctx, &norm));
  TRY(linear_forward(ctx, &in));
  TRY(clm_causal_conv1d(ctx, &conv));
  TRY(linear_forward(ctx, &x));
  TRY(linear_forward(ctx, &dt));
  TRY(clm_selective_scan(ctx, &scan));
  return finish_branch(m, pass);
}

clm_status mixer_step(clm_model *m, const mixer_pass *pass) {
  clm_context *ctx = m->context;
  const clm_tensor *w = m->weights[pass->layer];
  activations *a = &m->act;
  clm_norm_args norm = norm_args(m, pass->layer);
  linear in = in_proj(m, pass->layer), x = x_proj(m, pass->layer), dt = dt_proj(m, pass->layer);
  step_parts parts = split(m, rows_of(a->xz[pass->layer]), rows_of(a->dbc[pass->layer]));
  clm_tensor conv = rows_of(a->conv), y = rows_of(a->y), delta = rows_of(a->delta);
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
  return finish_branch(m, pass);
}

/* The scan's gradients; leaves the gated y, recomputed on the way, in act.y. */
static clm_status scan_backward(clm_model *m, const mixer_pass *pass) {
  const clm_tensor *dw = m->dweights[pass->layer];
  activations *a = &m->act;
  step_parts gradients = split(m, a->dxz, a->ddbc);
  return clm_selective_scan_backward(m->context, &(clm_selective_scan_backward_args){.forward = scan_args(m, pass),
                                                                                     .dout = a->dy,
                                                                                     .du = a->dconv,
                                                                                     .ddelta = a->ddelta,
                                                                                     .dz = gradients.z,
                                                                                     .dA = dw[W_A_LOG],
                                                                                     .dB = gradients.B,
                                                                                     .dC = gradients.C,
                                                                                     .dD = dw[W_D],
                                                                                     .ddelta_bias = dw[W_DT_BIAS],
                                                                                     .out = a->y});
}

/* From the gradient of the scan's input and steps back to that of in_proj's output, act.dxz. */
static clm_status inner_backward(clm_model *m, const mixer_pass *pass) {
  clm_context *ctx = m->context;
  const clm_tensor *dw = m->dweights[pass->layer];
  activations *a = &m->act;
  linear x = x_proj(m, pass->layer), dt = dt_proj(m, pass->layer);
  TRY(linear_backward(ctx, &dt,
                      &(linear_gradients){.dout = rows_of(a->ddelta),
                                          .dinput = columns(rows_of(a->ddbc), 0, m->config.dt_rank),
                                          .dweight = dw[W_DT_PROJ]}));
  TRY(linear_backward(ctx, &x,
                      &(linear_gradients){.dout = rows_of(a->ddbc),
                                          .dinput = rows_of(a->dconv),
                                          .accumulate_dinput = true,
                                          .dweight = dw[W_X_PROJ]}));
  return clm_causal_conv1d_backward(ctx,
                                    &(clm_causal_conv1d_backward_args){.forward = conv_args(m, pass),
                                                                       .dout = a->dconv,
                                                                       .dx = columns(a->dxz, 0, m->config.d_inner),
                                                                       .dweight = dw[W_CONV],
                                                                       .dbias = dw[W_CONV_BIAS]});
}

clm_status mixer_backward(clm_model *m, const mixer_pass *pass) {
  clm_context *ctx = m->context;
  const clm_tensor *dw = m->dweights[pass->layer];
  activations *a = &m->act;
  clm_tensor dx = rows_of(a->dx), dbranch = dx;
  if (pass->dropout > 0) {
    dbranch = rows_of(a->branch);
    TRY(clm_dropout(ctx, &(clm_dropout_args){.x = dx, .out = dbranch, .rate = pass->dropout, .seed = pass->seed}));
  }
  clm_causal_conv1d_args conv = conv_args(m, pass);
  clm_norm_args norm = norm_args(m, pass->layer);
  linear in = in_proj(m, pass->layer), dt = dt_proj(m, pass->layer), out = out_proj(m, pass);
  TRY(clm_causal_conv1d(ctx, &conv)); /* recomputed, as the step sizes are */
  TRY(linear_forward(ctx, &dt));
  TRY(linear_backward(ctx, &out, &(linear_gradients){.dout = dbranch, .dinput = rows_of(a->dy)}));
  TRY(scan_backward(m, pass));
  TRY(linear_backward(ctx, &out,
                      &(linear_gradients){.dout = dbranch, .dweight = dw[W_OUT_PROJ], .dbias = dw[W_OUT_PROJ_BIAS]}));
  TRY(inner_backward(m, pass));
  TRY(clm_norm(ctx, &norm));
  TRY(linear_backward(ctx, &in,
                      &(linear_gradients){.dout = rows_of(a->dxz),
                                          .dinput = rows_of(a->dnormed),
                                          .dweight = dw[W_IN_PROJ],
                                          .dbias = dw[W_IN_PROJ_BIAS]}));
  return clm_norm_backward(
      ctx, &(clm_norm_backward_args){
               .forward = norm, .dout = rows_of(a->dnormed), .residual = dx, .dx = dx, .dweight = dw[W_NORM]});
}
