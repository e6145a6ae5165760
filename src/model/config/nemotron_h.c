/* config.json as Hugging Face's NemotronHConfig writes it: every block is one layer, of Mamba-2, attention without
 * positions, an MLP of squared ReLU, or experts beside one that every token takes. */
#include "core/context.h"
#include "core/json.h"
#include "core/try.h"
#include "model/config/family.h"
#include "model/config/hybrid.h"
#include "model/config/members.h"
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIMITS  "time_step_limit"
#define TYPES   "layers_block_type"
#define PATTERN "hybrid_override_pattern"
#define WIDTH   "intermediate_size"
#define HEADS   "mamba_num_heads"
#define SCALE   "routed_scaling_factor"
#define BIAS    "mlp_bias"
#define MLP     "mlp(width=%" PRId64 ",activation=relu2,plain=1%s)"

/* The layers: as the pattern, transformers 5 and those before it call them. */
static const struct {
  char letter;
  const char *names[2], *block; /* NULL: of this model's sizes */
} types[] = {
    {'M', {"linear_attention", "mamba"}, "mamba2"},
    {'*', {"full_attention", "attention"}, "attention"},
    {'-', {"mlp", "mlp"}, NULL},
    {'E', {"moe", "moe"}, NULL},
};
enum { MLP_TYPE = 2, MOE_TYPE = 3, TYPE_COUNT = sizeof types / sizeof *types, MAX_LAYERS = 4096 };

/* Of the MLPs and experts. */
typedef struct nemotron_sizes {
  int64_t width, experts, chosen, expert_width, shared, groups, top_groups, latent; /* latent 0: none */
  bool normalize, bias;
} nemotron_sizes;

/* The keys of the experts' sizes. */
static const struct {
  const char *key;
  size_t member;
} expert_keys[] = {
    {"n_routed_experts", offsetof(nemotron_sizes, experts)},
    {"num_experts_per_tok", offsetof(nemotron_sizes, chosen)},
    {"moe_intermediate_size", offsetof(nemotron_sizes, expert_width)},
    {"moe_shared_expert_intermediate_size", offsetof(nemotron_sizes, shared)},
    {"n_group", offsetof(nemotron_sizes, groups)},
    {"topk_group", offsetof(nemotron_sizes, top_groups)},
    {"moe_latent_size", offsetof(nemotron_sizes, latent)},
};
enum { EXPERT_KEYS = sizeof expert_keys / sizeof *expert_keys };

static int64_t *size_at(nemotron_sizes *s, int key) {
  return (int64_t *)(void *)((char *)s + expert_keys[key].member);
}

static bool is(const json_t *json) {
  const char *type = config_type(json);
  return type && strcmp(type, "nemotron_h") == 0;
}

static void write_mlp(const nemotron_sizes *s, int64_t width, char block[CONFIG_BLOCK]) {
  snprintf(block, CONFIG_BLOCK, MLP, width, s->bias ? ",bias=1" : "");
}

/* Options in their order, as the list has them. */
static void write_moe(const nemotron_sizes *s, char block[CONFIG_BLOCK]) {
  char shared[64], groups[48] = "", latent[48] = "";
  if (s->groups > 1)
    snprintf(groups, sizeof groups, ",groups=%" PRId64 ",top_groups=%" PRId64, s->groups, s->top_groups);
  if (s->latent) snprintf(latent, sizeof latent, ",latent=%" PRId64 "%s", s->latent, s->bias ? ",latent_bias=1" : "");
  snprintf(shared, sizeof shared, MLP, s->shared, s->bias ? ",bias=1" : "");
  snprintf(block, CONFIG_BLOCK,
           "moe(experts=%" PRId64 ",chosen=%" PRId64 ",width=%" PRId64
           ",activation=relu2,plain=1,scores=sigmoid%s,bias=1%s%s)+%s",
           s->experts, s->chosen, s->expert_width, s->normalize ? ",normalize=1" : "", groups, latent, shared);
}

static void write_block(const nemotron_sizes *s, int type, char block[CONFIG_BLOCK]) {
  if (type == MOE_TYPE) write_moe(s, block);
  else if (type == MLP_TYPE) write_mlp(s, s->width, block);
  else strcpy(block, types[type].block);
}

/* TYPE_COUNT: none of them. */
static int type_named(const char *name) {
  int i = 0;
  while (i < TYPE_COUNT && strcmp(types[i].names[0], name) != 0 && strcmp(types[i].names[1], name) != 0) i++;
  return i;
}
static int type_lettered(char letter) {
  int i = 0;
  while (i < TYPE_COUNT && types[i].letter != letter) i++;
  return i;
}

static clm_status read_blocks(clm_context *ctx, const char *path, const json_t *json, const nemotron_sizes *sizes,
                              clm_model_config *c) {
  const json_t *list = members_find(json, TYPES);
  const char *pattern = list ? NULL : json_string_value(members_find(json, PATTERN));
  const size_t count = pattern ? strlen(pattern) : json_array_size(list);
  if (count < 1 || count > MAX_LAYERS)
    return members_bad_key(ctx, path, TYPES, "a list of layers, nor \"" PATTERN "\" a text of them");
  char(*blocks)[CONFIG_BLOCK] = calloc(count, sizeof *blocks);
  if (!blocks) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  clm_status status = CLM_OK;
  for (size_t i = 0; i < count && !status; i++) {
    const char letter[] = {pattern ? pattern[i] : '\0', '\0'};
    const char *name = pattern ? letter : json_string_value(json_array_get(list, i));
    const int type = pattern ? type_lettered(*letter) : type_named(name ? name : "");
    if (type < TYPE_COUNT) write_block(sizes, type, blocks[i]);
    else
      status = context_fail(ctx, CLM_UNSUPPORTED,
                            "%s: layer %zu is \"%.40s\", expected Mamba, attention, an MLP or experts "
                            "(\"M\", \"*\", \"-\" or \"E\")",
                            path, i, name ? name : "");
  }
  if (!status) status = config_list_blocks(ctx, path, (const char(*)[CONFIG_BLOCK])blocks, (int64_t)count, c);
  free(blocks);
  return status;
}

static clm_status read_scale(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  const json_t *value = members_find(json, SCALE);
  double number = 1;
  if (value && (!json_to_double(value, &number) || !(number > 0) || !isfinite(number)))
    return members_bad_key(ctx, path, SCALE, "a positive number");
  c->expert_scale = (float)number;
  return CLM_OK;
}

static clm_status read_sizes(clm_context *ctx, const char *path, const json_t *json, nemotron_sizes *s) {
  const json_t *normalize = members_find(json, "norm_topk_prob");
  TRY(hybrid_read_size(ctx, path, json, WIDTH, &s->width));
  for (int i = 0; i < EXPERT_KEYS; i++) TRY(hybrid_read_size(ctx, path, json, expert_keys[i].key, size_at(s, i)));
  if (normalize && !json_is_boolean(normalize)) return members_bad_key(ctx, path, "norm_topk_prob", "true or false");
  s->normalize = !json_is_false(normalize);
  s->bias = json_is_true(members_find(json, BIAS));
  return CLM_OK;
}

/* What the file leaves out is as the class has it. */
static clm_status read(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  int64_t heads = 128;
  nemotron_sizes sizes = {
      .width = 21504, .experts = 8, .chosen = 2, .expert_width = 7688, .shared = 7688, .groups = 1, .top_groups = 1};
  const char *activation = json_string_value(json_object_get(json, "mlp_hidden_act"));
  *c = (clm_model_config){.vocab_size = 131072,
                          .d_model = 4096,
                          .d_state = 128,
                          .head_dim = 64,
                          .n_groups = 8,
                          .attention_heads = 32,
                          .kv_heads = 8,
                          .attention_head_dim = 128};
  TRY(members_read(ctx, path, json, FORM_NEMOTRON_H, c));
  TRY(members_read_limits(ctx, path, json, LIMITS, c));
  TRY(hybrid_read_size(ctx, path, json, HEADS, &heads));
  TRY(read_sizes(ctx, path, json, &sizes));
  TRY(read_scale(ctx, path, json, c));
  if (activation && strcmp(activation, "relu2") != 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: mlp_hidden_act is \"%.40s\", expected \"relu2\"", path,
                        activation);
  if (c->head_dim > MAX_DIMENSION / heads)
    return members_bad_key(ctx, path, "mamba_head_dim", "small enough for this number of heads");
  c->d_inner = heads * c->head_dim;
  c->untied_head = true; /* whatever the file says: the class has a head of its own */
  return read_blocks(ctx, path, json, &sizes, c);
}

/* ---- Writing ---- */

/* The number after "key=" in a block, 0 where it is not there. */
static int64_t option_of(const char *block, const char *key) {
  const char *at = strstr(block, key);
  return at ? strtoll(at + strlen(key), NULL, 10) : 0;
}

/* The sizes that an MLP's or experts' block shows. */
static void find_sizes(const char *block, nemotron_sizes *s) {
  if (strncmp(block, "mlp(", 4) == 0) s->width = option_of(block, "(width=");
  else if (strncmp(block, "moe(", 4) == 0) {
    const char *shared = strstr(block, "+mlp(");
    s->experts = option_of(block, "experts=");
    s->chosen = option_of(block, "chosen=");
    s->expert_width = option_of(block, ",width=");
    s->shared = shared ? option_of(shared, "(width=") : 0;
    s->groups = option_of(block, ",groups=") ? option_of(block, ",groups=") : 1;
    s->top_groups = s->groups > 1 ? option_of(block, "top_groups=") : 1;
    s->latent = option_of(block, "latent=");
    s->normalize = strstr(block, "normalize=1");
  } else return;
  s->bias = strstr(block, "plain=1,bias=1");
}

/* The type of a block; TYPE_COUNT: it is none of this model's. */
static int type_of(const nemotron_sizes *s, const char *block) {
  char want[CONFIG_BLOCK];
  int i = 0;
  for (; i < TYPE_COUNT; i++) {
    write_block(s, i, want);
    if (strcmp(want, block) == 0) break;
  }
  return i;
}

/* The sizes of all blocks; false: one is none of this family's, or there is nothing of it but Mamba-2. */
static bool all_sizes(const clm_model_config *c, nemotron_sizes *s) {
  char block[CONFIG_BLOCK];
  bool own = false;
  *s = (nemotron_sizes){
      .width = 1, .experts = 1, .chosen = 1, .expert_width = 1, .shared = 1, .groups = 1, .top_groups = 1};
  if (!c->layers) return false;
  for (int64_t i = 0; i < c->n_layer; i++) {
    config_block(c, i, block);
    find_sizes(block, s);
  }
  for (int64_t i = 0; i < c->n_layer; i++) {
    config_block(c, i, block);
    const int type = type_of(s, block);
    if (type == TYPE_COUNT) return false;
    own |= types[type].letter != 'M';
  }
  return own;
}

static bool can_write(const clm_model_config *c) {
  nemotron_sizes s;
  return all_sizes(c, &s) && c->untied_head && c->rope_theta == 0 && !c->attention_bias && !c->qk_norm &&
         c->attention_window == 0 && c->attention_scale == 0 && c->logit_scale == 1 && !c->layer_norm &&
         c->residual_scale == 1 && !c->D_per_channel && !c->norm_before_gate && !c->no_gated_norm && c->d_mlp == 0;
}

static json_t *types_in(const clm_model_config *c, const nemotron_sizes *s) {
  json_t *list = json_array();
  char block[CONFIG_BLOCK];
  for (int64_t i = 0; i < c->n_layer; i++) {
    config_block(c, i, block);
    json_array_append_new(list, json_string(types[type_of(s, block)].names[0]));
  }
  return list;
}

static json_t *write(const clm_model_config *c, clm_dtype dtype) {
  const char *stored = members_dtype(dtype);
  nemotron_sizes s;
  all_sizes(c, &s);
  json_t *json =
      json_pack("{s:[s], s:s, s:s, s:s, s:s, s:I, s:I, s:b, s:b, s:f, s:o, s:b, s:I, s:s, s:b, s:n, s:n, s:n}",
                "architectures", "NemotronHForCausalLM", "model_type", "nemotron_h", "mamba_hidden_act", "silu",
                "mlp_hidden_act", "relu2", "dtype", stored, HEADS, (json_int_t)(c->d_inner / c->head_dim), WIDTH,
                (json_int_t)s.width, BIAS, s.bias, "norm_topk_prob", s.normalize, SCALE, (double)c->expert_scale,
                TYPES, types_in(c, &s), "residual_in_fp32", 1, "chunk_size", (json_int_t)128, "mamba_ssm_cache_dtype",
                "float32", "use_cache", 1, "bos_token_id", "eos_token_id", "pad_token_id");
  int failed = members_write(c, FORM_NEMOTRON_H, json) || members_write_limits(c, LIMITS, json);
  for (int i = 0; i < EXPERT_KEYS && !failed; i++)
    if (*size_at(&s, i)) failed = json_object_set_new(json, expert_keys[i].key, json_integer(*size_at(&s, i)));
  if (!failed) return json;
  json_decref(json);
  return NULL;
}

/* Experts have names that are not those of their layers here. */
static source_naming naming(const clm_model_config *c) {
  return c->layers && strstr(c->layers, "moe(") ? NAMING_NEMOTRON : NAMING_PYTORCH;
}

const config_family config_nemotron_h = {is, read, can_write, write, true, naming, NULL};
