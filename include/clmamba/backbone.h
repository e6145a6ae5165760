/* The Mamba blocks over sequences of vectors: an input projection, residual blocks of norm and mixer, a final norm
 * and, on request, a linear head over the last or over every hidden state. For signals, sensors and features of other
 * models, where a language model takes tokens.
 *
 * A directory holds config.json (model_type "clmamba_backbone") and model.safetensors; the blocks have the names of
 * Hugging Face's MambaModel, around them stand input_proj and head.
 *
 * Thread safety: as the context, one call at a time. */
#ifndef CLMAMBA_BACKBONE_H
#define CLMAMBA_BACKBONE_H

#include <clmamba/model.h>

CLM_BEGIN_DECLS

typedef enum clm_backbone_output {
  CLM_OUTPUT_LAST, /* one output for a sequence, at its last frame */
  CLM_OUTPUT_EVERY /* one for every frame                          */
} clm_backbone_output;

typedef enum clm_backbone_task {
  CLM_TASK_REGRESSION,    /* outputs are numbers: mean squared error                      */
  CLM_TASK_CLASSIFICATION /* outputs are logits of classes: cross-entropy of the softmax  */
} clm_backbone_task;

/* Zeroed members mean the default in brackets. */
typedef struct clm_backbone_config {
  int64_t embed_dim; /* no default: numbers in a frame                                                     */
  int64_t d_model;   /* no default                                                                         */
  int64_t n_layers;  /* no default                                                                         */
  int64_t d_state;   /* [16]                                                                               */
  int64_t expand;    /* [2] d_inner = expand d_model                                                       */
  int64_t d_conv;    /* [4]                                                                                */
  int64_t window;    /* [no limit] an output sees this many frames, its own the last                       */
  int64_t n_outputs; /* [no head: the outputs are the hidden states] */
  float dropout;     /* [0] rate on the output of every mixer, in training; below 1                        */
  clm_backbone_output output;
  clm_backbone_task task;
  const char
      *layers; /* [every block is "mamba1"] the blocks' layers, as in clm_model_config; borrowed for the call */

  /* Of "mamba2" layers, as in clm_model_config. */
  int64_t head_dim; /* [the greatest power of two up to 64 that divides d_inner] channels of a head                */
  int64_t n_groups; /* [1] of B, C and the gated norm; divides the number of heads                                 */
} clm_backbone_config;

typedef struct clm_backbone_preset {
  const char *name, *description;
  clm_backbone_config config; /* embed_dim, n_outputs, output and task are left to the caller */
} clm_backbone_preset;

/* The table of recommended shapes; the first is the default. "real-time" is meant for steps at 60 Hz on one core. */
CLM_API const clm_backbone_preset *clm_backbone_presets(size_t *count);

typedef struct clm_backbone clm_backbone;

/* Initialised as clm_model_create does; projections uniform within 1/sqrt(inputs), their biases 0. The same seed
 * gives the same weights on every device. */
CLM_API clm_status clm_backbone_create(clm_context *context, const clm_backbone_config *config, uint64_t seed,
                                       clm_backbone **backbone);

/* From and to config.json and model.safetensors (F32) of `directory`, which must exist; each file is written
 * under a temporary name, then renamed. */
CLM_API clm_status clm_backbone_load(clm_context *context, const char *directory, clm_backbone **backbone);
CLM_API clm_status clm_backbone_save(clm_backbone *backbone, const char *directory);

/* Sets *backbone to NULL; accepts NULL. Its states and trainers must have been destroyed before. */
CLM_API void clm_backbone_destroy(clm_backbone **backbone);

CLM_API clm_context *clm_backbone_context(const clm_backbone *backbone);
CLM_API const clm_backbone_config *clm_backbone_configuration(const clm_backbone *backbone); /* defaults filled in */
CLM_API int64_t clm_backbone_param_count(const clm_backbone *backbone);
CLM_API int64_t clm_backbone_output_size(const clm_backbone *backbone); /* n_outputs, or d_model without a head */

/* Names of the outputs (classes, or quantities), kept in config.json: output_size of them are copied, NULL forgets
 * them. The name of output i, or NULL if there are none or i is out of range. */
CLM_API clm_status clm_backbone_set_names(clm_backbone *backbone, const char *const *names);
CLM_API const char *clm_backbone_name(const clm_backbone *backbone, int64_t i);

/* A parameter by its name in model.safetensors, e.g. "head.weight" or "backbone.layers.0.mixer.A_log"; and its
 * gradient after clm_backbone_loss with `gradient`. Borrowed. */
CLM_API clm_status clm_backbone_parameter(clm_backbone *backbone, const char *name, clm_tensor *parameter);
CLM_API clm_status clm_backbone_gradient(clm_backbone *backbone, const char *name, clm_tensor *gradient);

/* All of them, one after the other (clmamba/model.h). */
CLM_API int64_t clm_backbone_tensor_count(const clm_backbone *backbone);
CLM_API clm_status clm_backbone_tensor(clm_backbone *backbone, int64_t index, clm_parameter *parameter);

/* Outputs of whole sequences, from zero state, without dropout. Of a sequence longer than the window, CLM_OUTPUT_LAST
 * takes the last `window` frames; CLM_OUTPUT_EVERY runs each window by itself, which costs (length - window) passes
 * over `window` frames. */
CLM_API clm_status clm_backbone_forward(clm_backbone *backbone,
                                        clm_tensor frames /* (batch, length, embed_dim) f32, f16 or bf16 */,
                                        clm_tensor out /* (batch, output_size), or with CLM_OUTPUT_EVERY (batch,
                                                          length, output_size), f32, contiguous, written */);

/* The state after a sequence: the last inputs of every convolution, the state of every scan and, with a window,
 * the frames in it. */
typedef struct clm_backbone_state clm_backbone_state;

CLM_API clm_status clm_backbone_state_create(clm_backbone *backbone, int64_t batch, clm_backbone_state **state);
CLM_API clm_status clm_backbone_state_reset(clm_backbone_state *state); /* to the beginning of a sequence */
CLM_API void clm_backbone_state_destroy(clm_backbone_state **state);

/* One frame more, and the output at it: what clm_backbone_forward gives at the last of the frames so far. Constant in
 * time and memory; but once more frames have come than the window has, each step runs the whole window. */
CLM_API clm_status clm_backbone_step(clm_backbone *backbone, clm_backbone_state *state,
                                     clm_tensor frame /* (batch, embed_dim) f32, f16 or bf16 */,
                                     clm_tensor out /* (batch, output_size) f32, written */);

/* A loss of the caller's own takes two calls: one with `out`, without targets, loss and gradient, gives the outputs;
 * from the gradient of the loss with respect to them, dout, another with `gradient`, the same frames, lengths,
 * dropout and seed gives that of all parameters.
 *
 * The mean loss over all outputs of the batch (squared errors: over batch, positions and outputs; cross-entropy in
 * nats: over batch and positions), from zero state, and its gradient. Sequences may end early: of sequence b the
 * first lengths[b] frames count, and CLM_OUTPUT_LAST takes the last of them. With CLM_OUTPUT_EVERY or `lengths`,
 * `length` may not exceed the window. */
typedef struct clm_backbone_loss_args {
  clm_tensor frames;      /* (batch, length, embed_dim)  f32, f16 or bf16                                       */
  const int64_t *lengths; /* optional, batch of them on the host, 1 to length each                              */
  clm_tensor targets; /* regression: f32, the shape of the outputs; classification: i32, that shape without its last
                         dimension, where -1 adds no loss (but counts in the mean)                              */
  clm_tensor loss;    /* (1)  f32, written                                                                      */
  bool gradient;      /* compute the gradients of all parameters                                                */
  float dropout;      /* rate on the output of every mixer, 0 for none: config.dropout is the trainer's business */
  uint64_t seed;      /* of the dropout masks: another one for every step                                       */

  clm_tensor out;  /* optional, as clm_backbone_forward's, written: the outputs, with the dropout that is asked for;
                      after a sequence's end they may be anything                                               */
  clm_tensor dout; /* optional, shape of out, f32, contiguous: in place of targets and loss                     */
} clm_backbone_loss_args;

CLM_API clm_status clm_backbone_loss(clm_backbone *backbone, const clm_backbone_loss_args *args);

/* Sequences and what is to be learnt of them, in the caller's memory. */
typedef struct clm_sequences {
  int64_t count;
  const int64_t *lengths; /* (count) frames of each; NULL: `length`                                              */
  int64_t length;
  const float *frames;  /* (sum of lengths, embed_dim): one sequence after the other                           */
  const float *targets; /* regression: (count, output_size), or with CLM_OUTPUT_EVERY (sum of lengths, output_size) */
  const int32_t *classes; /* classification: (count), or (sum of lengths); -1: not to be learnt, not counted     */
} clm_sequences;

typedef struct clm_backbone_score {
  double loss;    /* mean squared error, or nats                                                           */
  double quality; /* R2 (1 - squared errors / squared deviations from the mean of each output; NaN where the targets
                     do not vary), or accuracy: the fraction of the largest logits that are right       */
  int64_t count;  /* outputs that were scored                                                              */
} clm_backbone_score;

CLM_API clm_status clm_backbone_evaluate(clm_backbone *backbone, const clm_sequences *sequences,
                                         clm_backbone_score *score);

CLM_END_DECLS

#endif
