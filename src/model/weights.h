/* All parameters of a model live in one flat f32 buffer: those with weight decay first, the others after, so that the
 * optimizer is two calls, the norm of the gradient one, a checkpoint one transfer. Gradients and the optimizer's
 * moments have the same layout. One table describes every parameter; everything walks it. */
#ifndef CLM_MODEL_WEIGHTS_H
#define CLM_MODEL_WEIGHTS_H

#include "model/safetensors.h"
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
  W_COUNT
} weight_id;

#define WEIGHT_NAME_MAX 96

typedef struct weight {
  weight_id id;
  int layer; /* 0 for those of the model */
  int rank;
  int64_t shape[3]; /* as in model.safetensors */
  size_t offset, count;
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
  size_t decayed; /* floats at the front that get weight decay */
  size_t total;   /* floats, padding included                  */
  int64_t parameters;
} weights_layout;

clm_status weights_layout_make(clm_context *context, const clm_model_config *config, weights_ends ends,
                               weights_layout *layout);
void weights_layout_free(weights_layout *layout);

void weights_name(const weight *w, char name[WEIGHT_NAME_MAX]);

/* NULL: the model has no such parameter. */
const weight *weights_find(const weights_layout *layout, const char *name);

/* A view of `flat`, shaped as the operations take it; absent if the model does not have this parameter. */
clm_tensor weights_view(const weights_layout *layout, clm_buffer *flat, int layer, weight_id id);

/* Into `flat` (layout->total floats on the host). */
void weights_initialise(const weights_layout *layout, const clm_model_config *config, uint64_t seed, float *flat);

/* *flat (to be freed) is allocated once the file is known to hold every parameter. */
clm_status weights_load(clm_context *context, const weights_layout *layout, const char *path, float **flat);
clm_status weights_save(clm_context *context, const weights_layout *layout, const char *path, const float *flat);

#endif
