/* The inside of a model, for src/model. */
#ifndef CLM_MODEL_MODEL_H
#define CLM_MODEL_MODEL_H

#include "core/op_plan.h"
#include "model/activations.h"
#include "model/blocks.h"
#include "model/ends.h"
#include "model/kept.h"
#include "model/weights.h"
#include <clmamba/norm.h>

struct clm_model {
  clm_context *context;
  clm_model_config config;
  model_blocks blocks;
  param_views ends;
  weights_layout layout;
  clm_buffer *parameters, *gradients; /* flat; gradients is NULL before the first loss with gradients */
  activations act;
  kept kept; /* what is saved with it as it was loaded */
};

/* A tensor of the layers' states: those of one name and shape are together, one layer after another. */
typedef struct state_tensor {
  char name[48];
  clm_tensor all; /* (layers, batch, ...) */
  bool grows;     /* (layers, batch, room, ...) */
} state_tensor;

struct clm_model_state {
  clm_model *model;
  int64_t batch;
  clm_buffer *buffer;
  state_tensor *tensors;
  size_t tensor_count;
  clm_tensor *views;     /* [layer * TENSOR_LIST_MAX + i]: item i of what the layer's kind describes */
  clm_tensor hidden;     /* (batch, d_model): the final norm's output at the last token  */
  clm_tensor cu_seqlens; /* (batch + 1) i32: where the sequences of a packed run begin   */
  int64_t *tokens;       /* of each sequence so far                                      */
  bool grows;            /* some tensors do                                              */
  int64_t room;          /* tokens of a sequence that these have memory for              */
  clm_tensor positions;  /* (batch) i32: `tokens`, where it grows                        */
  bool unfinished;       /* a call that ran from it failed part of the way               */
  op_plan *step;         /* the blocks' operations of a step, or NULL                    */
  uint64_t step_layout;  /* activations.layouts that they work in                        */
  bool step_tried;       /* to record them there                                         */
};

/* CLM_INVALID_ARGUMENT and a message where the state is unfinished. */
clm_status model_state_check(const clm_model_state *state, const char *call);

/* Makes room for so many tokens of each sequence; nothing to do where the state does not grow. */
clm_status model_state_reserve(clm_model_state *state, int64_t tokens);

/* The tokens of the longest of `count` sequences. */
int64_t model_state_longest(const clm_model_state *state, int64_t row, int64_t count);

/* Tokens of `count` sequences, as the host knows them, into the device's memory. */
clm_status model_state_write_positions(clm_model_state *state, int64_t row, int64_t count);

/* A model around `config`, which is complete: initialised from a seed, or with the weights of a file. A model of
 * frames has vocab_size 0. */
clm_status model_create(clm_context *context, const clm_model_config *config, model_ends ends, uint64_t seed,
                        clm_model **model);
clm_status model_load(clm_context *context, const clm_model_config *config, model_ends ends, const char *weights_path,
                      clm_model **model);

/* The blocks and the places of all parameters, which have no memory yet. */
clm_status model_lay_out(clm_model *model, const clm_model_config *config, model_ends ends);

clm_status model_save_weights(clm_model *model, const char *path);

/* Of a configuration that ties the head to the embedding: unties them, with a warning, if the source has both with
 * different values, as transformers 5 does. */
clm_status model_check_tie(clm_context *context, const source *from, clm_model_config *config);

/* Makes the flat buffer of gradients, cleared. */
clm_status model_need_gradients(clm_model *model);

/* Makes model->act and the memory of the layers fit a pass over (batch, length); nothing to do if they do already.
 * Waits for the stream if the buffer has to grow. */
clm_status model_prepare(clm_model *model, int64_t batch, int64_t length, activations_mode mode);

/* Dropout NULL: none. */
typedef struct blocks_dropout {
  float rate;
  uint64_t seed; /* of the masks: another one for every step */
} blocks_dropout;

typedef struct blocks_pass {
  clm_model_state *state;        /* NULL: from zero state, which is not kept                                     */
  clm_tensor cu_seqlens;         /* given: a batch row of packed sequences, each with a row of the state         */
  const blocks_dropout *dropout; /* NULL: none */
  /* Optional: called when the output of a block is in act.x[number + 1]. */
  clm_status (*after)(void *user, int number);
  void *user;
} blocks_pass;

/* act.x[0] -> act.x[n_layer]; blocks_step: of length 1, with a state. */
clm_status blocks_forward(clm_model *model, const blocks_pass *pass);
clm_status blocks_step(clm_model *model, clm_model_state *state);

/* act.dx: from the gradient of act.x[n_layer] to that of act.x[0]; writes the blocks' gradients. */
clm_status blocks_backward(clm_model *model, const blocks_dropout *dropout);

/* The norm after the blocks, of matrices (rows, d_model). */
clm_norm_args final_norm_args(const clm_model *model, clm_tensor x, clm_tensor out);

/* ln sum exp, of host memory. */
double model_log_sum(const float *logits, int64_t count);

/* Of a language model: its head (an END_), and logits = input head^T. */
int head_id(const clm_model *model);
clm_status head_forward(const clm_model *model, clm_tensor input, clm_tensor logits);

/* Of `count` ids. */
clm_status embedding_forward(const clm_model *model, clm_tensor ids, clm_tensor out);

/* The last position of act.x[n_layer], (batch, d_model). */
clm_tensor model_last_rows(const clm_model *model);

#endif
