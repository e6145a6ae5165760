/* A model's life: made, loaded, saved, taken apart. */
#include "model/model.h"
#include "core/context.h"
#include "core/file.h"
#include "core/try.h"
#include "model/config.h"
#include <clmamba/elementwise.h>
#include <stdlib.h>

static void bind_views(const clm_model *m, clm_buffer *flat, parameter_views *views) {
  for (int layer = 0; layer < m->config.n_layer; layer++)
    for (int id = 0; id < W_COUNT; id++) views[layer][id] = weights_view(&m->layout, flat, layer, (weight_id)id);
}

static clm_status make_parameters(clm_model *m) {
  size_t n_layer = (size_t)m->config.n_layer;
  TRY(activations_create(m->context, m->config.n_layer, &m->act));
  m->weights = calloc(n_layer, sizeof *m->weights);
  m->dweights = calloc(n_layer, sizeof *m->dweights);
  if (!m->weights || !m->dweights) return context_fail(m->context, CLM_OUT_OF_MEMORY, "model: out of host memory");
  TRY(clm_buffer_create(m->context, m->layout.total * sizeof(float), &m->parameters));
  bind_views(m, m->parameters, m->weights);
  return CLM_OK;
}

static clm_status fill_parameters(clm_model *m, const float *flat) {
  TRY(make_parameters(m));
  return clm_buffer_write(m->parameters, 0, m->layout.total * sizeof *flat, flat);
}

/* An empty model; `status` is that of what filled it. */
static clm_status model_made(clm_status status, clm_model **model) {
  if (status) clm_model_destroy(model);
  return status;
}

static clm_status new_model(clm_context *ctx, clm_model **model) {
  *model = calloc(1, sizeof **model);
  if (!*model) return context_fail(ctx, CLM_OUT_OF_MEMORY, "model: out of host memory");
  (*model)->context = ctx;
  return CLM_OK;
}

static clm_status initialise(clm_model *m, const clm_model_config *config, weights_ends ends, uint64_t seed) {
  m->config = *config;
  TRY(weights_layout_make(m->context, &m->config, ends, &m->layout));
  float *flat = malloc(m->layout.total * sizeof *flat);
  if (!flat)
    return context_fail(m->context, CLM_OUT_OF_MEMORY, "model: out of host memory for %lld parameters",
                        (long long)m->layout.parameters);
  weights_initialise(&m->layout, &m->config, seed, flat);
  clm_status status = fill_parameters(m, flat);
  free(flat);
  return status;
}

clm_status model_create(clm_context *ctx, const clm_model_config *config, weights_ends ends, uint64_t seed,
                        clm_model **model) {
  TRY(new_model(ctx, model));
  return model_made(initialise(*model, config, ends, seed), model);
}

clm_status clm_model_create(clm_context *ctx, const clm_model_config *config, uint64_t seed, clm_model **model) {
  clm_model_config complete = *config;
  *model = NULL;
  TRY(config_complete(ctx, &complete));
  return model_create(ctx, &complete, (weights_ends){0}, seed, model);
}

static clm_status load(clm_model *m, const clm_model_config *config, weights_ends ends, const char *weights_path) {
  m->config = *config;
  TRY(weights_layout_make(m->context, &m->config, ends, &m->layout));
  float *flat;
  TRY(weights_load(m->context, &m->layout, weights_path, &flat));
  clm_status status = fill_parameters(m, flat);
  free(flat);
  return status;
}

clm_status model_load(clm_context *ctx, const clm_model_config *config, weights_ends ends, const char *weights_path,
                      clm_model **model) {
  TRY(new_model(ctx, model));
  return model_made(load(*model, config, ends, weights_path), model);
}

clm_status clm_model_load(clm_context *ctx, const char *directory, clm_model **model) {
  *model = NULL;
  clm_model_config config;
  char *config_path = file_path(directory, "config.json"), *weights_path = file_path(directory, "model.safetensors");
  clm_status status = config_path && weights_path ? config_read(ctx, config_path, &config)
                                                  : context_fail(ctx, CLM_OUT_OF_MEMORY, "model: out of host memory");
  if (status == CLM_OK) status = model_load(ctx, &config, (weights_ends){0}, weights_path, model);
  free(config_path);
  free(weights_path);
  return status;
}

clm_status model_save_weights(clm_model *m, const char *path) {
  float *flat = malloc(m->layout.total * sizeof *flat);
  clm_status status = flat ? clm_buffer_read(m->parameters, 0, m->layout.total * sizeof *flat, flat)
                           : context_fail(m->context, CLM_OUT_OF_MEMORY, "model: out of host memory");
  if (status == CLM_OK) status = weights_save(m->context, &m->layout, path, flat);
  free(flat);
  return status;
}

clm_status clm_model_save(clm_model *m, const char *directory) {
  char *config_path = file_path(directory, "config.json"), *weights_path = file_path(directory, "model.safetensors");
  clm_status status = config_path && weights_path
                          ? config_write(m->context, config_path, &m->config)
                          : context_fail(m->context, CLM_OUT_OF_MEMORY, "model: out of host memory");
  if (status == CLM_OK) status = model_save_weights(m, weights_path);
  free(config_path);
  free(weights_path);
  return status;
}

void clm_model_destroy(clm_model **model) {
  if (!model || !*model) return;
  clm_model *m = *model;
  activations_destroy(&m->act);
  clm_buffer_destroy(&m->parameters);
  clm_buffer_destroy(&m->gradients);
  free(m->weights);
  free(m->dweights);
  weights_layout_free(&m->layout);
  free(m);
  *model = NULL;
}

clm_context *clm_model_context(const clm_model *m) { return m->context; }
const clm_model_config *clm_model_configuration(const clm_model *m) { return &m->config; }
int64_t clm_model_parameter_count(const clm_model *m) { return m->layout.parameters; }

clm_status model_need_gradients(clm_model *m) {
  if (m->gradients) return CLM_OK;
  TRY(clm_buffer_create(m->context, m->layout.total * sizeof(float), &m->gradients));
  bind_views(m, m->gradients, m->dweights);
  /* The padding between parameters is never written again: it must not hold anything that counts as gradient. */
  clm_tensor all = clm_tensor_of(m->gradients, 0, CLM_F32, 1, (int64_t[]){(int64_t)m->layout.total});
  return clm_axpby(m->context, &(clm_axpby_args){.out = all});
}

static clm_status find_view(clm_model *m, const char *name, clm_buffer *flat, clm_tensor *view) {
  const weight *w = weights_find(&m->layout, name);
  if (!w) return context_fail(m->context, CLM_INVALID_ARGUMENT, "model: there is no parameter \"%.100s\"", name);
  *view = clm_tensor_of(flat, w->offset * sizeof(float), CLM_F32, w->rank, w->shape);
  return CLM_OK;
}

clm_status clm_model_parameter(clm_model *m, const char *name, clm_tensor *parameter) {
  return find_view(m, name, m->parameters, parameter);
}

clm_status clm_model_gradient(clm_model *m, const char *name, clm_tensor *gradient) {
  if (!m->gradients)
    return context_fail(m->context, CLM_INVALID_ARGUMENT, "model: no gradients have been computed yet");
  return find_view(m, name, m->gradients, gradient);
}
