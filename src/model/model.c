/* A model's life: made, loaded, saved, taken apart. */
#include "model/model.h"
#include "core/context.h"
#include "core/file.h"
#include "core/try.h"
#include "files/gguf.h"
#include "files/safetensors.h"
#include "model/config/config.h"
#include <clmamba/elementwise.h>
#include <stdlib.h>

/* The model's own parameters, every block's, every layer's. */
typedef struct owners {
  param *rows; /* PARAMS_MAX for each owner */
  weights_owner *items;
  size_t count;
} owners;

static param *add_owner(owners *o, weights_owner owner) {
  param *rows = o->rows + o->count * PARAMS_MAX;
  owner.params = rows;
  o->items[o->count++] = owner;
  return rows;
}

static void list_owners(clm_model *m, model_ends ends, owners *o) {
  ends_params(&m->config, ends, add_owner(o, (weights_owner){.views = &m->ends, .block = -1, .part = -1}));
  for (int i = 0; i < m->config.n_layer; i++) {
    model_block *b = &m->blocks.items[i];
    block_params(&m->config, add_owner(o, (weights_owner){.views = &b->params, .block = i, .part = -1}));
    for (int k = 0; k < b->layer_count; k++) {
      model_layer *l = &b->layers[k];
      const weights_owner owner = {
          .views = &l->params, .block = i, .part = k, .parts = b->layer_count, .module = l->kind->module};
      l->kind->params(l, add_owner(o, owner));
    }
  }
}

clm_status model_lay_out(clm_model *m, const clm_model_config *config, model_ends ends) {
  m->config = *config;
  TRY(blocks_make(m->context, &m->config, &m->blocks));
  const size_t max_items = 1 + (size_t)m->config.n_layer + m->blocks.layer_count;
  owners o = {.rows = calloc(max_items * PARAMS_MAX, sizeof *o.rows), .items = calloc(max_items, sizeof *o.items)};
  clm_status status = CLM_OK;
  if (o.rows && o.items) {
    list_owners(m, ends, &o);
    status = weights_layout_make(m->context, o.items, o.count, &m->layout);
  } else status = context_fail(m->context, CLM_OUT_OF_MEMORY, "model: out of host memory");
  free(o.rows);
  free(o.items);
  return status;
}

static clm_status make_parameters(clm_model *m) {
  TRY(activations_create(m->context, m->config.n_layer, &m->act));
  TRY(clm_buffer_create(m->context, m->layout.total * sizeof(float), &m->parameters));
  TRY(clm_buffer_keep_packed(m->parameters, true));
  weights_bind(&m->layout, m->parameters);
  return CLM_OK;
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

static clm_status initialise(clm_model *m, const clm_model_config *config, model_ends ends, uint64_t seed) {
  TRY(model_lay_out(m, config, ends));
  float *flat = malloc(m->layout.total * sizeof *flat);
  if (!flat)
    return context_fail(m->context, CLM_OUT_OF_MEMORY, "model: out of host memory for %lld parameters",
                        (long long)m->layout.parameters);
  weights_initialise(&m->layout, &m->config, seed, flat);
  clm_status status = make_parameters(m);
  if (status == CLM_OK) status = clm_buffer_write(m->parameters, 0, m->layout.total * sizeof *flat, flat);
  free(flat);
  return status;
}

clm_status model_create(clm_context *ctx, const clm_model_config *config, model_ends ends, uint64_t seed,
                        clm_model **model) {
  TRY(new_model(ctx, model));
  return model_made(initialise(*model, config, ends, seed), model);
}

clm_status clm_model_create(clm_context *ctx, const clm_model_config *config, uint64_t seed, clm_model **model) {
  if (model) *model = NULL;
  TRY(CONTEXT_NEED(ctx, "model_create", config, model));
  clm_model_config complete = *config;
  TRY(config_complete(ctx, &complete));
  return model_create(ctx, &complete, (model_ends){0}, seed, model);
}

static clm_status load(clm_model *m, const clm_model_config *config, model_ends ends, const source *from,
                       const clm_model_load_options *options) {
  clm_model_config own = *config;
  if (ends.inputs == 0) TRY(model_check_tie(m->context, from, &own));
  TRY(model_lay_out(m, &own, ends));
  TRY(weights_layout_fit(m->context, &m->layout, from, options->weights));
  TRY(make_parameters(m));
  m->act.dtype = options->activations;
  return weights_load(m->context, &m->layout, from, options, m->parameters);
}

static clm_status load_from(clm_context *ctx, const clm_model_config *config, model_ends ends, source *from,
                            const clm_model_load_options *options, clm_model **model) {
  clm_status status = new_model(ctx, model);
  if (status == CLM_OK) status = model_made(load(*model, config, ends, from, options), model);
  source_close(from);
  return status;
}

clm_status model_load(clm_context *ctx, const clm_model_config *config, model_ends ends, const char *weights_path,
                      clm_model **model) {
  source from;
  *model = NULL;
  TRY(safetensors_open(ctx, weights_path, &from));
  return load_from(ctx, config, ends, &from, &(clm_model_load_options){0}, model);
}

static clm_status open_gguf(clm_context *ctx, const char *path, clm_model_config *config, kept *k, source *from) {
  TRY(gguf_open(ctx, path, from));
  clm_status status = config_read_gguf(ctx, from, config);
  if (status == CLM_OK) status = kept_read_gguf(ctx, from, k);
  if (status) {
    config_free(config);
    source_close(from);
  }
  return status;
}

static clm_status open_directory(clm_context *ctx, const char *directory, clm_model_config *config, kept *k,
                                 source *from) {
  TRY(source_check_directory(ctx, directory));
  char *path = file_path(directory, "config.json");
  if (!path) return context_fail(ctx, CLM_OUT_OF_MEMORY, "model: out of host memory");
  source_scales scales;
  clm_status status = config_read(ctx, path, config, &scales);
  free(path);
  if (status == CLM_OK) status = kept_read(ctx, directory, k);
  if (status == CLM_OK) status = source_open_directory(ctx, directory, from);
  if (status) {
    kept_free(k);
    config_free(config);
    return status;
  }
  from->naming = weights_naming(from);
  from->scales = scales;
  return CLM_OK;
}

static clm_status open_model(clm_context *ctx, const char *path, clm_model_config *config, kept *k, source *from) {
  return (gguf_is(path) ? open_gguf : open_directory)(ctx, path, config, k, from);
}

clm_status clm_model_read_config(clm_context *ctx, const char *path, clm_model_config *config) {
  TRY(CONTEXT_NEED(ctx, "model_read_config", path, config));
  kept k = {0};
  source from;
  TRY(open_model(ctx, path, config, &k, &from));
  config_free(config);
  source_close(&from);
  kept_free(&k);
  return CLM_OK;
}

static clm_status check_activations(clm_context *ctx, const char *call, clm_dtype dtype) {
  if (dtype == CLM_F32 || dtype == CLM_F16 || dtype == CLM_BF16) return CLM_OK;
  return context_fail(ctx, CLM_INVALID_ARGUMENT, "%s: activations is %s, expected f32, f16 or bf16", call,
                      clm_dtype_name(dtype));
}

clm_status clm_model_load_with(clm_context *ctx, const char *path, const clm_model_load_options *options,
                               clm_model **model) {
  if (model) *model = NULL;
  TRY(CONTEXT_NEED(ctx, "model_load", path, model));
  const clm_model_load_options defaults = {0};
  clm_model_config config;
  kept k = {0};
  source from;
  if (!options) options = &defaults;
  if ((unsigned)options->weights > CLM_WEIGHTS_INT8)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "model_load: weights is %d, expected a clm_weights_type",
                        (int)options->weights);
  TRY(check_activations(ctx, "model_load", options->activations));
  TRY(open_model(ctx, path, &config, &k, &from));
  clm_status status = load_from(ctx, &config, (model_ends){0}, &from, options, model);
  config_free(&config);
  if (status == CLM_OK) (*model)->kept = k;
  else kept_free(&k);
  return status;
}

clm_status clm_model_load(clm_context *ctx, const char *path, clm_model **model) {
  return clm_model_load_with(ctx, path, NULL, model);
}

clm_status model_save_weights(clm_model *m, const char *path) {
  return weights_save(m->context, &m->layout, path, config_naming(&m->config, m->kept.ids), m->parameters);
}

clm_status clm_model_save(clm_model *m, const char *directory) {
  TRY(HANDLE_NEED(m, "model_save", directory));
  char *config_path = file_path(directory, "config.json"), *weights_path = file_path(directory, "model.safetensors");
  clm_status status =
      config_path && weights_path
          ? config_write(m->context, config_path, &m->config, weights_matrix_dtype(&m->layout), m->kept.ids)
          : context_fail(m->context, CLM_OUT_OF_MEMORY, "model: out of host memory");
  if (status == CLM_OK) status = model_save_weights(m, weights_path);
  if (status == CLM_OK) status = kept_write(m->context, directory, &m->kept);
  free(config_path);
  free(weights_path);
  return status;
}

void clm_model_destroy(clm_model **model) {
  if (!model || !*model) return;
  clm_model *m = *model;
  activations_destroy(&m->act);
  kept_free(&m->kept);
  clm_buffer_destroy(&m->parameters);
  clm_buffer_destroy(&m->gradients);
  weights_layout_free(&m->layout);
  blocks_free(&m->blocks);
  free(m);
  *model = NULL;
}

clm_status clm_model_set_activations(clm_model *m, clm_dtype dtype) {
  if (!m) return CLM_INVALID_ARGUMENT;
  TRY(check_activations(m->context, "model_set_activations", dtype));
  m->act.dtype = dtype;
  return CLM_OK;
}

clm_context *clm_model_context(const clm_model *m) { return m ? m->context : NULL; }
const clm_model_config *clm_model_configuration(const clm_model *m) { return m ? &m->config : NULL; }
int64_t clm_model_parameter_count(const clm_model *m) { return m ? m->layout.parameters : 0; }

clm_status model_prepare(clm_model *m, int64_t batch, int64_t length, activations_mode mode) {
  return activations_prepare(m->context, &m->act, &m->config, &m->blocks, batch, length, mode);
}

clm_status model_need_gradients(clm_model *m) {
  if (m->gradients) return CLM_OK;
  if (!weights_are_f32(&m->layout))
    return context_fail(m->context, CLM_INVALID_ARGUMENT,
                        "model: gradients need weights that are held as f32: load the model with CLM_WEIGHTS_F32");
  clm_buffer *gradients = NULL;
  TRY(clm_buffer_create(m->context, m->layout.total * sizeof(float), &gradients));
  /* The padding between parameters is never written again: it must not hold anything that counts as gradient. */
  clm_tensor all = clm_tensor_of(gradients, 0, CLM_F32, 1, (int64_t[]){(int64_t)m->layout.total});
  clm_status status = clm_axpby(m->context, &(clm_axpby_args){.out = all});
  if (status) {
    clm_buffer_destroy(&gradients);
    return status;
  }
  m->gradients = gradients;
  weights_bind_gradients(&m->layout, gradients);
  return CLM_OK;
}

static clm_status find_view(clm_model *m, const char *name, clm_buffer *flat, clm_tensor *view) {
  if (weights_find(&m->layout, flat, name, view)) return CLM_OK;
  return context_fail(m->context, CLM_INVALID_ARGUMENT, "model: there is no parameter \"%.100s\"", name);
}

clm_status clm_model_parameter(clm_model *m, const char *name, clm_tensor *parameter) {
  TRY(HANDLE_NEED(m, "model_parameter", name, parameter));
  return find_view(m, name, m->parameters, parameter);
}

clm_status clm_model_gradient(clm_model *m, const char *name, clm_tensor *gradient) {
  TRY(HANDLE_NEED(m, "model_gradient", name, gradient));
  if (!m->gradients)
    return context_fail(m->context, CLM_INVALID_ARGUMENT, "model: no gradients have been computed yet");
  return find_view(m, name, m->gradients, gradient);
}

int64_t clm_model_tensor_count(const clm_model *m) { return m ? (int64_t)m->layout.item_count : 0; }

clm_status clm_model_tensor(clm_model *m, int64_t index, clm_parameter *parameter) {
  TRY(HANDLE_NEED(m, "model_tensor", parameter));
  const weights_layout *l = &m->layout;
  if (index < 0 || index >= (int64_t)l->item_count)
    return context_fail(m->context, CLM_INVALID_ARGUMENT, "model_tensor: index is %lld, expected 0 to %lld",
                        (long long)index, (long long)l->item_count - 1);
  const weight *w = &l->items[index];
  *parameter =
      (clm_parameter){.tensor = weights_tensor(l, m->parameters, (size_t)index), .decays = w->offset < l->decayed};
  if (m->gradients) parameter->gradient = weights_tensor(l, m->gradients, (size_t)index);
  weights_name(w, parameter->name);
  return CLM_OK;
}
