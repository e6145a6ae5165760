#include "model/config/config.h"
#include "core/context.h"
#include "core/file.h"
#include "core/json_file.h"
#include "core/json_print.h"
#include "core/try.h"
#include "model/blocks.h"
#include "model/config/family.h"
#include "model/config/members.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONFIG_BYTES (1u << 20)

/* The first that can write a configuration does. */
static const config_family *const families[] = {&config_huggingface, &config_mamba2,     &config_bamba,
                                                &config_falcon_h1,   &config_nemotron_h, &config_granite,
                                                &config_jamba,       &config_original,   &config_own};
#define FAMILIES (sizeof families / sizeof *families)

static clm_status check_layers(clm_context *ctx, const clm_model_config *c) {
  clm_model_config copy = *c;
  model_blocks b;
  TRY(blocks_make(ctx, &copy, &b));
  blocks_free(&b);
  return CLM_OK;
}

/* The greatest power of two up to `most` that divides n. */
static int64_t greatest_power(int64_t n, int64_t most) {
  int64_t power = 1;
  while (power < most && n % (2 * power) == 0) power *= 2;
  return power;
}

/* Heads or their size follow from the other. */
static void complete_attention(clm_model_config *c) {
  if (c->attention_head_dim == 0 && c->attention_heads > 0) c->attention_head_dim = c->d_model / c->attention_heads;
  if (c->attention_head_dim <= 0) c->attention_head_dim = greatest_power(c->d_model, 64);
  if (c->attention_heads == 0) c->attention_heads = c->d_model / c->attention_head_dim;
  if (c->attention_heads == 0) c->attention_heads = 1;
  if (c->kv_heads == 0) c->kv_heads = c->attention_heads;
  if (c->rotary_dim == 0) c->rotary_dim = c->attention_head_dim;
}

clm_status config_complete(clm_context *ctx, clm_model_config *c) {
  if (c->layers && c->n_layer == 0) c->n_layer = blocks_count(c->layers);
  if (c->d_inner == 0 && c->d_model > 0 && c->d_model <= MAX_DIMENSION && c->expand >= 0 && c->expand <= MAX_EXPAND)
    c->d_inner = (c->expand ? c->expand : 2) * c->d_model;
  if (c->dt_rank == 0 && c->d_model > 0) c->dt_rank = (c->d_model - 1) / 16 + 1;
  if (c->head_dim == 0) c->head_dim = greatest_power(c->d_inner, 64);
  complete_attention(c);
  TRY(members_complete(ctx, c));
  if (c->layer_norm && c->mixer_norm)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "model: layer_norm and mixer_norm exclude each other");
  if (c->dt_max < c->dt_min)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "model: dt_max %g is less than dt_min %g", (double)c->dt_max,
                        (double)c->dt_min);
  if (c->dt_limit_high > 0 && c->dt_limit_high < c->dt_limit_low)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "model: dt_limit_high %g is less than dt_limit_low %g",
                        (double)c->dt_limit_high, (double)c->dt_limit_low);
  return c->layers ? check_layers(ctx, c) : CLM_OK;
}

clm_status config_check(clm_context *ctx, const char *path, clm_model_config *c) {
  if (c->d_model > 0 && c->d_inner > 0 && c->d_inner <= MAX_DIMENSION &&
      c->d_mlp <= MAX_DIMENSION) { /* d_inner takes precedence over expand */
    const int64_t whole = (c->d_inner + c->d_mlp) / c->d_model;
    c->expand = whole < 1 ? 1 : whole > MAX_EXPAND ? MAX_EXPAND : whole;
  }
  if (config_complete(ctx, c) == CLM_OK) return CLM_OK;
  char why[256];
  strncpy(why, clm_context_error(ctx), sizeof why - 1);
  why[sizeof why - 1] = '\0';
  return context_fail(ctx, CLM_BAD_FORMAT, "%s: %s", path, why);
}

const char *config_type(const json_t *json) { return json_string_value(json_object_get(json, "model_type")); }

bool config_is_all(const clm_model_config *c, const char *kind) {
  const size_t length = strlen(kind);
  const char *at = c->layers;
  while (at && strncmp(at, kind, length) == 0 && at[length] == ' ') at += length + 1;
  return at && strcmp(at, kind) == 0;
}

clm_status config_set_layers(clm_context *ctx, const char *path, const char *kind, clm_model_config *c) {
  c->layers = strdup(kind);
  return c->layers ? CLM_OK : context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
}

void config_block(const clm_model_config *c, int64_t number, char block[CONFIG_BLOCK]) {
  const char *at = c->layers;
  size_t length = 0;
  for (int64_t skip = number % blocks_count(c->layers); skip > 0; skip--) at = strchr(at, ' ') + 1;
  while (at[length] && at[length] != ' ' && length < CONFIG_BLOCK - 1) length++;
  memcpy(block, at, length);
  block[length] = '\0';
}

clm_status config_list_blocks(clm_context *ctx, const char *path, const char (*blocks)[CONFIG_BLOCK], int64_t count,
                              clm_model_config *c) {
  char *text = malloc((size_t)count * CONFIG_BLOCK + 1), *at = text;
  if (!text) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  *at = '\0';
  for (int64_t i = 0; i < count; i++) at += sprintf(at, "%s%s", i ? " " : "", blocks[i]);
  c->layers = text;
  c->n_layer = count;
  return CLM_OK;
}

static clm_status read_json(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c,
                            source_scales *scales) {
  for (size_t i = 0; i < FAMILIES; i++) {
    if (!families[i]->is(json)) continue;
    TRY(families[i]->read(ctx, path, json, c));
    TRY(config_check(ctx, path, c));
    return families[i]->scales ? families[i]->scales(ctx, path, json, c, scales) : CLM_OK;
  }
  const char *type = config_type(json);
  return context_fail(ctx, CLM_UNSUPPORTED,
                      "%s: model_type is \"%.40s\", expected \"mamba\", \"falcon_mamba\", \"mamba2\", \"bamba\", "
                      "\"falcon_h1\", \"nemotron_h\", \"granitemoehybrid\" or \"jamba\"",
                      path, type ? type : "absent");
}

clm_status config_read(clm_context *ctx, const char *path, clm_model_config *c, source_scales *scales) {
  *c = (clm_model_config){0};
  *scales = (source_scales){.count = 0};
  json_t *json;
  TRY(json_read_object(ctx, path, MAX_CONFIG_BYTES, JSON_PYTHON, &json));
  clm_status status = read_json(ctx, path, json, c, scales);
  json_decref(json);
  if (status) config_free(c);
  return status;
}

void config_free(clm_model_config *c) {
  free((char *)(uintptr_t)c->layers);
  c->layers = NULL;
}

/* The last can write everything. */
static const config_family *family_of(const clm_model_config *c, const json_t *ids) {
  const bool has_ids = json_object_size(ids) > 0;
  size_t i = 0;
  while (!families[i]->can_write(c) || (has_ids && !families[i]->has_ids)) i++;
  return families[i];
}

source_naming config_naming(const clm_model_config *c, const json_t *ids) {
  const config_family *family = family_of(c, ids);
  return family->naming ? family->naming(c) : NAMING_PYTORCH;
}

clm_status config_write(clm_context *ctx, const char *path, const clm_model_config *c, clm_dtype dtype, json_t *ids) {
  json_t *json = family_of(c, ids)->write(c, dtype);
  if (json && ids && json_object_update(json, ids)) {
    json_decref(json);
    json = NULL;
  }
  char *text = json_print(json, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(9));
  json_decref(json);
  if (!text) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  clm_status status = file_replace(ctx, path, (file_part[]){{text, strlen(text)}, {"\n", 1}}, 2);
  free(text);
  return status;
}
