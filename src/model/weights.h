/* All parameters of a model live in one flat buffer: those with weight decay first, the others after, so that the
 * optimizer is two calls, the norm of the gradient one, a checkpoint one transfer. Gradients and the optimizer's
 * moments have the same layout: what is trained is f32 throughout. Of a model that only runs, matrices may be halves,
 * or i8 with a scale for each row behind them. One table describes every parameter; everything walks it. */
#ifndef CLM_MODEL_WEIGHTS_H
#define CLM_MODEL_WEIGHTS_H

#include "files/source.h"
#include <clmamba/model.h>

typedef enum weight_id {
  W_EMBEDDING, /* of the model   */
  W_NORM_F,
  W_LM_HEAD,
  W_NORM, /* of every layer */
  W_IN_PROJ,
  W_IN_PROJ_BIAS,
  W_CONV,
  W_CONV_BIAS,
  W_X_PROJ,
  W_DT_PROJ,
  W_DT_BIAS,
  W_A_LOG,
  W_D,
  W_OUT_PROJ,
  W_OUT_PROJ_BIAS,
  W_INPUT, /* of a model of frames */
  W_INPUT_BIAS,
  W_HEAD,
  W_HEAD_BIAS,
  W_NORM_F_BIAS, /* with layer_norm: of the model */
  W_NORM_BIAS,   /* and of every layer            */
  W_COUNT
} weight_id;

#define WEIGHT_NAME_MAX CLM_PARAMETER_NAME

typedef struct weight {
  weight_id id;
  int layer; /* 0 for those of the model */
  int rank;
  int64_t shape[3]; /* as in model.safetensors */
  clm_dtype dtype;
  size_t offset; /* in the flat buffer, in units of 4 bytes: floats where all is f32 */
  size_t scales; /* of i8: where the f32 scales of its rows begin, likewise          */
  size_t count;  /* elements                                                         */
} weight;

/* What stands around the blocks of a model of frames (clm_backbone); zeroed, a language model's embedding and head.
 */
typedef struct weights_ends {
  int64_t inputs;  /* numbers in a frame         */
  int64_t outputs; /* of the head; 0: it has none */
} weights_ends;

typedef struct weights_layout {
  weights_ends ends;
  weight *items; /* in the order of the flat buffer */
  size_t item_count;
  size_t *index;  /* [layer * W_COUNT + id] -> item, SIZE_MAX where there is none */
  size_t decayed; /* of the front, which gets weight decay: in units of 4 bytes, as the next */
  size_t total;   /* padding included                                                       */
  int64_t parameters;
} weights_layout;

/* All in f32. */
clm_status weights_layout_make(clm_context *context, const clm_model_config *config, weights_ends ends,
                               weights_layout *layout);
void weights_layout_free(weights_layout *layout);

/* The other way to hold them: matrices as `type` says, of what the source has. Fails where the source lacks a
 * parameter, or has it in another shape or in a dtype that cannot be read. */
clm_status weights_layout_fit(clm_context *context, weights_layout *layout, const source *from,
                              clm_weights_type type);

/* False: there are parameters that are not f32. */
bool weights_are_f32(const weights_layout *layout);

/* As they are called by Hugging Face's models, and by the original ones. */
void weights_name(const weight *w, char name[WEIGHT_NAME_MAX]);
void weights_original_name(const weight *w, char name[WEIGHT_NAME_MAX]);

/* The view of a parameter by its name, as in model.safetensors; of the scales of one in i8 with "_scale" behind it.
 * False: the model has no such parameter. */
bool weights_find(const weights_layout *layout, clm_buffer *flat, const char *name, clm_tensor *view);

/* The view of the parameter at `item`, shaped as in model.safetensors. */
clm_tensor weights_tensor(const weights_layout *layout, clm_buffer *flat, size_t item);

/* A view of `flat`, shaped as the operations take it; absent if the model does not have this parameter. */
clm_tensor weights_view(const weights_layout *layout, clm_buffer *flat, int layer, weight_id id);

/* The scales beside it; absent if it is not i8. */
clm_tensor weights_scale(const weights_layout *layout, clm_buffer *flat, int layer, weight_id id);

/* Into `flat` (layout->total floats on the host). */
void weights_initialise(const weights_layout *layout, const clm_model_config *config, uint64_t seed, float *flat);

/* Of a configuration that ties the head to the embedding: unties them, with a warning, if the source has both with
 * different values, as transformers 5 does. */
clm_status weights_check_tie(clm_context *context, const source *from, clm_model_config *config);

/* Converts every parameter from the source into `flat`, a buffer of layout->total * 4 bytes. The layout must fit. */
clm_status weights_load(clm_context *context, const weights_layout *layout, const source *from,
                        const clm_model_load_options *options, clm_buffer *flat);

/* Writes a safetensors file, tensors as they are held; what is i8 as the f32 that it stands for. */
clm_status weights_save(clm_context *context, const weights_layout *layout, const char *path, bool original_names,
                        clm_buffer *flat);

#endif
