/* config.json of the original state-spaces checkpoints:
 *   {"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}, "pad_vocab_size_multiple": 8, ...} */
#include "core/context.h"
#include "core/try.h"
#include "model/config/family.h"
#include "model/config/members.h"
#include <string.h>

static bool is(const json_t *json) {
  return !config_type(json) && json_object_get(json, "d_model") && json_object_get(json, "n_layer");
}

static clm_status read(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  const char *layer = json_string_value(members_find(json, ".layer"));
  if (layer && strcmp(layer, "Mamba1") != 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: the model is a \"%.40s\", expected Mamba1", path, layer);
  if (json_array_size(json_object_get(json, "attn_layer_idx")) > 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: the model has attention layers, expected none", path);
  if (json_integer_value(json_object_get(json, "d_intermediate")) > 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: the model has MLP layers, expected d_intermediate 0", path);
  TRY(members_read(ctx, path, json, FORM_ORIGINAL, c));
  const json_t *padding = members_find(json, "pad_vocab_size_multiple");
  int64_t multiple = padding ? json_integer_value(padding) : 8;
  if (multiple < 1 || multiple > MAX_DIMENSION)
    return members_bad_key(ctx, path, "pad_vocab_size_multiple", "a whole number of at least 1");
  if (c->vocab_size <= MAX_VOCAB) c->vocab_size = (c->vocab_size + multiple - 1) / multiple * multiple;
  return CLM_OK;
}

static bool can_write(const clm_model_config *c) { return !c->layers && c->layer_norm && c->residual_scale == 1; }

static json_t *write(const clm_model_config *c, clm_dtype dtype) {
  (void)dtype;
  json_t *json = json_pack("{s:{s:s}, s:b, s:b, s:i}", "ssm_cfg", "layer", "Mamba1", "residual_in_fp32", 1,
                           "fused_add_norm", 1, "pad_vocab_size_multiple", 1);
  if (!members_write(c, FORM_ORIGINAL, json)) return json;
  json_decref(json);
  return NULL;
}

const config_family config_original = {is, read, can_write, write, false};
