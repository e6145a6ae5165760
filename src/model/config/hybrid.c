#include "model/config/hybrid.h"
#include "core/context.h"
#include "core/json.h"
#include "core/try.h"
#include "model/config/members.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIMITS    "time_step_limit"
#define LAYERS    "num_hidden_layers"
#define WIDTH     "intermediate_size"
#define HEADS     "mamba_n_heads"
#define HEAD_DIM  "mamba_d_head"
#define THETA     "rope_theta"
#define ROPE      "rope_parameters"
#define MLP       "mlp(width=%" PRId64 ")"
#define MLP_BIAS  "mlp(width=%" PRId64 ",bias=1)"
#define ROPE_TYPE "rope_type"

clm_status hybrid_read_size(clm_context *ctx, const char *path, const json_t *json, const char *key, int64_t *value) {
  const json_t *number = members_find(json, key);
  if (!number) return CLM_OK;
  if (!json_is_integer(number) || json_integer_value(number) < 1 || json_integer_value(number) > MAX_DIMENSION)
    return members_bad_key(ctx, path, key, "a whole number of at least 1");
  *value = json_integer_value(number);
  return CLM_OK;
}

/* Of version 5 of transformers in an object of their own, before that among the others. */
static clm_status read_rope(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  const json_t *rope = members_find(json, ROPE), *theta = json_object_get(rope, THETA);
  const char *type = json_string_value(json_object_get(rope, ROPE_TYPE));
  double number;
  if (type && strcmp(type, "default") != 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: " ROPE_TYPE " is \"%.40s\", expected \"default\"", path, type);
  if (json_is_object(members_find(json, "rope_scaling")))
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: \"rope_scaling\" is given, expected none", path);
  if (!theta) theta = members_find(json, THETA);
  if (!theta) return CLM_OK;
  if (!json_to_double(theta, &number) || !(number >= 1))
    return members_bad_key(ctx, path, THETA, "a number of at least 1");
  c->rope_theta = (float)number;
  return CLM_OK;
}

static clm_status read_flag(clm_context *ctx, const char *path, const json_t *json, const char *key, bool *flag) {
  const json_t *value = members_find(json, key);
  if (!value) return CLM_OK;
  if (!json_is_boolean(value)) return members_bad_key(ctx, path, key, "true or false");
  *flag = json_boolean_value(value);
  return CLM_OK;
}

clm_status hybrid_read(clm_context *ctx, const char *path, const json_t *json, hybrid_sizes *s, clm_model_config *c) {
  const char *activation = json_string_value(json_object_get(json, "hidden_act"));
  TRY(members_read(ctx, path, json, FORM_HYBRID, c));
  TRY(members_read_limits(ctx, path, json, LIMITS, c));
  TRY(hybrid_read_size(ctx, path, json, LAYERS, &s->layers));
  TRY(hybrid_read_size(ctx, path, json, WIDTH, &s->width));
  TRY(hybrid_read_size(ctx, path, json, HEADS, &s->mamba_heads));
  TRY(hybrid_read_size(ctx, path, json, "head_dim", &c->attention_head_dim));
  TRY(read_flag(ctx, path, json, "mlp_bias", &s->mlp_bias));
  TRY(read_rope(ctx, path, json, c));
  if (activation && strcmp(activation, "silu") != 0 && strcmp(activation, "swish") != 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: hidden_act is \"%.40s\", expected \"silu\"", path, activation);
  if (s->layers > 4096) return members_bad_key(ctx, path, LAYERS, "at most 4096");
  if (c->d_model > MAX_DIMENSION || c->expand > MAX_EXPAND || c->attention_heads > MAX_DIMENSION)
    return members_bad_key(ctx, path, "hidden_size", "small enough");
  if (c->d_inner == 0) c->d_inner = (c->expand ? c->expand : 2) * c->d_model;
  if (c->d_inner % s->mamba_heads || (c->head_dim && c->head_dim != c->d_inner / s->mamba_heads))
    return members_bad_key(ctx, path, HEADS, "a number of heads that divides the inner width, of size " HEAD_DIM);
  c->head_dim = c->d_inner / s->mamba_heads;
  if (c->attention_head_dim == 0) c->attention_head_dim = c->d_model / c->attention_heads;
  return CLM_OK;
}

void hybrid_mlp(const hybrid_sizes *s, char block[CONFIG_BLOCK]) {
  snprintf(block, CONFIG_BLOCK, s->mlp_bias ? MLP_BIAS : MLP, s->width);
}

/* False: it is no MLP of these families. */
static bool parse_mlp(const char *block, hybrid_sizes *s) {
  char again[CONFIG_BLOCK];
  *s = (hybrid_sizes){.layers = 0};
  if (sscanf(block, "mlp(width=%" SCNd64, &s->width) != 1) return false;
  s->mlp_bias = strstr(block, "bias=1") != NULL;
  hybrid_mlp(s, again);
  return strcmp(again, block) == 0;
}

bool hybrid_can_write(const clm_model_config *c, const char *const *mixers) {
  char mlp[CONFIG_BLOCK], block[CONFIG_BLOCK];
  hybrid_sizes sizes;
  if (!c->layers || c->n_layer % 2) return false;
  config_block(c, 1, mlp);
  if (!parse_mlp(mlp, &sizes)) return false;
  for (int64_t i = 0; i < c->n_layer; i += 2) {
    int k = 0;
    config_block(c, i, block);
    while (mixers[k] && strcmp(mixers[k], block) != 0) k++;
    if (!mixers[k]) return false;
    config_block(c, i + 1, block);
    if (strcmp(block, mlp) != 0) return false;
  }
  return !c->layer_norm && c->residual_scale == 1 && !c->D_per_channel && c->d_mlp == 0 && c->rope_theta > 0 &&
         !c->rope_interleaved && !c->qk_norm && c->attention_window == 0 && c->attention_scale == 0;
}

json_t *hybrid_write(const clm_model_config *c, clm_dtype dtype, const char *architecture, const char *type) {
  const char *stored = members_dtype(dtype);
  char mlp[CONFIG_BLOCK];
  hybrid_sizes s;
  config_block(c, 1, mlp);
  parse_mlp(mlp, &s);
  json_t *json = json_pack(
      "{s:[s], s:s, s:s, s:I, s:I, s:I, s:b, s:I, s:s, s:b, s:{s:s, s:f, s:f}, s:n, s:n, s:n}", "architectures",
      architecture, "model_type", type, "hidden_act", "silu", LAYERS, (json_int_t)(c->n_layer / 2), WIDTH,
      (json_int_t)s.width, HEADS, (json_int_t)(c->d_inner / c->head_dim), "mlp_bias", s.mlp_bias, "mamba_chunk_size",
      (json_int_t)256, "dtype", stored, "use_cache", 1, ROPE, ROPE_TYPE, "default", THETA, (double)c->rope_theta,
      "partial_rotary_factor", (double)c->rotary_dim / (double)c->attention_head_dim, "bos_token_id", "eos_token_id",
      "pad_token_id");
  if (!members_write(c, FORM_HYBRID, json) && !members_write_limits(c, LIMITS, json)) return json;
  json_decref(json);
  return NULL;
}

source_naming hybrid_naming(const clm_model_config *c) {
  (void)c;
  return NAMING_HYBRID;
}
