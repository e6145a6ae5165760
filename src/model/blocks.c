/* The blocks of a model one after another, and the norm behind them. */
#include "core/context.h"
#include "core/rng.h"
#include "core/try.h"
#include "model/model.h"

static mixer_pass pass_of(int layer, clm_model_state *state, const blocks_dropout *dropout) {
  mixer_pass pass = {.layer = layer, .state = state};
  if (dropout) {
    rng r = rng_seed(dropout->seed, (uint64_t)layer); /* a mask of its own for each layer */
    pass.dropout = dropout->rate;
    pass.seed = rng_next(&r);
  }
  return pass;
}

clm_status blocks_forward(clm_model *m, clm_model_state *state, const blocks_dropout *dropout) {
  for (int layer = 0; layer < m->config.n_layer; layer++) {
    mixer_pass pass = pass_of(layer, state, dropout);
    TRY(mixer_forward(m, &pass));
  }
  return CLM_OK;
}

static clm_status steps(clm_model *m, clm_model_state *state) {
  for (int layer = 0; layer < m->config.n_layer; layer++) {
    mixer_pass pass = pass_of(layer, state, NULL);
    TRY(m->config.d_conv > 1 ? mixer_step(m, &pass) : mixer_forward(m, &pass));
  }
  return CLM_OK;
}

clm_status blocks_step(clm_model *m, clm_model_state *state) {
  const activations *act = &m->act;
  const batch_key key = {{(uintptr_t)m, (uintptr_t)state, (uintptr_t)act->buffer, (uint64_t)act->batch,
                          (uint64_t)act->length, (uint64_t)act->mode}};
  if (context_batch_again(m->context, &key)) return CLM_OK;
  context_batch_begin(m->context);
  clm_status status = steps(m, state);
  context_batch_end(m->context, status == CLM_OK ? &key : NULL);
  return status;
}

clm_status blocks_backward(clm_model *m, const blocks_dropout *dropout) {
  for (int layer = (int)m->config.n_layer - 1; layer >= 0; layer--) {
    mixer_pass pass = pass_of(layer, NULL, dropout);
    TRY(mixer_backward(m, &pass));
  }
  return CLM_OK;
}

clm_norm_args final_norm_args(const clm_model *m, clm_tensor x, clm_tensor out) {
  return (clm_norm_args){.x = x,
                         .weight = m->weights[0][W_NORM_F],
                         .bias = m->weights[0][W_NORM_F_BIAS],
                         .out = out,
                         .epsilon = m->config.norm_epsilon,
                         .kind = m->config.layer_norm ? CLM_LAYER_NORM : CLM_RMS_NORM};
}
