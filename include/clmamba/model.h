/* The Mamba-1 language model (Gu & Dao 2023): embedding, residual blocks of norm and mixer, final norm, head.
 *
 * A model directory holds config.json, model.safetensors and tokenizer.json as Hugging Face's MambaForCausalLM reads
 * and writes them; the names of the original state-spaces checkpoints are read too.
 *
 * Thread safety: as the model's context, one call at a time. */
#ifndef CLMAMBA_MODEL_H
#define CLMAMBA_MODEL_H

#include <clmamba/tensor.h>

CLM_BEGIN_DECLS

/* Zeroed members mean the default in brackets. */
typedef struct clm_model_config {
  int64_t vocab_size;             /* no default                                            */
  int64_t d_model;                /* no default                                            */
  int64_t n_layer;                /* no default                                            */
  int64_t d_state;                /* [16]                                                  */
  int64_t d_conv;                 /* [4]                                                   */
  int64_t expand;                 /* [2] d_inner = expand d_model                          */
  int64_t d_inner;                /* [expand d_model]                                      */
  int64_t dt_rank;                /* [d_model / 16, rounded up]                            */
  float norm_epsilon;             /* [1e-5]                                                */
  float dt_min, dt_max, dt_floor; /* [1e-3, 0.1, 1e-4] initial step sizes      */
  float embedding_range;          /* [0.02] standard deviation of the initial embedding */
  bool projection_bias;           /* biases on in_proj and out_proj            */
  bool no_conv_bias;
  bool untied_head; /* lm_head has a weight of its own                         */
} clm_model_config;

typedef struct clm_model clm_model;

/* A model with the paper's initialisation: A_log = log(1..d_state), D = 1, dt bias = inverse softplus of a
 * log-uniform step, out_proj scaled by 1/sqrt(n_layer). The same seed gives the same weights on every device. */
CLM_API clm_status clm_model_create(clm_context *context, const clm_model_config *config, uint64_t seed,
                                    clm_model **model);

/* Reads config.json and model.safetensors (F32, F16 or BF16, held as f32) of `directory`. */
CLM_API clm_status clm_model_load(clm_context *context, const char *directory, clm_model **model);

/* Writes config.json and model.safetensors (F32) into `directory`, which must exist; each is written beside, then
 * renamed. */
CLM_API clm_status clm_model_save(clm_model *model, const char *directory);

/* Frees the model and sets *model to NULL. Accepts NULL. States of the model must have been destroyed before. */
CLM_API void clm_model_destroy(clm_model **model);

CLM_API clm_context *clm_model_context(const clm_model *model);
CLM_API const clm_model_config *clm_model_configuration(const clm_model *model); /* with defaults filled in */
CLM_API int64_t clm_model_parameter_count(const clm_model *model);

/* The tensor of a parameter by its name in model.safetensors, e.g. "backbone.layers.0.mixer.A_log"; and its gradient,
 * valid after clm_model_loss with `gradient`. Borrowed from the model. */
CLM_API clm_status clm_model_parameter(clm_model *model, const char *name, clm_tensor *parameter);
CLM_API clm_status clm_model_gradient(clm_model *model, const char *name, clm_tensor *gradient);

/* Logits of every position, from zero state. */
CLM_API clm_status clm_model_forward(clm_model *model, clm_tensor ids /* (batch, length) i32 */,
                                     clm_tensor logits /* (batch, length, vocab) f32, written */);

/* Cross-entropy of every position, from zero state, and the gradient of its mean over all positions. The logits are
 * made in blocks of rows, so that their memory stays bounded; activations are kept small by recomputing the
 * convolution, the step sizes and the gate on the way back. */
typedef struct clm_model_loss_args {
  clm_tensor ids;     /* (batch, length)  i32                                                 */
  clm_tensor targets; /* (batch, length)  i32; -1 ignores the position                        */
  clm_tensor losses;  /* (batch, length)  f32, written: nats                                  */
  bool gradient;      /* compute the gradients of all parameters                              */
  float dropout;      /* rate on the output of every mixer, 0 for none                        */
  uint64_t seed;      /* of the dropout masks: another one for every step                     */
} clm_model_loss_args;

CLM_API clm_status clm_model_loss(clm_model *model, const clm_model_loss_args *args);

/* Nats per token of a text: every token but its first is predicted, in windows of `window` predictions (0:
 * CLM_SCORE_WINDOW) that do not overlap, each from zero state. At least two tokens are needed. Training validates by
 * the same rule. */
#define CLM_SCORE_WINDOW 256
CLM_API clm_status clm_model_score(clm_model *model, const int32_t *ids, size_t count, int64_t window, double *loss);

/* What a sequence leaves behind: the last inputs of every convolution and the state of every scan. */
typedef struct clm_model_state clm_model_state;

CLM_API clm_status clm_model_state_create(clm_model *model, int64_t batch, clm_model_state **state); /* zero */
CLM_API clm_status clm_model_state_reset(clm_model_state *state);
CLM_API void clm_model_state_destroy(clm_model_state **state);

/* Runs `ids` from `state` on, leaves the state after them, and gives the logits of the last position. */
CLM_API clm_status clm_model_prefill(clm_model *model, clm_model_state *state, clm_tensor ids /* (batch, length) */,
                                     clm_tensor logits /* (batch, vocab) f32, written */);

/* One token more. */
CLM_API clm_status clm_model_decode(clm_model *model, clm_model_state *state, clm_tensor ids /* (batch) i32 */,
                                    clm_tensor logits /* (batch, vocab) f32, written */);

CLM_END_DECLS

#endif
