/* The Mamba language model (Gu & Dao 2023, Dao & Gu 2024): embedding, residual blocks of norm and mixer, final norm,
 * head.
 *
 * A model directory holds config.json, model.safetensors and tokenizer.json as Hugging Face's MambaForCausalLM,
 * FalconMambaForCausalLM and Mamba2ForCausalLM read and write them; the original state-spaces checkpoints,
 * pytorch_model.bin, weights in several files with an index and GGUF files are read too (docs/models.md).
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
  int64_t expand;                 /* [2] only the default of d_inner                       */
  int64_t d_inner;                /* [expand d_model] of any size, a multiple of d_model or not */
  int64_t dt_rank;                /* [d_model / 16, rounded up]                            */
  float norm_epsilon;             /* [1e-5]                                                */
  float dt_min, dt_max, dt_floor; /* [1e-3, 0.1, 1e-4] initial step sizes      */
  float embedding_range;          /* [0.02] standard deviation of the initial embedding */
  bool projection_bias;           /* biases on in_proj and out_proj            */
  bool no_conv_bias;
  bool untied_head;         /* lm_head has a weight of its own                         */
  bool layer_norm;          /* LayerNorm with bias for RMSNorm: original checkpoints with rms_norm false       */
  bool mixer_norm;          /* RMS norms without weight on delta, B and C in every mixer, as FalconMamba has   */
  float mixer_norm_epsilon; /* [1e-6] of these                                                         */
  /* [every block is "mamba1"] The layers of the blocks, e.g. "mamba1 mlp(width=512)" (docs/models.md): blocks are
   * separated by spaces, layers of one block that run in parallel by "+"; the list is repeated to n_layer blocks,
   * which it gives the default of. Borrowed for the call; of a model's configuration: the model's. */
  const char *layers;
  float residual_scale; /* [1] of a block's layers where they are added to the residual stream */

  /* Of "mamba2" layers. */
  int64_t head_dim;      /* [the greatest power of two up to 64 that divides d_inner] channels of a head       */
  int64_t n_groups;      /* [1] of B, C and the gated norm; divides the number of heads, d_inner / head_dim    */
  int64_t d_mlp;         /* [0] channels of an MLP parallel to the heads (the original's d_ssm < d_inner)           */
  float dt_limit_low;    /* [0] smallest step size                                                                */
  float dt_limit_high;   /* [0: none] largest step size                                                       */
  bool D_per_channel;    /* D has a number for each channel, not for each head                                 */
  bool norm_before_gate; /* the gated norm norms first, then comes the gate                                    */
  bool no_gated_norm;    /* a gate alone                                                                       */

  float expert_scale;      /* [1] factor on the weights of experts in "moe" layers     */
  bool mixer_norm_weights; /* the norms of mixer_norm have weights, as Jamba's have    */

  /* Of "attention" layers. */
  int64_t attention_heads; /* [d_model / attention_head_dim, at least 1]                                           */
  int64_t kv_heads;        /* [attention_heads] heads of keys and values; divides attention_heads                  */
  int64_t attention_head_dim; /* [d_model / attention_heads; without those the greatest power of two up to 64 that
                                 divides d_model] */
  int64_t rotary_dim;       /* [attention_head_dim] numbers of a head that rope rotates                             */
  int64_t attention_window; /* [0: all] keys that a query sees, its own among them                                  */
  float rope_theta;         /* [0: no rotary positions]                                                             */
  float attention_scale;    /* [1 / sqrt(attention_head_dim)] of the scores                                         */
  bool attention_bias;      /* biases on q_proj, k_proj, v_proj and o_proj                                          */
  bool rope_interleaved;    /* pairs are the numbers 2 i and 2 i + 1, not i and i + rotary_dim / 2                  */
  bool qk_norm;             /* RMS norms of each head of queries and keys                                           */

  float logit_scale; /* [1] of the logits */
} clm_model_config;

typedef struct clm_model clm_model;

/* A model with the papers' initialisation: A_log = log(1..d_state), of Mamba-2 log of uniform in [1, 16], D = 1, dt
 * bias = inverse softplus of a log-uniform step, out_proj scaled by 1/sqrt(n_layer). The same seed gives the same
 * weights on every device. */
CLM_API clm_status clm_model_create(clm_context *context, const clm_model_config *config, uint64_t seed,
                                    clm_model **model);

/* How the matrices (embedding, head, in_proj, x_proj, dt_proj, out_proj) are held in the device's memory; everything
 * else is f32, and so is all arithmetic. Training needs f32. */
typedef enum clm_weights_type {
  CLM_WEIGHTS_F32,
  CLM_WEIGHTS_F16,
  CLM_WEIGHTS_BF16,
  CLM_WEIGHTS_AS_STORED, /* each as the file has it; f32 where that is quantized */
  CLM_WEIGHTS_INT8       /* integers from -127 to 127 with an f32 scale for each row, its largest magnitude over 127;
                            made at load from any stored dtype. A quarter of the bytes of f32 */
} clm_weights_type;

/* Zeroed members mean the default. */
typedef struct clm_model_load_options {
  clm_weights_type weights;
  /* Called now and then while the weights are read, with bytes of the file; false stops, with CLM_INTERRUPTED. */
  bool (*progress)(void *user, uint64_t done, uint64_t total);
  void *user;
  clm_dtype activations; /* [f32] as clm_model_set_activations says */
} clm_model_load_options;

/* Reads a model directory, or a GGUF file. Of a directory: config.json, and the first of model.safetensors,
 * model.safetensors.index.json, pytorch_model.bin and pytorch_model.bin.index.json that is there; weights in F32, F16
 * or BF16. Of a GGUF file of architecture mamba or mamba2: F32, F16, BF16 or Q8_0. Weights are converted piece by
 * piece on their way into the device's memory, which alone holds them. A tensor with values that are not finite gets
 * a warning in the context's log. Files are checked in full: a damaged or hostile one is CLM_BAD_FORMAT with a
 * message, a file of a kind that is not read CLM_UNSUPPORTED. */
CLM_API clm_status clm_model_load(clm_context *context, const char *path, clm_model **model);

/* The same with options; NULL: the defaults. */
CLM_API clm_status clm_model_load_with(clm_context *context, const char *path, const clm_model_load_options *options,
                                       clm_model **model);

/* The shape of such a model, defaults filled in, without its weights; `layers` is left NULL. */
CLM_API clm_status clm_model_read_config(clm_context *context, const char *path, clm_model_config *config);

/* Writes config.json and model.safetensors into `directory`, which must exist, under temporary names first.
 * Tensors are written as they are held, so that loading them as stored gives the same bits; those held as int8 as the
 * f32 that they represent, which any reader takes and CLM_WEIGHTS_INT8 makes the same integers of. The layout is
 * Hugging Face's; what that does not have (layer_norm, an MLP after each mixer) gets the original package's, or where
 * that lacks it too clmamba's own (docs/models.md). */
CLM_API clm_status clm_model_save(clm_model *model, const char *directory);

/* Frees the model and sets *model to NULL. Accepts NULL. States of the model must have been destroyed before. */
CLM_API void clm_model_destroy(clm_model **model);

/* The dtype of the activations inside the layers: f32 (what a model begins with), bf16 or f16. In 16 bits they take
 * half the memory and time of moving them, and products are made of 16-bit numbers: of weights that are held as f32
 * a device with a matrix engine keeps 16-bit copies, made again when the weights change. The residual stream, sums,
 * the states of sequences, logits, losses and the gradients of parameters are f32 whatever the activations are.
 * Gradients in f16 need a loss scale (clm_model_loss_args). Takes effect with the next call. */
CLM_API clm_status clm_model_set_activations(clm_model *model, clm_dtype dtype);

CLM_API clm_context *clm_model_context(const clm_model *model);
CLM_API const clm_model_config *clm_model_configuration(const clm_model *model); /* with defaults filled in */
CLM_API int64_t clm_model_parameter_count(const clm_model *model);

/* The tensor of a parameter by its name in model.safetensors, e.g. "backbone.layers.0.mixer.A_log"; and its gradient,
 * valid after clm_model_loss with `gradient`. The scales of a matrix held as int8 have its name and "_scale" after
 * it: "lm_head.weight_scale", f32 (rows). Borrowed from the model. */
CLM_API clm_status clm_model_parameter(clm_model *model, const char *name, clm_tensor *parameter);
CLM_API clm_status clm_model_gradient(clm_model *model, const char *name, clm_tensor *gradient);

/* All parameters, one after the other: for an optimizer or a file format of the caller's own. */
#define CLM_PARAMETER_NAME 96
typedef struct clm_parameter {
  char name[CLM_PARAMETER_NAME]; /* as in model.safetensors                                             */
  clm_tensor tensor;             /* as clm_model_parameter gives it; borrowed                           */
  clm_tensor gradient;           /* absent before the first clm_model_loss with `gradient`; borrowed    */
  bool decays;                   /* weight decay is for it: not A_log, D, norms and biases              */
} clm_parameter;

/* How many tensors they are (clm_model_parameter_count counts their numbers), and the one at `index`. */
CLM_API int64_t clm_model_tensor_count(const clm_model *model);
CLM_API clm_status clm_model_tensor(clm_model *model, int64_t index, clm_parameter *parameter);

/* The state of sequences: in every layer the last inputs of the convolution and the state of the scan, and the
 * final norm's output at the last token. A few hundred KiB a sequence, however long it was. Attention layers have the
 * keys and values of all tokens besides: their memory is for as many tokens as the longest sequence of the state, and
 * grows with it, by half at least. */
typedef struct clm_model_state clm_model_state;

/* A call that fails leaves the state as it was, or unfinished: then every further call with it says so, until it is
 * reset or copied over as a whole. */

/* A pass over a batch of sequences of any length: it works in chunks with the state carried, so that its memory does
 * not grow with them. Sequences of different lengths run packed one after another, not padded; each gives what it
 * gives alone, up to rounding. Optional members are left zeroed; outputs are f32, contiguous, and written only where
 * there are tokens. A number outside the vocabulary is read as a token whose embedding is 0. */
typedef struct clm_model_run_args {
  clm_tensor ids;         /* (batch, length)                           i32, contiguous                            */
  const int64_t *lengths; /* optional, `batch` of them: the tokens of each sequence, its row's first; NULL: `length`
                             each. 0 only where `state` has seen tokens: the sequence stays where it is           */
  clm_model_state *state; /* optional: the run starts from it and updates it; NULL: from zero                     */
  clm_tensor logits;      /* optional (batch, length, vocab)           of every position                          */
  clm_tensor last_logits; /* optional (batch, vocab)                   after each sequence's last token           */
  clm_tensor hidden;      /* optional (n_layer + 1, batch, length, d_model): every block's output, then the final
                             norm's, as transformers gives them; the embedding is not among them                  */
  clm_tensor last_hidden; /* optional (batch, d_model)                 the final norm's at the last token         */
  clm_tensor
      mean_hidden;    /* optional (batch, d_model)                 the final norm's, mean over this run's tokens */
  clm_tensor targets; /* optional (batch, length)                  i32; -1 ignores the position; with losses  */
  clm_tensor losses;  /* optional (batch, length)                  nats of the targets                        */
  /* Optional: called after each part, with tokens done and in all, when the device has run them; false stops with
   * CLM_INTERRUPTED, and `state` must be reset before it is used again. */
  bool (*progress)(void *user, int64_t done, int64_t total);
  void *user;
} clm_model_run_args;

CLM_API clm_status clm_model_run(clm_model *model, const clm_model_run_args *args);

/* The same for logits of every position alone, from zero state. */
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
  float loss_scale;   /* 0 means 1: the gradients are those of the loss times this, so that in f16 small ones are
                         not lost; `losses` are not scaled                                    */
} clm_model_loss_args;

CLM_API clm_status clm_model_loss(clm_model *model, const clm_model_loss_args *args);

/* How a text is scored. Every token but its first is predicted once; what differs is the context. Zeroed: windows of
 * CLM_SCORE_WINDOW predictions that do not overlap, each from zero state; training validates by this rule. */
#define CLM_SCORE_WINDOW 256
typedef struct clm_score_options {
  int64_t window; /* [CLM_SCORE_WINDOW, or stride if that is more] predictions in a window                         */
  int64_t stride; /* [window] a window begins so many predictions after the one before, and counts only what that
                     one did not reach: every prediction but the first has window - stride tokens before it or more */
  bool carry;     /* no windows: the state is carried over the whole text, of any length                           */
  float *losses;  /* optional, count - 1 on the host, written: nats of every prediction                            */
  /* Optional: called after each part, with predictions done and in all; false stops with CLM_INTERRUPTED. */
  bool (*progress)(void *user, int64_t done, int64_t total);
  void *user;
} clm_score_options;

/* Nats per token of a text of `count` tokens, at least two. `options` may be NULL. A prediction that has no finite
 * number of nats is CLM_BAD_FORMAT. */
CLM_API clm_status clm_model_score(clm_model *model, const int32_t *ids, size_t count,
                                   const clm_score_options *options, double *loss);

/* A text that may continue another: at least one token. */
typedef struct clm_choice {
  const int32_t *ids;
  size_t count;
} clm_choice;

/* ln p(choice | context) of each choice, summed over its tokens. The context, at least one token, runs once. A sum
 * that is not finite is CLM_BAD_FORMAT. */
CLM_API clm_status clm_model_choices(clm_model *model, const int32_t *context, size_t context_count,
                                     const clm_choice *choices, size_t count, double *log_likelihoods);

CLM_API clm_status clm_model_state_create(clm_model *model, int64_t batch, clm_model_state **state); /* zero */
CLM_API clm_status clm_model_state_reset(clm_model_state *state);
CLM_API void clm_model_state_destroy(clm_model_state **state);

CLM_API int64_t clm_model_state_batch(const clm_model_state *state);
CLM_API int64_t clm_model_state_tokens(const clm_model_state *state, int64_t row); /* that it has seen so far */
CLM_API size_t clm_model_state_bytes(const clm_model_state *state);                /* of the device's memory  */

/* A new state of `count` rows: row i is a copy of row rows[i] of `state`; NULL: of row i modulo its batch, so that a
 * state of one sequence becomes `count` equal ones. */
CLM_API clm_status clm_model_state_fork(const clm_model_state *state, const int64_t *rows, int64_t count,
                                        clm_model_state **fork);

/* `count` rows of one state over those of another, or of the same one where they do not overlap. */
CLM_API clm_status clm_model_state_copy(clm_model_state *to, int64_t to_row, const clm_model_state *from,
                                        int64_t from_row, int64_t count);

/* A state as a safetensors file (renamed once it is whole). It holds the shape of its model and a fingerprint
 * of the weights as they are held; loading it into another model is refused with a message. */
CLM_API clm_status clm_model_state_save(clm_model_state *state, const char *path);
CLM_API clm_status clm_model_state_load(clm_model *model, const char *path, clm_model_state **state);

/* The logits after the last token again, as the call that left the state gave them. Every row must have seen one. */
CLM_API clm_status clm_model_state_logits(clm_model_state *state,
                                          clm_tensor logits /* (batch, vocab) f32, written */);

/* Runs `ids` from `state` on, updates the state, and gives the logits of the last position. `lengths` as in
 * clm_model_run_args, or NULL. */
CLM_API clm_status clm_model_prefill(clm_model *model, clm_model_state *state, clm_tensor ids /* (batch, length) */,
                                     const int64_t *lengths, clm_tensor logits /* (batch, vocab) f32, written */);

/* One token more. */
CLM_API clm_status clm_model_decode(clm_model *model, clm_model_state *state, clm_tensor ids /* (batch) i32 */,
                                    clm_tensor logits /* (batch, vocab) f32, written */);

CLM_END_DECLS

#endif
