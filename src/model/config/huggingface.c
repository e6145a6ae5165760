/* config.json as Hugging Face's MambaConfig and FalconMambaConfig write it. */
#include "core/context.h"
#include "core/try.h"
#include "model/config/family.h"
#include "model/config/members.h"
#include <string.h>

/* They differ in mixer_norm. */
static const struct {
  const char *type, *architecture;
} kinds[] = {{"mamba", "MambaForCausalLM"}, {"falcon_mamba", "FalconMambaForCausalLM"}};

static bool is_kind(const json_t *json, int kind) {
  const char *type = config_type(json);
  return type && strcmp(type, kinds[kind].type) == 0;
}

static bool is(const json_t *json) { return is_kind(json, 0) || is_kind(json, 1); }

static clm_status read(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  TRY(members_read(ctx, path, json, FORM_HUGGINGFACE, c));
  c->mixer_norm = is_kind(json, 1);
  const char *activation = json_string_value(json_object_get(json, "hidden_act"));
  if (activation && strcmp(activation, "silu") != 0 && strcmp(activation, "swish") != 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: hidden_act is \"%.40s\", expected \"silu\"", path, activation);
  return CLM_OK;
}

static bool can_write(const clm_model_config *c) {
  return !c->layers && !c->layer_norm && c->residual_scale == 1 && c->logit_scale == 1 &&
         !(c->mixer_norm && c->mixer_norm_weights);
}

/* With what Hugging Face writes besides: its own reader expects some of these. Special tokens that
 * nothing is known of are null, or its generate() would stop at token 0, which may be an ordinary character; and a
 * rescale_prenorm_residual that is true makes transformers scale out_proj once more after loading it. */
static json_t *write(const clm_model_config *c, clm_dtype dtype) {
  const char *type = members_dtype(dtype);
  json_t *json =
      json_pack("{s:[s], s:s, s:s, s:b, s:b, s:b, s:s, s:f, s:I, s:s, s:b, s:n, s:n, s:n}", "architectures",
                kinds[c->mixer_norm].architecture, "model_type", kinds[c->mixer_norm].type, "hidden_act", "silu",
                "residual_in_fp32", 1, "rescale_prenorm_residual", 0, "rms_norm", 1, "time_step_init_scheme",
                "random", "time_step_scale", 1.0, "n_layer", (json_int_t)c->n_layer, "torch_dtype", type, "use_cache",
                1, "bos_token_id", "eos_token_id", "pad_token_id");
  if (!members_write(c, FORM_HUGGINGFACE, json)) return json;
  json_decref(json);
  return NULL;
}

const config_family config_huggingface = {is, read, can_write, write, true, NULL, NULL};
