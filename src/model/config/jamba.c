/* config.json as Hugging Face's JambaConfig writes it: layers of Mamba-1, whose delta, B and C are normed, or
 * attention without positions, each with an MLP or experts. */
#include "core/context.h"
#include "core/try.h"
#include "model/config/family.h"
#include "model/config/hybrid.h"
#include "model/config/members.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAYERS        "num_hidden_layers"
#define WIDTH         "intermediate_size"
#define RANK          "mamba_dt_rank"
#define EXPERTS       "num_experts"
#define CHOSEN        "num_experts_per_tok"
#define ATTENTION     "attn_layer"
#define EXPERT_LAYERS "expert_layer"
#define MLP           "mlp(width=%" PRId64 ")"
#define MOE           "moe(experts=%" PRId64 ",chosen=%" PRId64 ",width=%" PRId64 ")"
#define MLP_FORMAT    "mlp(width=%" SCNd64
#define MOE_FORMAT    "moe(experts=%" SCNd64 ",chosen=%" SCNd64 ",width=%" SCNd64

/* Every `period`th layer from `offset` on. */
typedef struct layer_cycle {
  int64_t period, offset;
} layer_cycle;

typedef struct jamba_sizes {
  int64_t layers, width, experts, chosen;
  layer_cycle attention, moe;
} jamba_sizes;

static bool is(const json_t *json) {
  const char *type = config_type(json);
  return type && strcmp(type, "jamba") == 0;
}

static bool in_cycle(const layer_cycle *c, int64_t layer) { return layer % c->period == c->offset; }

/* The block of layer `layer`, its mixer or what comes after that. */
static void write_block(const jamba_sizes *s, int64_t layer, bool second, char block[CONFIG_BLOCK]) {
  if (!second) strcpy(block, in_cycle(&s->attention, layer) ? "attention" : "mamba1");
  else if (s->experts > 1 && in_cycle(&s->moe, layer))
    snprintf(block, CONFIG_BLOCK, MOE, s->experts, s->chosen, s->width);
  else snprintf(block, CONFIG_BLOCK, MLP, s->width);
}

static clm_status read_cycle(clm_context *ctx, const char *path, const json_t *json, const char *name,
                             layer_cycle *c) {
  char key[40];
  snprintf(key, sizeof key, "%s_period", name);
  TRY(hybrid_read_size(ctx, path, json, key, &c->period));
  snprintf(key, sizeof key, "%s_offset", name);
  const json_t *offset = members_find(json, key);
  if (offset) c->offset = json_integer_value(offset);
  if ((offset && !json_is_integer(offset)) || c->offset < 0 || c->offset >= c->period)
    return members_bad_key(ctx, path, key, "a whole number from 0 to the period");
  return CLM_OK;
}

static clm_status read_sizes(clm_context *ctx, const char *path, const json_t *json, jamba_sizes *s) {
  TRY(hybrid_read_size(ctx, path, json, LAYERS, &s->layers));
  TRY(hybrid_read_size(ctx, path, json, WIDTH, &s->width));
  TRY(hybrid_read_size(ctx, path, json, EXPERTS, &s->experts));
  TRY(hybrid_read_size(ctx, path, json, CHOSEN, &s->chosen));
  if (s->layers > 4096) return members_bad_key(ctx, path, LAYERS, "at most 4096");
  TRY(read_cycle(ctx, path, json, ATTENTION, &s->attention));
  return read_cycle(ctx, path, json, EXPERT_LAYERS, &s->moe);
}

/* What the file leaves out is as the class has it. */
static clm_status read(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  jamba_sizes s = {.layers = 32, .width = 14336, .experts = 16, .chosen = 2, .attention = {8, 4}, .moe = {2, 1}};
  const char *activation = json_string_value(json_object_get(json, "hidden_act"));
  *c = (clm_model_config){.vocab_size = 65536,
                          .d_model = 4096,
                          .attention_heads = 32,
                          .kv_heads = 8,
                          .norm_epsilon = 1e-6f,
                          .mixer_norm = true,
                          .mixer_norm_weights = true,
                          .untied_head = true};
  TRY(members_read(ctx, path, json, FORM_HYBRID, c));
  if (!json_is_string(members_find(json, RANK))) /* "auto" */
    TRY(hybrid_read_size(ctx, path, json, RANK, &c->dt_rank));
  TRY(read_sizes(ctx, path, json, &s));
  if (activation && strcmp(activation, "silu") != 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: hidden_act is \"%.40s\", expected \"silu\"", path, activation);
  c->mixer_norm_epsilon = c->norm_epsilon;
  char(*blocks)[CONFIG_BLOCK] = calloc((size_t)s.layers, 2 * sizeof *blocks);
  if (!blocks) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  for (int64_t i = 0; i < 2 * s.layers; i++) write_block(&s, i / 2, i % 2, blocks[i]);
  clm_status status = config_list_blocks(ctx, path, (const char(*)[CONFIG_BLOCK])blocks, 2 * s.layers, c);
  free(blocks);
  return status;
}

/* ---- Writing ---- */

/* The cycle that has these of the `layers` layers, every other block from `first` on beginning with `text`; one that
 * has none is longer than the model. False: they are no cycle. */
static bool find_cycle(const clm_model_config *c, int64_t first, const char *text, layer_cycle *cycle) {
  const int64_t layers = c->n_layer / 2;
  int64_t found[2] = {layers, 2 * layers + 1}, count = 0; /* the first two */
  char block[CONFIG_BLOCK];
  for (int64_t i = 0; i < layers && count < 2; i++) {
    config_block(c, 2 * i + first, block);
    if (strncmp(block, text, strlen(text)) == 0) found[count++] = i;
  }
  *cycle = (layer_cycle){found[1] - found[0], found[0]};
  for (int64_t i = 0; i < layers; i++) {
    config_block(c, 2 * i + first, block);
    if (in_cycle(cycle, i) != (strncmp(block, text, strlen(text)) == 0)) return false;
  }
  return cycle->offset < cycle->period;
}

/* The sizes of a model that the form has. */
static bool find_sizes(const clm_model_config *c, jamba_sizes *s) {
  char block[CONFIG_BLOCK], want[CONFIG_BLOCK];
  *s = (jamba_sizes){.layers = c->n_layer / 2, .experts = 1, .chosen = 1};
  if (!c->layers || c->n_layer % 2 || !find_cycle(c, 0, "attention", &s->attention) ||
      !find_cycle(c, 1, "moe(", &s->moe))
    return false;
  for (int64_t i = 1; i < c->n_layer; i += 2) {
    config_block(c, i, block);
    if (sscanf(block, MOE_FORMAT, &s->experts, &s->chosen, &s->width) < 1) sscanf(block, MLP_FORMAT, &s->width);
  }
  for (int64_t i = 0; i < c->n_layer; i++) {
    config_block(c, i, block);
    write_block(s, i / 2, i % 2, want);
    if (strcmp(block, want) != 0) return false;
  }
  return true;
}

static bool can_write(const clm_model_config *c) {
  jamba_sizes s;
  return find_sizes(c, &s) && !c->layer_norm && c->mixer_norm && c->mixer_norm_weights &&
         c->mixer_norm_epsilon == c->norm_epsilon && c->residual_scale == 1 && c->expert_scale == 1 &&
         c->logit_scale == 1 && c->d_inner == c->expand * c->d_model && c->rope_theta == 0 && !c->qk_norm &&
         c->attention_window == 0 && c->attention_scale == 0 && !c->attention_bias &&
         c->attention_heads * c->attention_head_dim == c->d_model;
}

static json_t *write(const clm_model_config *c, clm_dtype dtype) {
  jamba_sizes s;
  find_sizes(c, &s);
  json_t *json = json_pack("{s:[s], s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:b, s:n, s:n, s:n}",
                           "architectures", "JambaForCausalLM", "model_type", "jamba", "hidden_act", "silu", LAYERS,
                           (json_int_t)s.layers, WIDTH, (json_int_t)s.width, EXPERTS, (json_int_t)s.experts, CHOSEN,
                           (json_int_t)s.chosen, ATTENTION "_period", (json_int_t)s.attention.period,
                           ATTENTION "_offset", (json_int_t)s.attention.offset, EXPERT_LAYERS "_period",
                           (json_int_t)s.moe.period, EXPERT_LAYERS "_offset", (json_int_t)s.moe.offset, "dtype",
                           members_dtype(dtype), "use_cache", 1, "bos_token_id", "eos_token_id", "pad_token_id");
  static const char *const others[] = {"mamba_d_head", "mamba_n_groups", "attention_bias"}; /* that Jamba lacks */
  if (!members_write(c, FORM_HYBRID, json) && !json_object_set_new(json, RANK, json_integer(c->dt_rank))) {
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) json_object_del(json, others[i]);
    return json;
  }
  json_decref(json);
  return NULL;
}

const config_family config_jamba = {is, read, can_write, write, true, hybrid_naming, NULL};
