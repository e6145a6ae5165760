/* A backbone's life: made, loaded, saved, taken apart. */
#include "model/backbone.h"
#include "core/context.h"
#include "core/file.h"
#include "core/try.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static model_ends ends_of(const clm_backbone_config *c) { return (model_ends){c->embed_dim, c->n_outputs}; }

static clm_status new_backbone(clm_context *ctx, clm_backbone **backbone) {
  *backbone = calloc(1, sizeof **backbone);
  if (!*backbone) return context_fail(ctx, CLM_OUT_OF_MEMORY, "backbone: out of host memory");
  (*backbone)->context = ctx;
  return CLM_OK;
}

/* `status` is that of what filled it. */
static clm_status backbone_made(clm_status status, clm_backbone **backbone) {
  if (status) clm_backbone_destroy(backbone);
  return status;
}

clm_status clm_backbone_create(clm_context *ctx, const clm_backbone_config *config, uint64_t seed,
                               clm_backbone **backbone) {
  if (backbone) *backbone = NULL;
  TRY(CONTEXT_NEED(ctx, "backbone_create", config, backbone));
  clm_model_config blocks;
  TRY(new_backbone(ctx, backbone));
  clm_backbone *b = *backbone;
  b->config = *config;
  clm_status status = backbone_config_complete(ctx, &b->config, &blocks);
  if (status == CLM_OK) status = model_create(ctx, &blocks, ends_of(&b->config), seed, &b->model);
  if (status == CLM_OK) b->config.layers = b->model->config.layers;
  return backbone_made(status, backbone);
}

static clm_status load(clm_backbone *b, const char *config_path, const char *weights_path) {
  clm_model_config blocks;
  if (!config_path || !weights_path)
    return context_fail(b->context, CLM_OUT_OF_MEMORY, "backbone: out of host memory");
  TRY(backbone_config_read(b->context, config_path, &b->config, &blocks, &b->names));
  clm_status status = model_load(b->context, &blocks, ends_of(&b->config), weights_path, &b->model);
  backbone_config_free(&b->config);
  if (status == CLM_OK) b->config.layers = b->model->config.layers;
  return status;
}

clm_status clm_backbone_load(clm_context *ctx, const char *directory, clm_backbone **backbone) {
  if (backbone) *backbone = NULL;
  TRY(CONTEXT_NEED(ctx, "backbone_load", directory, backbone));
  TRY(new_backbone(ctx, backbone));
  char *config_path = file_path(directory, "config.json"), *weights_path = file_path(directory, "model.safetensors");
  clm_status status = load(*backbone, config_path, weights_path);
  free(config_path);
  free(weights_path);
  return backbone_made(status, backbone);
}

clm_status clm_backbone_save(clm_backbone *b, const char *directory) {
  TRY(HANDLE_NEED(b, "backbone_save", directory));
  char *config_path = file_path(directory, "config.json"), *weights_path = file_path(directory, "model.safetensors");
  clm_status status = config_path && weights_path
                          ? backbone_config_write(b->context, config_path, &b->config, b->names)
                          : context_fail(b->context, CLM_OUT_OF_MEMORY, "backbone: out of host memory");
  if (status == CLM_OK) status = model_save_weights(b->model, weights_path);
  free(config_path);
  free(weights_path);
  return status;
}

void clm_backbone_destroy(clm_backbone **backbone) {
  if (!backbone || !*backbone) return;
  clm_backbone *b = *backbone;
  backbone_names_free(b->names, clm_backbone_output_size(b));
  clm_buffer_destroy(&b->scratch);
  clm_model_destroy(&b->model);
  free(b);
  *backbone = NULL;
}

clm_context *clm_backbone_context(const clm_backbone *b) { return b ? b->context : NULL; }
const clm_backbone_config *clm_backbone_configuration(const clm_backbone *b) { return b ? &b->config : NULL; }
int64_t clm_backbone_param_count(const clm_backbone *b) { return b ? b->model->layout.parameters : 0; }
int64_t clm_backbone_output_size(const clm_backbone *b) { return b ? backbone_config_output_size(&b->config) : 0; }

static bool is_utf8(const char *text) {
  json_t *string = json_string(text);
  json_decref(string);
  return string != NULL;
}

clm_status clm_backbone_set_names(clm_backbone *b, const char *const *names) {
  if (!b) return CLM_INVALID_ARGUMENT;
  int64_t count = clm_backbone_output_size(b);
  char **copy = names ? calloc((size_t)count, sizeof *copy) : NULL;
  clm_status status = !names || copy ? CLM_OK : CLM_OUT_OF_MEMORY;
  for (int64_t i = 0; copy && i < count && status == CLM_OK; i++) {
    if (!names[i] || !is_utf8(names[i])) status = CLM_INVALID_ARGUMENT;
    else if (!(copy[i] = strdup(names[i]))) status = CLM_OUT_OF_MEMORY;
  }
  char ***out = status ? &copy : &b->names;
  backbone_names_free(*out, count);
  if (status == CLM_OK) b->names = copy;
  if (status == CLM_INVALID_ARGUMENT)
    return context_fail(b->context, status, "backbone_set_names: a name is absent or not UTF-8");
  return status ? context_fail(b->context, status, "backbone_set_names: out of host memory") : CLM_OK;
}

const char *clm_backbone_name(const clm_backbone *b, int64_t i) {
  return b && b->names && i >= 0 && i < clm_backbone_output_size(b) ? b->names[i] : NULL;
}

clm_status clm_backbone_parameter(clm_backbone *b, const char *name, clm_tensor *parameter) {
  if (!b) return CLM_INVALID_ARGUMENT;
  return clm_model_parameter(b->model, name, parameter);
}

clm_status clm_backbone_gradient(clm_backbone *b, const char *name, clm_tensor *gradient) {
  if (!b) return CLM_INVALID_ARGUMENT;
  return clm_model_gradient(b->model, name, gradient);
}

int64_t clm_backbone_tensor_count(const clm_backbone *b) { return b ? clm_model_tensor_count(b->model) : 0; }

clm_status clm_backbone_tensor(clm_backbone *b, int64_t index, clm_parameter *parameter) {
  return b ? clm_model_tensor(b->model, index, parameter) : CLM_INVALID_ARGUMENT;
}
