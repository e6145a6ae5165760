/* What a sequence leaves behind in every layer. */
#include "core/context.h"
#include "core/try.h"
#include "model/model.h"
#include <clmamba/elementwise.h>
#include <stdlib.h>

static clm_status make(clm_model_state *s) {
  const clm_model_config *c = &s->model->config;
  int64_t conv[] = {c->n_layer, s->batch, c->d_inner, c->d_conv - 1};
  int64_t scan[] = {c->n_layer, s->batch, c->d_inner, c->d_state};
  size_t rows = (size_t)(c->n_layer * s->batch * c->d_inner);
  size_t conv_bytes = rows * (size_t)(c->d_conv - 1) * sizeof(float),
         scan_bytes = rows * (size_t)c->d_state * sizeof(float);
  size_t scan_offset = (conv_bytes + 63) / 64 * 64;
  TRY(clm_buffer_create(s->model->context, scan_offset + scan_bytes, &s->buffer));
  if (conv_bytes) s->conv = clm_tensor_of(s->buffer, 0, CLM_F32, 4, conv);
  s->scan = clm_tensor_of(s->buffer, scan_offset, CLM_F32, 4, scan);
  return clm_model_state_reset(s);
}

clm_status clm_model_state_create(clm_model *m, int64_t batch, clm_model_state **state) {
  *state = NULL;
  if (batch < 1 || batch > (1 << 20))
    return context_fail(m->context, CLM_INVALID_ARGUMENT, "model_state_create: batch is %lld, expected 1 to 2^20",
                        (long long)batch);
  clm_model_state *s = calloc(1, sizeof *s);
  if (!s) return context_fail(m->context, CLM_OUT_OF_MEMORY, "model_state_create: out of host memory");
  s->model = m;
  s->batch = batch;
  *state = s;
  clm_status status = make(s);
  if (status) clm_model_state_destroy(state);
  return status;
}

clm_status clm_model_state_reset(clm_model_state *s) {
  int64_t floats = (int64_t)(clm_buffer_size(s->buffer) / sizeof(float));
  return clm_axpby(s->model->context, &(clm_axpby_args){.out = clm_tensor_of(s->buffer, 0, CLM_F32, 1, &floats)});
}

void clm_model_state_destroy(clm_model_state **state) {
  if (!state || !*state) return;
  clm_buffer_destroy(&(*state)->buffer);
  free(*state);
  *state = NULL;
}
