/* config.json of the original state-spaces checkpoints:
 *   {"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}, "pad_vocab_size_multiple": 8, ...}
 * with "ssm_cfg": {"layer": "Mamba2", ...} of Mamba-2. */
#include "core/context.h"
#include "core/try.h"
#include "model/config/family.h"
#include "model/config/members.h"
#include <string.h>

#define LIMITS ".dt_limit"

static bool is(const json_t *json) {
  return !config_type(json) && json_object_get(json, "d_model") && json_object_get(json, "n_layer");
}

static clm_status read_vocab(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  const json_t *padding = members_find(json, "pad_vocab_size_multiple");
  int64_t multiple = padding ? json_integer_value(padding) : 8;
  if (multiple < 1 || multiple > MAX_DIMENSION)
    return members_bad_key(ctx, path, "pad_vocab_size_multiple", "a whole number of at least 1");
  if (c->vocab_size <= MAX_VOCAB) c->vocab_size = (c->vocab_size + multiple - 1) / multiple * multiple;
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
  return config_set_layers(ctx, path, "mamba2", c);
}

static clm_status read(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  const char *layer = json_string_value(members_find(json, ".layer"));
  const bool mamba2 = layer && strcmp(layer, "Mamba2") == 0;
  if (layer && !mamba2 && strcmp(layer, "Mamba1") != 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: the model is a \"%.40s\", expected Mamba1 or Mamba2", path, layer);
  if (json_array_size(json_object_get(json, "attn_layer_idx")) > 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: the model has attention layers, expected none", path);
  if (json_integer_value(json_object_get(json, "d_intermediate")) > 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: the model has MLP layers, expected d_intermediate 0", path);
  TRY(mamba2 ? read_mamba2(ctx, path, json, c) : members_read(ctx, path, json, FORM_ORIGINAL, c));
  return read_vocab(ctx, path, json, c);
}

/* Hugging Face's forms, which are tried first, take what they can. */
static bool can_write(const clm_model_config *c) {
  if (c->residual_scale != 1) return false;
  if (config_is_all(c, "mamba2")) return c->d_inner + c->d_mlp == c->expand * c->d_model;
  return !c->layers && c->layer_norm;
}

static json_t *write(const clm_model_config *c, clm_dtype dtype) {
  (void)dtype;
  const bool mamba2 = config_is_all(c, "mamba2");
  json_t *json = json_pack("{s:{s:s}, s:b, s:b, s:i}", "ssm_cfg", "layer", mamba2 ? "Mamba2" : "Mamba1",
                           "residual_in_fp32", 1, "fused_add_norm", 1, "pad_vocab_size_multiple", 1);
  if (!members_write(c, mamba2 ? FORM_MAMBA2_ORIGINAL : FORM_ORIGINAL, json) &&
      (!mamba2 || !members_write_limits(c, LIMITS, json)))
    return json;
  json_decref(json);
  return NULL;
}

const config_family config_original = {is, read, can_write, write, false};
