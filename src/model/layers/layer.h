/* A kind of layer is one file that fills one table, and a line in kinds.h. Weights, states, activations, files,
 * training and generation walk the table and know no kind by its name. */
#ifndef CLM_MODEL_LAYERS_LAYER_H
#define CLM_MODEL_LAYERS_LAYER_H

#include "core/tensor_list.h"
#include "model/params.h"

enum { LAYER_OPTIONS = 12, LAYER_TEXT = 200 };

typedef struct layer_kind layer_kind;

/* One layer of a model. */
typedef struct model_layer {
  const layer_kind *kind;
  const clm_model_config *config; /* the model's                                        */
  int64_t options[LAYER_OPTIONS]; /* the kind's own                                     */
  param_views params;
  clm_tensor kept[TENSOR_LIST_MAX]; /* of the current pass, as the kind describes them */
  clm_tensor scratch[TENSOR_LIST_MAX];
} model_layer;

/* What a model's list of layers may say of each: "mlp(width=512,activation=gelu)". */
typedef struct layer_option {
  const char *name;
  int64_t low, high;
  const char *const *words; /* optional, ends with NULL: the values have these names, and no range */
} layer_option;

typedef struct layer_shape {
  int64_t batch, length;
  bool train;      /* backward is going to be called                                  */
  clm_dtype dtype; /* of the activations inside a layer: f32, bf16 or f16 */
} layer_shape;

/* Of the memory of a state. */
typedef struct state_shape {
  int64_t batch;
  int64_t room; /* tokens of a sequence that there is memory for, where that depends on them */
} state_shape;

/* One run. Tensors of activations are (batch, length, ...), contiguous; residual and out f32, x of the layers' dtype.
 */
typedef struct layer_pass {
  clm_tensor x;          /* (batch, length, d_model): normed                                                       */
  clm_tensor residual;   /* optional, as out: added to the result; may be out                                      */
  clm_tensor out;        /* (batch, length, d_model), written                                                      */
  clm_tensor cu_seqlens; /* optional: the row is of packed sequences, each with a row of the state                 */
  clm_tensor positions; /* with a state that grows: (batch, or sequences) i32, the tokens before this pass          */
  const clm_tensor *state; /* as the kind describes it, read and written; NULL: from zero state, which is not kept */
} layer_pass;

/* The backward pass of a run with that `x`, from zero state: dout is f32, dx as x. Gradients of the parameters
 * overwrite. */
typedef struct layer_gradient {
  clm_tensor x;
  clm_tensor dout;
  clm_tensor dx;   /* written            */
  bool accumulate; /* dx is added to     */
} layer_gradient;

struct layer_kind {
  const char *name;
  const char *module;          /* what it is in the files of hybrids, as "self_attn"; NULL: they have none */
  const layer_option *options; /* ends with a NULL name; NULL: it has none */

  /* Options that are 0 get their defaults. NULL: nothing to do. */
  void (*complete)(const clm_model_config *, int64_t *options);

  /* Refuses a configuration or options that the kind does not support; defaults are filled in. NULL: all are
   * supported. */
  clm_status (*check)(clm_context *, const clm_model_config *, const int64_t *options);

  /* The rows of the parameters that it has, in a table of PARAMS_MAX cleared ones. */
  void (*params)(const model_layer *, param *);

  /* The state of a sequence (`batch` is the first dimension; zeros are the beginning), what forward keeps for
   * backward of this layer, and what may be shared with all others. NULL: nothing. */
  void (*state)(const model_layer *, const state_shape *, tensor_list *);
  void (*kept)(const model_layer *, const layer_shape *, tensor_list *);
  void (*scratch)(const model_layer *, const layer_shape *, tensor_list *);

  clm_status (*forward)(clm_context *, const model_layer *, const layer_pass *);
  clm_status (*step)(clm_context *, const model_layer *, const layer_pass *); /* of length 1; NULL: forward */
  clm_status (*backward)(clm_context *, const model_layer *, const layer_gradient *);

  /* What the state's shape depends on, for the files of states. NULL: it has no state. */
  void (*describe)(const model_layer *, char text[LAYER_TEXT]);
};

/* NULL: there is none of this name. */
const layer_kind *layer_kind_find(const char *name, size_t length);

/* The kinds' names, "mamba1, mlp", for messages. */
const char *layer_kind_names(void);

#endif
