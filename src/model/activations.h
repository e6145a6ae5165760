/* The memory that a pass through the model works in: one buffer, laid out for (batch, length), grown when a pass
 * needs more and otherwise reused. The layers hold the views of their part (layers/layer.h). */
#ifndef CLM_MODEL_ACTIVATIONS_H
#define CLM_MODEL_ACTIVATIONS_H

#include "model/blocks.h"

typedef enum activations_mode {
  ACTIVATIONS_INFER, /* layers overwrite each other's                                  */
  ACTIVATIONS_LOSS,  /* with a block of logits                                         */
  ACTIVATIONS_TRAIN  /* every layer keeps what its backward pass reads, and gradients  */
} activations_mode;

typedef struct activations {
  clm_buffer *buffer;
  int64_t batch, length;
  activations_mode mode;
  clm_dtype dtype, laid_out; /* of the branches' tensors: as asked for, and as they lie now */
  uint64_t layouts;          /* how often tensors have been given places */
  clm_tensor *x;             /* the residual stream before each block, and after the last */
  /* Of the current block: (batch, length, d_model). The residual stream and what is added to it are f32. */
  clm_tensor normed, dnormed; /* of `dtype` */
  clm_tensor branch, dx;
  clm_tensor last;   /* (batch, d_model): the last position            */
  clm_tensor logits; /* (rows of a block, vocab); of a language model */
} activations;

clm_status activations_create(clm_context *context, int64_t n_layer, activations *a);
void activations_destroy(activations *a);

clm_status activations_prepare(clm_context *context, activations *a, const clm_model_config *config,
                               model_blocks *blocks, int64_t batch, int64_t length, activations_mode mode);

#endif
