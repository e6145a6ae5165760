/* config.json as Hugging Face's Mamba2Config writes it: mamba2 checkpoints, Codestral Mamba. */
#include "core/context.h"
#include "core/try.h"
#include "model/config/family.h"
#include "model/config/members.h"
#include <string.h>

#define LIMITS "time_step_limit"

static bool is(const json_t *json) {
  const char *type = config_type(json);
  return type && strcmp(type, "mamba2") == 0;
}

static clm_status read_heads(clm_context *ctx, const char *path, const json_t *json, int64_t *heads) {
  const json_t *value = members_find(json, "num_heads");
  *heads = value ? json_integer_value(value) : 128;
  if ((value && !json_is_integer(value)) || *heads < 1 || *heads > MAX_DIMENSION)
    return members_bad_key(ctx, path, "num_heads", "a whole number of at least 1");
  return CLM_OK;
}

/* What the file leaves out is as the class has it. */
static clm_status read(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  int64_t heads;
  *c = (clm_model_config){.d_state = 128, .head_dim = 64, .n_groups = 8, .untied_head = true};
  TRY(members_read(ctx, path, json, FORM_MAMBA2, c));
  TRY(read_heads(ctx, path, json, &heads));
  TRY(members_read_limits(ctx, path, json, LIMITS, c));
  const char *activation = json_string_value(json_object_get(json, "hidden_act"));
  if (activation && strcmp(activation, "silu") != 0 && strcmp(activation, "swish") != 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: hidden_act is \"%.40s\", expected \"silu\"", path, activation);
  if (c->head_dim > MAX_DIMENSION / heads)
    return members_bad_key(ctx, path, "head_dim", "small enough for this number of heads");
  c->d_inner = heads * c->head_dim;
  return config_set_layers(ctx, path, "mamba2", c);
}

static bool can_write(const clm_model_config *c) {
  return config_is_all(c, "mamba2") && !c->layer_norm && c->residual_scale == 1 && c->logit_scale == 1 &&
         !c->D_per_channel && !c->norm_before_gate && !c->no_gated_norm && c->d_mlp == 0 &&
         c->d_inner == c->expand * c->d_model;
}

/* Special tokens and rescale_prenorm_residual as in huggingface.c. */
static json_t *write(const clm_model_config *c, clm_dtype dtype) {
  const char *type = members_dtype(dtype);
  json_t *json =
      json_pack("{s:[s], s:s, s:s, s:b, s:b, s:I, s:i, s:s, s:b, s:n, s:n, s:n}", "architectures",
                "Mamba2ForCausalLM", "model_type", "mamba2", "hidden_act", "silu", "residual_in_fp32", 1,
                "rescale_prenorm_residual", 0, "num_heads", (json_int_t)(c->d_inner / c->head_dim), "chunk_size", 256,
                "torch_dtype", type, "use_cache", 1, "bos_token_id", "eos_token_id", "pad_token_id");
  if (!members_write(c, FORM_MAMBA2, json) && !members_write_limits(c, LIMITS, json)) return json;
  json_decref(json);
  return NULL;
}

const config_family config_mamba2 = {is, read, can_write, write, true, NULL, NULL};
