/* The memory that a pass through the model works in: one buffer, laid out for (batch, length), grown when a pass
 * needs more and otherwise reused. */
#ifndef CLM_MODEL_ACTIVATIONS_H
#define CLM_MODEL_ACTIVATIONS_H

#include <clmamba/model.h>

typedef enum activations_mode {
  ACTIVATIONS_INFER, /* layers overwrite each other's                                  */
  ACTIVATIONS_LOSS,  /* with a block of logits                                         */
  ACTIVATIONS_TRAIN  /* every layer keeps what its backward pass reads, and gradients  */
} activations_mode;

typedef struct activations {
  clm_buffer *buffer;
  int64_t batch, length;
  activations_mode mode;
  /* Kept by every layer: the residual stream before it, in_proj's output, x_proj's output. x has one more. */
  clm_tensor *x, *xz, *dbc;
  /* Of the layer in hand: (batch, length, ...) */
  clm_tensor normed, branch; /* d_model */
  clm_tensor dx, dnormed, dxz;
  clm_tensor step_conv, step_delta, step_y; /* (batch, d_inner): of one step of generation */
  clm_tensor last;                          /* (batch, d_model): the last position            */
  clm_tensor logits;                        /* (rows of a block, vocab); of a language model */
} activations;

clm_status activations_create(clm_context *context, int64_t n_layer, activations *a);
void activations_destroy(activations *a);

/* Makes the views fit; nothing to do if they do already. Waits for the stream if the buffer has to grow. */
clm_status activations_prepare(clm_context *context, activations *a, const clm_model_config *config, int64_t batch,
                               int64_t length, activations_mode mode);

#endif
