/* config.json as Hugging Face's FalconH1Config writes it: in every layer Mamba-2 and attention in parallel, and an
 * MLP. Its multipliers go into the weights as these are read; what is written has none. */
#include "core/context.h"
#include "core/json.h"
#include "core/try.h"
#include "model/config/family.h"
#include "model/config/hybrid.h"
#include "model/config/members.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MIXERS "mamba2+attention"

static bool is(const json_t *json) {
  const char *type = config_type(json);
  return type && strcmp(type, "falcon_h1") == 0;
}

/* ---- Flags ---- */

typedef struct flags {
  bool norm_before_gate, rms_norm, projectors_bias;
} flags;

static clm_status read_flags(clm_context *ctx, const char *path, const json_t *json, flags *f) {
  const struct {
    const char *key;
    bool *flag;
  } keys[] = {{"mamba_norm_before_gate", &f->norm_before_gate},
              {"mamba_rms_norm", &f->rms_norm},
              {"projectors_bias", &f->projectors_bias}};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    const json_t *value = members_find(json, keys[i].key);
    if (value && !json_is_boolean(value)) return members_bad_key(ctx, path, keys[i].key, "true or false");
    if (value) *keys[i].flag = json_boolean_value(value);
  }
  return CLM_OK;
}

/* ---- Multipliers ---- */

static clm_status read_number(clm_context *ctx, const char *path, const json_t *value, const char *key,
                              double *number) {
  *number = 1;
  if (!value || json_is_null(value)) return CLM_OK;
  if (json_to_double(value, number) && *number > 0 && isfinite(*number)) return CLM_OK;
  return members_bad_key(ctx, path, key, "a positive number, or as many as there are multipliers");
}

static clm_status read_multiplier(clm_context *ctx, const char *path, const json_t *json, const char *key,
                                  double *number) {
  return read_number(ctx, path, members_find(json, key), key, number);
}

static clm_status read_multipliers(clm_context *ctx, const char *path, const json_t *json, const char *key,
                                   size_t count, double *numbers) {
  const json_t *list = members_find(json, key);
  if (list && json_array_size(list) != count) return read_number(ctx, path, list, key, numbers);
  for (size_t i = 0; i < count; i++) TRY(read_number(ctx, path, json_array_get(list, i), key, &numbers[i]));
  return CLM_OK;
}

/* Tied, the embedding has its own and the logits what is left. */
static clm_status read_ends(clm_context *ctx, const char *path, const json_t *json, double *embedding, double *head) {
  TRY(read_multiplier(ctx, path, json, "embedding_multiplier", embedding));
  return read_multiplier(ctx, path, json, "lm_head_multiplier", head);
}

static void add(source_scales *s, const char *name, int64_t first, int64_t rows, double factor) {
  if (factor != 1) s->items[s->count++] = (source_scale){name, first, rows, factor};
}

/* The factor of a weight, and of its bias, which the input's multiplier is not on. */
static void add_both(source_scales *s, const char *weight, const char *bias, double input, double output) {
  add(s, weight, 0, 0, input * output);
  add(s, bias, 0, 0, output);
}

static clm_status scales(clm_context *ctx, const char *path, const json_t *json, const clm_model_config *c,
                         source_scales *s) {
  double embedding, head, ssm_in, ssm_out, key, in, out, ssm[5], mlp[2];
  TRY(read_ends(ctx, path, json, &embedding, &head));
  TRY(read_multiplier(ctx, path, json, "ssm_in_multiplier", &ssm_in));
  TRY(read_multiplier(ctx, path, json, "ssm_out_multiplier", &ssm_out));
  TRY(read_multiplier(ctx, path, json, "key_multiplier", &key));
  TRY(read_multiplier(ctx, path, json, "attention_in_multiplier", &in));
  TRY(read_multiplier(ctx, path, json, "attention_out_multiplier", &out));
  TRY(read_multipliers(ctx, path, json, "ssm_multipliers", 5, ssm));
  TRY(read_multipliers(ctx, path, json, "mlp_multipliers", 2, mlp));
  const int64_t bc = c->n_groups * c->d_state;
  const int64_t rows[5] = {c->d_inner, c->d_inner, bc, bc, c->d_inner / c->head_dim};
  for (int64_t i = 0, first = 0; i < 5; first += rows[i++]) { /* z, x, B, C, dt */
    add(s, "mamba.in_proj.weight", first, rows[i], ssm_in * ssm[i]);
    add(s, "mamba.in_proj.bias", first, rows[i], ssm[i]);
  }
  add_both(s, "mamba.out_proj.weight", "mamba.out_proj.bias", 1, ssm_out);
  add_both(s, "self_attn.q_proj.weight", "self_attn.q_proj.bias", in, 1);
  add_both(s, "self_attn.k_proj.weight", "self_attn.k_proj.bias", in, key);
  add_both(s, "self_attn.v_proj.weight", "self_attn.v_proj.bias", in, 1);
  add_both(s, "self_attn.o_proj.weight", "self_attn.o_proj.bias", 1, out);
  add_both(s, "feed_forward.gate_proj.weight", "feed_forward.gate_proj.bias", 1, mlp[0]);
  add_both(s, "feed_forward.down_proj.weight", "feed_forward.down_proj.bias", 1, mlp[1]);
  add(s, "embed_tokens.weight", 0, 0, embedding);
  if (c->untied_head) add(s, "lm_head.weight", 0, 0, head);
  return CLM_OK;
}

/* ---- The configuration ---- */

static clm_status read(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  hybrid_sizes sizes = {.layers = 32, .width = 14336, .mamba_heads = 128};
  flags f = {.norm_before_gate = true};
  double embedding, head;
  *c = (clm_model_config){.vocab_size = 128000,
                          .d_model = 4096,
                          .d_state = 256,
                          .d_inner = 1024,
                          .attention_heads = 32,
                          .kv_heads = 8,
                          .untied_head = true,
                          .rope_theta = 10000};
  if (json_is_null(json_object_get(json, "mamba_d_ssm"))) c->d_inner = 0; /* expand times hidden_size */
  TRY(hybrid_read_size(ctx, path, json, "mamba_d_ssm", &c->d_inner));
  TRY(hybrid_read(ctx, path, json, &sizes, c));
  TRY(read_flags(ctx, path, json, &f));
  if (f.projectors_bias != c->projection_bias)
    return context_fail(ctx, CLM_UNSUPPORTED,
                        "%s: mamba_proj_bias and projectors_bias differ: in_proj and out_proj must both have biases, "
                        "or none",
                        path);
  TRY(read_ends(ctx, path, json, &embedding, &head));
  c->logit_scale = c->untied_head ? 1 : (float)(head / embedding);
  c->norm_before_gate = f.norm_before_gate && f.rms_norm;
  c->no_gated_norm = !f.rms_norm;
  char(*blocks)[CONFIG_BLOCK] = calloc((size_t)sizes.layers, 2 * sizeof *blocks);
  if (!blocks) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  for (int64_t i = 0; i < sizes.layers; i++) {
    strcpy(blocks[2 * i], MIXERS);
    hybrid_mlp(&sizes, blocks[2 * i + 1]);
  }
  clm_status status = config_list_blocks(ctx, path, (const char(*)[CONFIG_BLOCK])blocks, 2 * sizes.layers, c);
  free(blocks);
  return status;
}

static bool can_write(const clm_model_config *c) {
  static const char *const mixers[] = {MIXERS, NULL};
  return hybrid_can_write(c, mixers) && c->rotary_dim == c->attention_head_dim &&
         (c->logit_scale == 1 || !c->untied_head);
}

static json_t *write(const clm_model_config *c, clm_dtype dtype) {
  json_t *json = hybrid_write(c, dtype, "FalconH1ForCausalLM", "falcon_h1");
  json_t *more = json_pack("{s:I, s:I, s:b, s:b, s:b, s:f}", "mamba_d_ssm", (json_int_t)c->d_inner, "head_dim",
                           (json_int_t)c->attention_head_dim, "mamba_rms_norm", !c->no_gated_norm,
                           "mamba_norm_before_gate", c->norm_before_gate, "projectors_bias", c->projection_bias,
                           "lm_head_multiplier", (double)c->logit_scale);
  const int failed = !json || !more || json_object_update(json, more);
  json_decref(more);
  if (!failed) return json;
  json_decref(json);
  return NULL;
}

const config_family config_falcon_h1 = {is, read, can_write, write, true, hybrid_naming, scales};
