#include "model/kept.h"
#include "core/context.h"
#include "core/file.h"
#include "core/json_file.h"
#include "core/try.h"
#include "files/gguf.h"
#include <stdlib.h>
#include <unistd.h>

#define MAX_FILE_BYTES (1u << 20)
#define GENERATION     "generation_config.json"

static const struct {
  const char *key, *gguf;
} keys[] = {{"bos_token_id", "tokenizer.ggml.bos_token_id"},
            {"eos_token_id", "tokenizer.ggml.eos_token_id"},
            {"pad_token_id", "tokenizer.ggml.padding_token_id"}};
enum { KEYS = sizeof keys / sizeof *keys };

static clm_status out_of_memory(clm_context *ctx) {
  return context_fail(ctx, CLM_OUT_OF_MEMORY, "model: out of host memory");
}

/* A whole number, or a list of them. */
static bool is_id(const json_t *value) {
  bool is = json_is_integer(value) || json_is_array(value);
  for (size_t i = 0; i < json_array_size(value); i++) is = is && json_is_integer(json_array_get(value, i));
  return is;
}

static clm_status read_ids(clm_context *ctx, const char *directory, kept *k) {
  char *path = file_path(directory, "config.json");
  json_t *json;
  if (!path) return out_of_memory(ctx);
  clm_status status = json_read_object(ctx, path, MAX_FILE_BYTES, JSON_PYTHON, &json);
  free(path);
  TRY(status);
  int failed = (k->ids = json_object()) ? 0 : -1;
  for (int i = 0; i < KEYS && !failed; i++) {
    json_t *value = json_object_get(json, keys[i].key);
    if (is_id(value)) failed = json_object_set(k->ids, keys[i].key, value);
  }
  json_decref(json);
  return failed ? out_of_memory(ctx) : CLM_OK;
}

static clm_status read_generation(clm_context *ctx, const char *directory, kept *k) {
  char *path = file_path(directory, GENERATION);
  if (!path) return out_of_memory(ctx);
  clm_status status =
      access(path, F_OK) == 0 ? file_read(ctx, path, MAX_FILE_BYTES, &k->generation, &k->generation_bytes) : CLM_OK;
  free(path);
  return status;
}

clm_status kept_read(clm_context *ctx, const char *directory, kept *k) {
  *k = (kept){0};
  clm_status status = read_ids(ctx, directory, k);
  if (status == CLM_OK) status = read_generation(ctx, directory, k);
  if (status) kept_free(k);
  return status;
}

clm_status kept_read_gguf(clm_context *ctx, const source *file, kept *k) {
  *k = (kept){.ids = json_object()};
  int failed = k->ids ? 0 : -1;
  for (int i = 0; i < KEYS && !failed; i++) {
    int64_t id;
    if (gguf_integer(file, keys[i].gguf, &id)) failed = json_object_set_new(k->ids, keys[i].key, json_integer(id));
  }
  if (!failed) return CLM_OK;
  kept_free(k);
  return out_of_memory(ctx);
}

clm_status kept_write(clm_context *ctx, const char *directory, const kept *k) {
  if (!k->generation) return CLM_OK;
  char *path = file_path(directory, GENERATION);
  if (!path) return out_of_memory(ctx);
  clm_status status = file_replace(ctx, path, (file_part[]){{k->generation, k->generation_bytes}}, 1);
  free(path);
  return status;
}

void kept_free(kept *k) {
  json_decref(k->ids);
  free(k->generation);
  *k = (kept){0};
}
