/* The blocks of a model one after another, and the norm after them. */
#include "core/context.h"
#include "core/rng.h"
#include "core/try.h"
#include "model/linear.h"
#include "model/model.h"
#include <clmamba/attention.h>
#include <clmamba/elementwise.h>

void block_params(const clm_model_config *c, param *p) {
  p[BLOCK_NORM] =
      (param){"norm.weight", "attn_norm.weight", .number = 3, .rank = 1, .shape = {c->d_model}, .init = param_ones};
  if (c->layer_norm) p[BLOCK_NORM_BIAS] = (param){"norm.bias", .number = 20, .rank = 1, .shape = {c->d_model}};
}

static clm_norm_args norm_args(const clm_model *m, const param_views *owner, int weight_at, int bias_at, clm_tensor x,
                               clm_tensor out) {
  return (clm_norm_args){.x = x,
                         .weight = owner->value[weight_at],
                         .bias = owner->value[bias_at],
                         .out = out,
                         .epsilon = m->config.norm_epsilon,
                         .kind = m->config.layer_norm ? CLM_LAYER_NORM : CLM_RMS_NORM};
}

clm_norm_args final_norm_args(const clm_model *m, clm_tensor x, clm_tensor out) {
  return norm_args(m, &m->ends, END_NORM, END_NORM_BIAS, x, out);
}

static clm_norm_args block_norm_args(const clm_model *m, int number) {
  return norm_args(m, &m->blocks.items[number].params, BLOCK_NORM, BLOCK_NORM_BIAS, rows_of(m->act.x[number]),
                   rows_of(m->act.normed));
}

/* A mask of its own for each block. */
static uint64_t mask_seed(const blocks_dropout *dropout, int number) {
  rng r = rng_seed(dropout->seed, (uint64_t)number);
  return rng_next(&r);
}

static bool has_dropout(const blocks_dropout *dropout) { return dropout && dropout->rate > 0; }

static clm_status scale(const clm_model *m, clm_tensor branch) {
  if (m->config.residual_scale == 1) return CLM_OK;
  return clm_axpby(m->context, &(clm_axpby_args){.out = branch, .beta = m->config.residual_scale});
}

static clm_status run_layer(clm_model *m, const model_layer *l, const blocks_pass *pass, bool step, layer_pass *p) {
  if (pass->state && pass->state->grows) p->positions = pass->state->positions;
  if (pass->state) p->state = &pass->state->views[(l - m->blocks.layers) * TENSOR_LIST_MAX];
  return (step && l->kind->step ? l->kind->step : l->kind->forward)(m->context, l, p);
}

/* act.x[number] -> act.x[number + 1]. A single layer adds to the residual stream itself; else there is a branch. */
static clm_status run_block(clm_model *m, int number, const blocks_pass *pass, bool step) {
  const model_block *b = &m->blocks.items[number];
  const activations *a = &m->act;
  clm_norm_args norm = block_norm_args(m, number);
  layer_pass p = {.x = a->normed, .cu_seqlens = pass->cu_seqlens};
  TRY(clm_norm(m->context, &norm));
  if (b->layer_count == 1 && m->config.residual_scale == 1 && !has_dropout(pass->dropout)) {
    p.residual = a->x[number];
    p.out = a->x[number + 1];
    return run_layer(m, b->layers, pass, step, &p);
  }
  p.out = a->branch;
  for (int i = 0; i < b->layer_count; i++, p.residual = a->branch) TRY(run_layer(m, &b->layers[i], pass, step, &p));
  TRY(scale(m, a->branch));
  clm_dropout_args add = {.x = a->branch, .residual = a->x[number], .out = a->x[number + 1]};
  if (has_dropout(pass->dropout)) {
    add.rate = pass->dropout->rate;
    add.seed = mask_seed(pass->dropout, number);
  }
  return clm_dropout(m->context, &add);
}

static clm_status run(clm_model *m, const blocks_pass *pass, bool step) {
  for (int number = 0; number < m->config.n_layer; number++) {
    TRY(run_block(m, number, pass, step));
    if (pass->after) TRY(pass->after(pass->user, number));
  }
  if (!pass->state || !pass->state->grows) return CLM_OK;
  return clm_kv_advance(m->context, &(clm_kv_advance_args){.offsets = pass->state->positions,
                                                           .cu_seqlens = pass->cu_seqlens,
                                                           .steps = m->act.length});
}

clm_status blocks_forward(clm_model *m, const blocks_pass *pass) { return run(m, pass, false); }

/* The operations of a state's steps are the same ones for as long as the activations stay where they are. */
static clm_status record_step(clm_model *m, const blocks_pass *pass) {
  clm_model_state *state = pass->state;
  op_plan_drop(&state->step);
  state->step_layout = m->act.layouts;
  state->step_tried = true;
  TRY(op_plan_begin(m->context, &state->step));
  return op_plan_end(&state->step, run(m, pass, true));
}

clm_status blocks_step(clm_model *m, clm_model_state *state) {
  const blocks_pass pass = {.state = state};
  const bool current = state->step_tried && state->step_layout == m->act.layouts;
  if (!current) record_step(m, &pass);
  return state->step ? op_plan_run(state->step) : run(m, &pass, true); /* no plans here, or it says what is wrong */
}

/* act.dx: from the gradient of act.x[number + 1] to that of act.x[number]. */
static clm_status run_block_backward(clm_model *m, int number, const blocks_dropout *dropout) {
  const model_block *b = &m->blocks.items[number];
  const activations *a = &m->act;
  clm_norm_args norm = block_norm_args(m, number);
  layer_gradient g = {.x = a->normed, .dout = a->dx, .dx = a->dnormed};
  if (has_dropout(dropout) || m->config.residual_scale != 1) {
    clm_dropout_args mask = {.x = a->dx, .out = a->branch};
    if (has_dropout(dropout)) {
      mask.rate = dropout->rate;
      mask.seed = mask_seed(dropout, number);
    }
    g.dout = a->branch;
    TRY(clm_dropout(m->context, &mask));
    TRY(scale(m, a->branch));
  }
  TRY(clm_norm(m->context, &norm));
  for (int i = 0; i < b->layer_count; i++, g.accumulate = true)
    TRY(b->layers[i].kind->backward(m->context, &b->layers[i], &g));
  clm_tensor dx = rows_of(a->dx);
  return clm_norm_backward(m->context, &(clm_norm_backward_args){.forward = norm,
                                                                 .dout = rows_of(a->dnormed),
                                                                 .residual = dx,
                                                                 .dx = dx,
                                                                 .dweight = b->params.gradient[BLOCK_NORM],
                                                                 .dbias = b->params.gradient[BLOCK_NORM_BIAS]});
}

clm_status blocks_backward(clm_model *m, const blocks_dropout *dropout) {
  for (int number = (int)m->config.n_layer - 1; number >= 0; number--) TRY(run_block_backward(m, number, dropout));
  return CLM_OK;
}
