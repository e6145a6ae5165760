/* All parameters of a model live in one flat buffer: those with weight decay first, the others after, so that the
 * optimizer is two calls, the norm of the gradient one, a checkpoint one transfer. Gradients and the optimizer's
 * moments have the same layout: what is trained is f32 throughout. Of a model that only runs, matrices may be 16-bit,
 * or i8 with a scale for each row after them. Tables of rows (params.h) describe the parameters; everything here
 * walks them. */
#ifndef CLM_MODEL_WEIGHTS_H
#define CLM_MODEL_WEIGHTS_H

#include "files/source.h"
#include "model/params.h"

#define WEIGHT_NAME_MAX CLM_PARAMETER_NAME

/* Who has parameters: the model itself, a block ("backbone.layers.3."), or a layer in it ("...mixer.", and
 * "...mixers.1." where several are parallel). */
typedef struct weights_owner {
  const param *params; /* PARAMS_MAX rows             */
  param_views *views;  /* where their tensors are kept */
  int block;           /* -1: the model                */
  int part, parts;     /* the layer's number among those of its block; -1: the block itself */
  const char *module;  /* of a layer: its kind's (layers/layer.h)                           */
} weights_owner;

typedef struct weight {
  param param;
  weights_owner owner;
  int id; /* in the owner's table */
  int rank;
  int64_t shape[PARAM_RANK + 1]; /* as in model.safetensors */
  clm_dtype dtype;
  size_t offset; /* in the flat buffer, in units of 4 bytes: floats where all is f32 */
  size_t scales; /* of i8: where the f32 scales of its rows begin, likewise          */
  size_t count;  /* elements                                                         */
} weight;

/* Where it counts: the model's own parameters with block 0, the block's own with its first layer. */
static inline int weight_block(const weight *w) { return w->owner.block < 0 ? 0 : w->owner.block; }
static inline int weight_part(const weight *w) { return w->owner.part < 0 ? 0 : w->owner.part; }

typedef struct weights_layout {
  weight *items; /* in the order of the flat buffer */
  size_t item_count;
  size_t decayed; /* of the front, which gets weight decay: in units of 4 bytes, as the next */
  size_t total;   /* padding included                                                       */
  int64_t parameters;
} weights_layout;

/* Of the owners' parameters, all in f32. */
clm_status weights_layout_make(clm_context *context, const weights_owner *owners, size_t count,
                               weights_layout *layout);
void weights_layout_free(weights_layout *layout);

/* The other way to hold them: matrices of the dtype `type`, from the source. Fails where the source lacks a
 * parameter, or has it in another shape or in a dtype that cannot be read. */
clm_status weights_layout_fit(clm_context *context, weights_layout *layout, const source *from,
                              clm_weights_type type);

/* False: there are parameters that are not f32. */
bool weights_are_f32(const weights_layout *layout);

/* How the layers' matrices are held: the first one's dtype. */
clm_dtype weights_matrix_dtype(const weights_layout *layout);

/* As it is called by Hugging Face's models. */
void weights_name(const weight *w, char name[WEIGHT_NAME_MAX]);

/* The view of a parameter by its name, as in model.safetensors; of the scales of one in i8 with "_scale" after it.
 * False: the model has no such parameter. */
bool weights_find(const weights_layout *layout, clm_buffer *flat, const char *name, clm_tensor *view);

/* The view of the parameter at `item`, shaped as in model.safetensors. */
clm_tensor weights_tensor(const weights_layout *layout, clm_buffer *flat, size_t item);

/* Gives the owners their views of `flat`: parameters with the scales of those in i8, or gradients. */
void weights_bind(const weights_layout *layout, clm_buffer *flat);
void weights_bind_gradients(const weights_layout *layout, clm_buffer *flat);

/* Into `flat` (layout->total floats on the host). */
void weights_initialise(const weights_layout *layout, const clm_model_config *config, uint64_t seed, float *flat);

/* That of a source's tensors: the original's with MLPs shows in the names. */
source_naming weights_naming(const source *from);

/* Where a source has a parameter of the model's own; NULL: it has not. */
const source_tensor *weights_find_own(const source *from, const param *p);

/* Converts every parameter from the source into `flat`, a buffer of layout->total * 4 bytes. The layout must fit. */
clm_status weights_load(clm_context *context, const weights_layout *layout, const source *from,
                        const clm_model_load_options *options, clm_buffer *flat);

/* Writes a safetensors file, tensors as they are held; matrices in i8 as their values in f32. */
clm_status weights_save(clm_context *context, const weights_layout *layout, const char *path, source_naming naming,
                        clm_buffer *flat);

#endif
