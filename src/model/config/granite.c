/* config.json as Hugging Face's GraniteMoeHybridConfig writes it: layers of Mamba-2 or attention, each with experts
 * beside an MLP that every token takes, or with the MLP alone. The embedding's multiplier goes into the weights as
 * these are read; what is written has none. */
#include "core/context.h"
#include "core/json.h"
#include "core/try.h"
#include "model/config/family.h"
#include "model/config/hybrid.h"
#include "model/config/members.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIMITS    "time_step_limit"
#define TYPES     "layer_types"
#define EXPERTS   "num_local_experts"
#define CHOSEN    "num_experts_per_tok"
#define SHARED    "shared_intermediate_size"
#define POSITIONS "position_embedding_type"
#define EMBEDDING "embedding_multiplier"
#define MLP       "mlp(width=%" PRId64 ")"
#define MOE       "moe(experts=%" PRId64 ",chosen=%" PRId64 ",width=%" PRId64 ",normalize=1)+" MLP

/* Of what comes after the mixers. */
typedef struct granite_sizes {
  int64_t experts, chosen, width, shared; /* experts 0: none */
} granite_sizes;

static bool is(const json_t *json) {
  const char *type = config_type(json);
  return type && strcmp(type, "granitemoehybrid") == 0;
}

static void write_block(const granite_sizes *s, char block[CONFIG_BLOCK]) {
  if (s->experts) snprintf(block, CONFIG_BLOCK, MOE, s->experts, s->chosen, s->width, s->shared);
  else snprintf(block, CONFIG_BLOCK, MLP, s->shared);
}

/* ---- Reading ---- */

static clm_status read_multiplier(clm_context *ctx, const char *path, const json_t *json, const char *key,
                                  double *number) {
  const json_t *value = members_find(json, key);
  if (!value || (json_to_double(value, number) && *number > 0 && isfinite(*number))) return CLM_OK;
  return members_bad_key(ctx, path, key, "a positive number");
}

static clm_status read_multipliers(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  double embedding = 1, attention = 1, residual = 1, logits = 1;
  TRY(read_multiplier(ctx, path, json, EMBEDDING, &embedding));
  TRY(read_multiplier(ctx, path, json, "attention_multiplier", &attention));
  TRY(read_multiplier(ctx, path, json, "residual_multiplier", &residual));
  TRY(read_multiplier(ctx, path, json, "logits_scaling", &logits));
  c->attention_scale = (float)attention;
  c->residual_scale = (float)residual;
  c->logit_scale = (float)(1 / (c->untied_head ? logits : logits * embedding));
  return CLM_OK;
}

static clm_status scales(clm_context *ctx, const char *path, const json_t *json, const clm_model_config *c,
                         source_scales *s) {
  double embedding = 1;
  (void)c;
  TRY(read_multiplier(ctx, path, json, EMBEDDING, &embedding));
  if (embedding != 1) s->items[s->count++] = (source_scale){"embed_tokens.weight", 0, 0, embedding};
  return CLM_OK;
}

/* Both vocabularies of transformers. */
static const char *mixer_of(const char *type) {
  static const char *const types[][2] = {{"mamba", "mamba2"},
                                         {"linear_attention", "mamba2"},
                                         {"attention", "attention"},
                                         {"full_attention", "attention"}};
  for (size_t i = 0; type && i < sizeof types / sizeof *types; i++)
    if (strcmp(types[i][0], type) == 0) return types[i][1];
  return NULL;
}

static clm_status list_blocks(clm_context *ctx, const char *path, const json_t *json, const granite_sizes *s,
                              int64_t layers, clm_model_config *c) {
  const json_t *types = members_find(json, TYPES);
  if (types && json_array_size(types) != (size_t)layers)
    return members_bad_key(ctx, path, TYPES, "a list of as many types as there are layers");
  char(*blocks)[CONFIG_BLOCK] = calloc((size_t)layers, 2 * sizeof *blocks);
  if (!blocks) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  clm_status status = CLM_OK;
  for (int64_t i = 0; i < layers && !status; i++) {
    const char *mixer = types ? mixer_of(json_string_value(json_array_get(types, (size_t)i))) : "mamba2";
    if (mixer) strcpy(blocks[2 * i], mixer);
    else status = members_bad_key(ctx, path, TYPES, "a list of \"mamba\" and \"attention\"");
    write_block(s, blocks[2 * i + 1]);
  }
  if (status == CLM_OK) status = config_list_blocks(ctx, path, (const char(*)[CONFIG_BLOCK])blocks, 2 * layers, c);
  free(blocks);
  return status;
}

/* What the file leaves out is as the class has it. */
static clm_status read(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  hybrid_sizes sizes = {.layers = 32, .width = 11008, .mamba_heads = 128};
  granite_sizes s = {.experts = 8, .chosen = 2, .shared = 1024};
  const json_t *experts = members_find(json, EXPERTS);
  const char *positions = json_string_value(members_find(json, POSITIONS));
  *c = (clm_model_config){.vocab_size = 32000,
                          .d_model = 4096,
                          .d_state = 256,
                          .attention_heads = 32,
                          .norm_epsilon = 1e-6f,
                          .rope_theta = 10000,
                          .untied_head = true};
  TRY(hybrid_read(ctx, path, json, &sizes, c));
  if (!experts || json_integer_value(experts) != 0 || !json_is_integer(experts))
    TRY(hybrid_read_size(ctx, path, json, EXPERTS, &s.experts));
  else s.experts = 0;
  TRY(hybrid_read_size(ctx, path, json, CHOSEN, &s.chosen));
  TRY(hybrid_read_size(ctx, path, json, SHARED, &s.shared));
  s.width = sizes.width;
  if (!positions || strcmp(positions, "rope") != 0) c->rope_theta = 0;
  TRY(read_multipliers(ctx, path, json, c));
  return list_blocks(ctx, path, json, &s, sizes.layers, c);
}

/* ---- Writing ---- */

/* A model of Mamba-2 and MLPs alone is one of the original package, too. */
static bool is_own(const clm_model_config *c) { return strstr(c->layers, "attention") || strstr(c->layers, "moe("); }

static bool is_mixer(const char *block) { return strcmp(block, "mamba2") == 0 || strcmp(block, "attention") == 0; }

/* The sizes of a model whose blocks are as the form has them. */
static bool find_sizes(const clm_model_config *c, granite_sizes *s) {
  char block[CONFIG_BLOCK], want[CONFIG_BLOCK];
  *s = (granite_sizes){.width = 1};
  if (!c->layers || c->n_layer % 2) return false;
  config_block(c, 1, block);
  if (sscanf(block, "moe(experts=%" SCNd64 ",chosen=%" SCNd64 ",width=%" SCNd64 ",normalize=1)+mlp(width=%" SCNd64,
             &s->experts, &s->chosen, &s->width, &s->shared) != 4) {
    *s = (granite_sizes){.chosen = 1, .width = 1};
    if (sscanf(block, "mlp(width=%" SCNd64, &s->shared) != 1) return false;
  }
  write_block(s, want);
  for (int64_t i = 0; i < c->n_layer; i++) {
    config_block(c, i, block);
    if (i % 2 ? strcmp(block, want) != 0 : !is_mixer(block)) return false;
  }
  return true;
}

static bool can_write(const clm_model_config *c) {
  granite_sizes s;
  return find_sizes(c, &s) && (is_own(c) || c->residual_scale != 1) && !c->layer_norm && c->expert_scale == 1 &&
         !c->D_per_channel && c->d_mlp == 0 && !c->norm_before_gate && !c->no_gated_norm &&
         c->d_inner == c->expand * c->d_model && !c->qk_norm && c->attention_window == 0 && !c->rope_interleaved &&
         (c->rope_theta == 0 || c->rotary_dim == c->attention_head_dim) &&
         c->attention_heads * c->attention_head_dim == c->d_model;
}

static json_t *types_of(const clm_model_config *c) {
  json_t *types = json_array();
  char block[CONFIG_BLOCK];
  for (int64_t i = 0; i < c->n_layer; i += 2) {
    config_block(c, i, block);
    json_array_append_new(types, json_string(strcmp(block, "mamba2") == 0 ? "mamba" : "attention"));
  }
  return types;
}

static json_t *write(const clm_model_config *c, clm_dtype dtype) {
  const char *stored = members_dtype(dtype);
  const double attention =
      c->attention_scale > 0 ? (double)c->attention_scale : 1 / sqrt((double)c->attention_head_dim);
  granite_sizes s;
  find_sizes(c, &s);
  json_t *json = json_pack(
      "{s:[s], s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I, s:f, s:f, s:f, s:f, s:s, s:b, s:n, s:n, s:n}",
      "architectures", "GraniteMoeHybridForCausalLM", "model_type", "granitemoehybrid", "hidden_act", "silu",
      "num_hidden_layers", (json_int_t)(c->n_layer / 2), "intermediate_size", (json_int_t)s.width, EXPERTS,
      (json_int_t)s.experts, CHOSEN, (json_int_t)s.chosen, SHARED, (json_int_t)s.shared, "mamba_n_heads",
      (json_int_t)(c->d_inner / c->head_dim), TYPES, types_of(c), "mamba_chunk_size", (json_int_t)256, EMBEDDING, 1.0,
      "attention_multiplier", attention, "residual_multiplier", (double)c->residual_scale, "logits_scaling",
      1 / (double)c->logit_scale, "dtype", stored, "use_cache", 1, "bos_token_id", "eos_token_id", "pad_token_id");
  int failed = members_write(c, FORM_HYBRID, json) || members_write_limits(c, LIMITS, json);
  if (!failed && c->rope_theta > 0)
    failed =
        json_object_set_new(json, POSITIONS, json_string("rope")) ||
        json_object_set_new(json, "rope_parameters",
                            json_pack("{s:s, s:f}", "rope_type", "default", "rope_theta", (double)c->rope_theta));
  if (!failed) return json;
  json_decref(json);
  return NULL;
}

static source_naming naming(const clm_model_config *c) {
  (void)c;
  return NAMING_GRANITE;
}

const config_family config_granite = {is, read, can_write, write, true, naming, scales};
