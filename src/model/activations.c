#include "model/activations.h"
#include "core/context.h"
#include "core/try.h"
#include <stdlib.h>

#define ALIGN              64
#define LOGITS_BLOCK_BYTES ((int64_t)32 << 20) /* of a block of logits, at most (but at least one row) */

clm_status activations_create(clm_context *ctx, int64_t n_layer, activations *a) {
  clm_tensor *views = calloc(3 * (size_t)n_layer + 1, sizeof *views);
  if (!views) return context_fail(ctx, CLM_OUT_OF_MEMORY, "model: out of host memory");
  *a = (activations){.x = views, .xz = views + n_layer + 1, .dbc = views + 2 * n_layer + 1};
  return CLM_OK;
}

void activations_destroy(activations *a) {
  clm_buffer_destroy(&a->buffer);
  free(a->x);
  *a = (activations){0};
}

/* Hands out views one after another; without a buffer it only counts. */
typedef struct planner {
  clm_buffer *buffer;
  int64_t batch, length;
  size_t used;
} planner;

static clm_tensor take_matrix(planner *p, int64_t rows, int64_t width) {
  clm_tensor t = clm_tensor_of(p->buffer, p->used, CLM_F32, 2, (int64_t[]){rows, width});
  p->used += ((size_t)(rows * width) * sizeof(float) + ALIGN - 1) / ALIGN * ALIGN;
  return t;
}

static clm_tensor take(planner *p, int64_t width) {
  return clm_tensor_reshape(take_matrix(p, p->batch * p->length, width), 3, (int64_t[]){p->batch, p->length, width});
}

static size_t lay_out(activations *a, clm_buffer *buffer, const clm_model_config *c) {
  planner p = {buffer, a->batch, a->length, 0};
  int64_t dbc = c->dt_rank + 2 * c->d_state, rows = a->batch * a->length;
  bool train = a->mode == ACTIVATIONS_TRAIN;
  for (int64_t i = 0; i < c->n_layer; i++) {
    bool own = train || i == 0;
    a->x[i] = own ? take(&p, c->d_model) : a->x[0];
    a->xz[i] = own ? take(&p, 2 * c->d_inner) : a->xz[0];
    a->dbc[i] = own ? take(&p, dbc) : a->dbc[0];
  }
  a->x[c->n_layer] = train ? take(&p, c->d_model) : a->x[0];
  a->normed = take(&p, c->d_model);
  a->step_conv = take_matrix(&p, a->batch, c->d_inner);
  a->step_delta = take_matrix(&p, a->batch, c->d_inner);
  a->step_y = take_matrix(&p, a->batch, c->d_inner);
  a->last = take_matrix(&p, a->batch, c->d_model);
  if (a->mode != ACTIVATIONS_INFER && c->vocab_size > 0) {
    int64_t block = LOGITS_BLOCK_BYTES / (int64_t)sizeof(float) / c->vocab_size;
    a->logits = take_matrix(&p, block < 1 ? 1 : block < rows ? block : rows, c->vocab_size);
  }
  if (train) {
    a->branch = take(&p, c->d_model);
    a->dx = take(&p, c->d_model);
    a->dnormed = take(&p, c->d_model);
    a->dxz = take(&p, 2 * c->d_inner);
  }
  return p.used;
}

clm_status activations_prepare(clm_context *ctx, activations *a, const clm_model_config *c, int64_t batch,
                               int64_t length, activations_mode mode) {
  if (a->buffer && a->batch == batch && a->length == length && a->mode == mode) return CLM_OK;
  a->batch = batch;
  a->length = length;
  a->mode = mode;
  size_t bytes = lay_out(a, NULL, c);
  if (!a->buffer || clm_buffer_size(a->buffer) < bytes) {
    clm_buffer_destroy(&a->buffer);
    TRY(clm_buffer_create(ctx, bytes, &a->buffer));
  }
  lay_out(a, a->buffer, c);
  return CLM_OK;
}
