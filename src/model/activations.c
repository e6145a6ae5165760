#include "model/activations.h"
#include "core/context.h"
#include "core/try.h"
#include <stdlib.h>

#define LOGITS_BLOCK_BYTES ((int64_t)32 << 20) /* max, of a block of logits (min: one row) */

clm_status activations_create(clm_context *ctx, int64_t n_layer, activations *a) {
  clm_tensor *x = calloc((size_t)n_layer + 1, sizeof *x);
  if (!x) return context_fail(ctx, CLM_OUT_OF_MEMORY, "model: out of host memory");
  *a = (activations){.x = x};
  return CLM_OK;
}

void activations_destroy(activations *a) {
  clm_buffer_destroy(&a->buffer);
  free(a->x);
  *a = (activations){0};
}

typedef void layer_memory(const model_layer *, const layer_shape *, tensor_list *);

/* Describes and places a layer's tensors from *used on. */
static void place(const model_layer *l, layer_memory *memory, const layer_shape *shape, clm_buffer *buffer,
                  size_t *used, clm_tensor *views) {
  tensor_list list = {.count = 0};
  if (memory) memory(l, shape, &list);
  for (int i = 0; i < TENSOR_LIST_MAX; i++) views[i] = (clm_tensor){0};
  tensor_list_place(&list, buffer, used, views);
}

/* What layers keep is placed one after another if a backward pass follows; all else is shared by all layers. */
static void place_layers(model_blocks *b, const layer_shape *shape, clm_buffer *buffer, size_t *used) {
  const size_t begin = *used;
  size_t kept = begin, end = begin;
  for (size_t i = 0; i < b->layer_count; i++) {
    model_layer *l = &b->layers[i];
    if (!shape->train) kept = begin;
    place(l, l->kind->kept, shape, buffer, &kept, l->kept);
    if (kept > end) end = kept;
  }
  const size_t shared = end;
  for (size_t i = 0; i < b->layer_count; i++) {
    model_layer *l = &b->layers[i];
    size_t scratch = shared;
    place(l, l->kind->scratch, shape, buffer, &scratch, l->scratch);
    if (scratch > end) end = scratch;
  }
  *used = end;
}

/* (batch, length, d_model) */
static clm_tensor rows(const activations *a, const clm_model_config *c, clm_dtype dtype, clm_buffer *buffer,
                       size_t *used) {
  return tensor_place(buffer, used, dtype, 3, (int64_t[]){a->batch, a->length, c->d_model});
}

static size_t lay_out(activations *a, clm_buffer *buffer, const clm_model_config *c, model_blocks *b) {
  const bool train = a->mode == ACTIVATIONS_TRAIN;
  size_t used = 0;
  for (int64_t i = 0; i <= c->n_layer; i++) a->x[i] = train || i == 0 ? rows(a, c, CLM_F32, buffer, &used) : a->x[0];
  a->normed = rows(a, c, a->dtype, buffer, &used);
  a->branch = train || b->branched ? rows(a, c, CLM_F32, buffer, &used) : (clm_tensor){0};
  a->last = tensor_place(buffer, &used, CLM_F32, 2, (int64_t[]){a->batch, c->d_model});
  if (a->mode != ACTIVATIONS_INFER && c->vocab_size > 0) {
    int64_t block = LOGITS_BLOCK_BYTES / (int64_t)sizeof(float) / c->vocab_size, all = a->batch * a->length;
    a->logits = tensor_place(buffer, &used, CLM_F32, 2,
                             (int64_t[]){block < 1     ? 1
                                         : block < all ? block
                                                       : all,
                                         c->vocab_size});
  }
  if (train) {
    a->dx = rows(a, c, CLM_F32, buffer, &used);
    a->dnormed = rows(a, c, a->dtype, buffer, &used);
  }
  place_layers(b, &(layer_shape){a->batch, a->length, train, a->dtype}, buffer, &used);
  return used;
}

clm_status activations_prepare(clm_context *ctx, activations *a, const clm_model_config *c, model_blocks *b,
                               int64_t batch, int64_t length, activations_mode mode) {
  if (a->buffer && a->batch == batch && a->length == length && a->mode == mode && a->laid_out == a->dtype)
    return CLM_OK;
  a->layouts++;
  a->batch = batch;
  a->length = length;
  a->mode = mode;
  a->laid_out = a->dtype;
  size_t bytes = lay_out(a, NULL, c, b);
  if (!a->buffer || clm_buffer_size(a->buffer) < bytes) {
    clm_buffer_destroy(&a->buffer);
    TRY(clm_buffer_create(ctx, bytes, &a->buffer));
  }
  lay_out(a, a->buffer, c, b);
  return CLM_OK;
}
