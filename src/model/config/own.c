/* clmamba's own config.json, for models that no other family has: members of clm_model_config under their own names,
 * and the list of layers.
 *   {"model_type": "clmamba", "layers": "mamba1 mlp(width=512)", "n_layer": 8, "d_model": 256, "vocab_size": 512} */
#include "core/context.h"
#include "core/try.h"
#include "model/config/family.h"
#include "model/config/members.h"
#include <string.h>

#define TYPE "clmamba"
#define KEY  "layers"

static bool is(const json_t *json) {
  const char *type = config_type(json);
  return type && strcmp(type, TYPE) == 0;
}

static clm_status read(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  TRY(members_read(ctx, path, json, FORM_OWN, c));
  const json_t *layers = members_find(json, KEY);
  if (!layers) return CLM_OK;
  if (!json_is_string(layers)) return members_bad_key(ctx, path, KEY, "a text, as in \"mamba1 mlp(width=512)\"");
  return config_set_layers(ctx, path, json_string_value(layers), c);
}

static bool can_write(const clm_model_config *c) {
  (void)c;
  return true;
}

static json_t *write(const clm_model_config *c, clm_dtype dtype) {
  (void)dtype;
  json_t *json = json_pack("{s:s}", "model_type", TYPE);
  int failed = members_write(c, FORM_OWN, json);
  if (c->layers) failed |= json_object_set_new(json, KEY, json_string(c->layers));
  if (!failed) return json;
  json_decref(json);
  return NULL;
}

const config_family config_own = {is, read, can_write, write, true, NULL, NULL};
