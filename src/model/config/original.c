/* config.json of the original state-spaces checkpoints:
 *   {"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}, "pad_vocab_size_multiple": 8, ...}
 * with "ssm_cfg": {"layer": "Mamba2", ...} of Mamba-2, and "d_intermediate" where an MLP follows each mixer. */
#include "core/arith.h"
#include "core/context.h"
#include "core/try.h"
#include "model/config/family.h"
#include "model/config/members.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LIMITS ".dt_limit"

/* Of every norm of the package. */
#define EPSILON 1e-5f

/* Hidden channels of its MLPs are rounded up to this. */
#define MLP_MULTIPLE 128

static bool is(const json_t *json) {
  return !config_type(json) && json_object_get(json, "d_model") && json_object_get(json, "n_layer");
}

static clm_status read_vocab(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  const json_t *padding = members_find(json, "pad_vocab_size_multiple");
  int64_t multiple = padding ? json_integer_value(padding) : 8;
  if (multiple < 1 || multiple > MAX_DIMENSION)
    return members_bad_key(ctx, path, "pad_vocab_size_multiple", "a whole number of at least 1");
  if (c->vocab_size <= MAX_VOCAB) c->vocab_size = round_up(c->vocab_size, multiple);
  return CLM_OK;
}

/* d_ssm, where it is given, is d_inner without the channels of an MLP parallel to the heads. */
static clm_status read_mamba2(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  *c = (clm_model_config){.d_state = 128, .head_dim = 64};
  TRY(members_read(ctx, path, json, FORM_MAMBA2_ORIGINAL, c));
  TRY(members_read_limits(ctx, path, json, LIMITS, c));
  if (c->d_inner && c->d_model <= MAX_DIMENSION && c->expand <= MAX_EXPAND) {
    c->d_mlp = (c->expand ? c->expand : 2) * c->d_model - c->d_inner;
    if (c->d_mlp < 0) return members_bad_key(ctx, path, "d_ssm", "expand times d_model or less");
  }
  return CLM_OK;
}

/* An MLP after each mixer is a block of its own here. */
static clm_status read_layers(clm_context *ctx, const char *path, const json_t *json, const char *kind,
                              clm_model_config *c) {
  const json_t *value = members_find(json, "d_intermediate");
  const json_int_t width = value ? json_integer_value(value) : 0;
  char layers[64];
  if ((value && !json_is_integer(value)) || width < 0 || width > MAX_DIMENSION)
    return members_bad_key(ctx, path, "d_intermediate", "a whole number of channels");
  if (width == 0) return strcmp(kind, "mamba1") == 0 ? CLM_OK : config_set_layers(ctx, path, kind, c);
  if (c->n_layer <= MAX_DIMENSION) c->n_layer *= 2;
  snprintf(layers, sizeof layers, "%s mlp(width=%" PRId64 ")", kind, round_up(width, MLP_MULTIPLE));
  return config_set_layers(ctx, path, layers, c);
}

static clm_status read(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  const char *layer = json_string_value(members_find(json, ".layer"));
  const bool mamba2 = layer && strcmp(layer, "Mamba2") == 0;
  if (layer && !mamba2 && strcmp(layer, "Mamba1") != 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: the model is a \"%.40s\", expected Mamba1 or Mamba2", path, layer);
  if (json_array_size(json_object_get(json, "attn_layer_idx")) > 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: the model has attention layers, expected none", path);
  TRY(mamba2 ? read_mamba2(ctx, path, json, c) : members_read(ctx, path, json, FORM_ORIGINAL, c));
  TRY(read_layers(ctx, path, json, mamba2 ? "mamba2" : "mamba1", c));
  return read_vocab(ctx, path, json, c);
}

/* The width of the MLPs where each mixer, all of one kind, is followed by one of a width that the form has; else 0.
 */
static int64_t mlp_width(const clm_model_config *c, const char *kind) {
  const size_t length = strlen(kind);
  int64_t width;
  int end = 0;
  if (!c->layers || c->n_layer % 2 || strncmp(c->layers, kind, length) != 0) return 0;
  const int found = sscanf(c->layers + length, " mlp(width=%" SCNd64 ")%n", &width, &end);
  return found == 1 && end > 0 && c->layers[length + (size_t)end] == '\0' && width % MLP_MULTIPLE == 0 ? width : 0;
}

static bool is_mamba2(const clm_model_config *c) { return config_is_all(c, "mamba2") || mlp_width(c, "mamba2") > 0; }

static int64_t any_mlp_width(const clm_model_config *c) { return mlp_width(c, is_mamba2(c) ? "mamba2" : "mamba1"); }

/* Hugging Face's forms, which are tried first, take what they can. */
static bool can_write(const clm_model_config *c) {
  if (c->residual_scale != 1 || c->logit_scale != 1) return false;
  if (is_mamba2(c)) return c->d_inner + c->d_mlp == c->expand * c->d_model;
  return (mlp_width(c, "mamba1") > 0 || (!c->layers && c->layer_norm)) && !c->mixer_norm &&
         c->d_inner == c->expand * c->d_model;
}

static json_t *write(const clm_model_config *c, clm_dtype dtype) {
  (void)dtype;
  const bool mamba2 = is_mamba2(c);
  const int64_t width = any_mlp_width(c);
  clm_model_config layers = *c; /* one, of what is a mixer and an MLP here */
  if (width) layers.n_layer /= 2;
  json_t *json =
      json_pack("{s:{s:s}, s:b, s:b, s:i, s:I}", "ssm_cfg", "layer", mamba2 ? "Mamba2" : "Mamba1", "residual_in_fp32",
                1, "fused_add_norm", 1, "pad_vocab_size_multiple", 1, "d_intermediate", (json_int_t)width);
  if (!members_write(&layers, mamba2 ? FORM_MAMBA2_ORIGINAL : FORM_ORIGINAL, json) &&
      (!mamba2 || !members_write_limits(c, LIMITS, json))) {
    if (c->norm_epsilon == EPSILON)
      json_object_del(json, "norm_epsilon"); /* the package refuses what it does not know */
    return json;
  }
  json_decref(json);
  return NULL;
}

static source_naming naming(const clm_model_config *c) {
  return any_mlp_width(c) ? NAMING_ORIGINAL_MLP : NAMING_ORIGINAL;
}

const config_family config_original = {is, read, can_write, write, false, naming, NULL};
