/* The inside of a model, for src/model. */
#ifndef CLM_MODEL_MODEL_H
#define CLM_MODEL_MODEL_H

#include "model/activations.h"
#include "model/kept.h"
#include "model/weights.h"
#include <clmamba/norm.h>

typedef clm_tensor parameter_views[W_COUNT]; /* of one layer; the model's own stand in layer 0 */

struct clm_model {
  clm_context *context;
  clm_model_config config;
  weights_layout layout;
  clm_buffer *parameters, *gradients; /* flat; gradients is NULL before the first loss with gradients */
  parameter_views *weights, *dweights;
  parameter_views *scales; /* of the rows of weights in i8; absent beside others */
  activations act;
  kept kept; /* what is saved with it as it was loaded */
};

struct clm_model_state {
  clm_model *model;
  int64_t batch;
  clm_buffer *buffer;
  clm_tensor conv;       /* (n_layer, batch, d_inner, d_conv - 1), absent if d_conv is 1 */
  clm_tensor scan;       /* (n_layer, batch, d_inner, d_state)                           */
  clm_tensor hidden;     /* (batch, d_model): the final norm's output at the last token  */
  clm_tensor cu_seqlens; /* (batch + 1) i32: where the sequences of a packed run begin   */
  int64_t *tokens;       /* of each sequence so far                                      */
};

/* A model around `config`, which is complete: initialised from a seed, or with the weights of a file. A model of
 * frames has vocab_size 0. */
clm_status model_create(clm_context *context, const clm_model_config *config, weights_ends ends, uint64_t seed,
                        clm_model **model);
clm_status model_load(clm_context *context, const clm_model_config *config, weights_ends ends,
                      const char *weights_path, clm_model **model);
clm_status model_save_weights(clm_model *model, const char *path);

/* Makes the flat buffer of gradients, cleared. */
clm_status model_need_gradients(clm_model *model);

/* The blocks one after another. Dropout NULL: none. */
typedef struct blocks_dropout {
  float rate;
  uint64_t seed; /* of the masks: another one for every step */
} blocks_dropout;

/* act.x[0] -> act.x[n_layer] */
clm_status blocks_forward(clm_model *model, clm_model_state *state, const blocks_dropout *dropout);
clm_status blocks_step(clm_model *model, clm_model_state *state); /* of length 1 */

/* act.dx: from the gradient of act.x[n_layer] to that of act.x[0]; writes the blocks' dweights. */
clm_status blocks_backward(clm_model *model, const blocks_dropout *dropout);

/* The norm behind the blocks, of matrices (rows, d_model). */
clm_norm_args final_norm_args(const clm_model *model, clm_tensor x, clm_tensor out);

/* ln sum exp, of host memory. */
double model_log_sum(const float *logits, int64_t count);

/* Of a language model: its head, and logits = input head^T. */
weight_id head_id(const clm_model *model);
clm_status head_forward(const clm_model *model, clm_tensor input, clm_tensor logits);

/* Of `count` ids. */
clm_status embedding_forward(const clm_model *model, clm_tensor ids, clm_tensor out);

/* The last position of act.x[n_layer], (batch, d_model). */
clm_tensor model_last_rows(const clm_model *model);

/* One residual block: norm, mixer, skip. */
typedef struct mixer_pass {
  int layer;
  clm_model_state *state; /* NULL: from zero state, which is not kept */
  float dropout;
  uint64_t seed;
  clm_tensor cu_seqlens; /* given: a batch row of packed sequences, each with a row of the state */
} mixer_pass;

/* act.x[layer] -> act.x[layer + 1], keeping act.xz[layer] and act.dbc[layer]. */
clm_status mixer_forward(clm_model *model, const mixer_pass *pass);

/* act.dx: from the gradient of act.x[layer + 1] to that of act.x[layer]; writes the layer's dweights. */
clm_status mixer_backward(clm_model *model, const mixer_pass *pass);

/* One step with pass->state; activations prepared for length 1. */
clm_status mixer_step(clm_model *model, const mixer_pass *pass);

#endif
