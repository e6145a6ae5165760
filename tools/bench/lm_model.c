/* The models of the lm operations: random weights, made once, through a file where that is what is asked for. */
#include "bench/lm_model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* name, d_model, n_layer, vocab: the published sizes, and the small model of characters that mamba-train makes. */
#define MAMBA2 .vocab_size = 50288, .d_state = 128, .layers = "mamba2"
static const struct {
  const char *name;
  clm_model_config config;
} models[] = {
    {"char", {.vocab_size = 65, .d_model = 192, .n_layer = 6}},
    {"130m", {.vocab_size = 50280, .d_model = 768, .n_layer = 24}},
    {"370m", {.vocab_size = 50280, .d_model = 1024, .n_layer = 48}},
    {"790m", {.vocab_size = 50280, .d_model = 1536, .n_layer = 48}},
    {"1.4b", {.vocab_size = 50280, .d_model = 2048, .n_layer = 48}},
    {"2.8b", {.vocab_size = 50280, .d_model = 2560, .n_layer = 64}},
    {"mamba2-130m", {MAMBA2, .d_model = 768, .n_layer = 24}},
    {"mamba2-370m", {MAMBA2, .d_model = 1024, .n_layer = 48}},
    {"mamba2-780m", {MAMBA2, .d_model = 1536, .n_layer = 48}},
    {"mamba2-1.3b", {MAMBA2, .d_model = 2048, .n_layer = 48}},
    {"mamba2-2.7b", {MAMBA2, .d_model = 2560, .n_layer = 64}},
};
enum { MODELS = sizeof models / sizeof models[0] };

bool bench_model_entry(size_t i, tool_entry *entry) {
  static char text[80];
  if (i >= MODELS) return false;
  const clm_model_config *c = &models[i].config;
  snprintf(text, sizeof text, "d_model %lld, %lld layers, vocabulary %lld", (long long)c->d_model,
           (long long)c->n_layer, (long long)c->vocab_size);
  *entry = (tool_entry){models[i].name, text};
  return true;
}

static const clm_model_config *find_config(const char *name) {
  for (int i = 0; i < MODELS; i++)
    if (strcmp(models[i].name, name) == 0) return &models[i].config;
  return NULL;
}

bool bench_model_known(const char *name) { return find_config(name) != NULL; }

static const char *const files[] = {"config.json", "model.safetensors"};

void model_folder_remove(model_folder *folder) {
  for (int i = 0; folder->path[0] && i < 2; i++) {
    char *file = model_folder_file(folder, files[i]);
    if (file) unlink(file);
    free(file);
  }
  if (folder->path[0]) rmdir(folder->path);
  folder->path[0] = 0;
}

char *model_folder_file(const model_folder *folder, const char *name) {
  size_t size = sizeof folder->path + strlen(name) + 1;
  char *file = malloc(size);
  if (file) snprintf(file, size, "%s/%s", folder->path, name);
  return file;
}

/* The model again, its matrices held as `type`, by way of the file. */
static clm_status reload(const model_folder *folder, clm_weights_type type, clm_model **model) {
  clm_context *context = clm_model_context(*model);
  clm_model_destroy(model);
  return clm_model_load_with(context, folder->path, &(clm_model_load_options){.weights = type}, model);
}

static clm_status make_folder(model_folder *folder) {
  const char *temporary = getenv("TMPDIR");
  int n = snprintf(folder->path, sizeof folder->path, "%s/mamba-bench-XXXXXX", temporary ? temporary : "/tmp");
  if (n > 0 && (size_t)n < sizeof folder->path && mkdtemp(folder->path)) return CLM_OK;
  folder->path[0] = 0;
  return CLM_IO_ERROR;
}

clm_status model_folder_create(clm_context *context, const char *name, clm_weights_type type, model_folder *folder) {
  clm_model *model = NULL;
  clm_status status = make_folder(folder);
  if (status == CLM_OK) status = clm_model_create(context, find_config(name), 1, &model);
  if (status == CLM_OK) status = clm_model_save(model, folder->path);
  if (status == CLM_OK && type != CLM_WEIGHTS_F32) {
    status = reload(folder, type, &model);
    if (status == CLM_OK) status = clm_model_save(model, folder->path);
  }
  clm_model_destroy(&model);
  return status;
}

clm_status lm_model_create(clm_context *context, const char *name, clm_weights_type type, clm_model **model) {
  if (type == CLM_WEIGHTS_F32) return clm_model_create(context, find_config(name), 1, model);
  model_folder folder = {{0}};
  clm_status status = model_folder_create(context, name, CLM_WEIGHTS_F32, &folder);
  if (status == CLM_OK)
    status = clm_model_load_with(context, folder.path, &(clm_model_load_options){.weights = type}, model);
  model_folder_remove(&folder);
  return status;
}
