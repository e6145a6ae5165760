/* config.json as Hugging Face's NemotronHConfig writes it: every block is one layer, of Mamba-2, attention without
 * positions or an MLP of squared ReLU. */
#include "core/context.h"
#include "core/try.h"
#include "model/config/family.h"
#include "model/config/hybrid.h"
#include "model/config/members.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIMITS  "time_step_limit"
#define TYPES   "layers_block_type"
#define PATTERN "hybrid_override_pattern"
#define WIDTH   "intermediate_size"
#define HEADS   "mamba_num_heads"
#define MLP     "mlp(width=%" PRId64 ",activation=relu2,plain=1%s)"

/* The layers: as the pattern, transformers 5 and those before it call them. */
static const struct {
  char letter;
  const char *names[2], *block; /* NULL: an MLP */
} types[] = {
    {'M', {"linear_attention", "mamba"}, "mamba2"},
    {'*', {"full_attention", "attention"}, "attention"},
    {'-', {"mlp", "mlp"}, NULL},
};
enum { TYPE_COUNT = sizeof types / sizeof *types, MAX_LAYERS = 4096 };

static bool is(const json_t *json) {
  const char *type = config_type(json);
  return type && strcmp(type, "nemotron_h") == 0;
}

static void write_mlp(int64_t width, bool bias, char block[CONFIG_BLOCK]) {
  snprintf(block, CONFIG_BLOCK, MLP, width, bias ? ",bias=1" : "");
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

static clm_status read_blocks(clm_context *ctx, const char *path, const json_t *json, const char *mlp,
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
    if (type < TYPE_COUNT) snprintf(blocks[i], CONFIG_BLOCK, "%s", types[type].block ? types[type].block : mlp);
    else
      status = context_fail(ctx, CLM_UNSUPPORTED,
                            "%s: layer %zu is \"%.40s\", expected Mamba, attention or an MLP (\"M\", \"*\" or \"-\")",
                            path, i, name ? name : "");
  }
  if (!status) status = config_list_blocks(ctx, path, (const char(*)[CONFIG_BLOCK])blocks, (int64_t)count, c);
  free(blocks);
  return status;
}

/* What the file leaves out is as the class has it. */
static clm_status read(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  int64_t heads = 128, width = 21504;
  char mlp[CONFIG_BLOCK];
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
  TRY(hybrid_read_size(ctx, path, json, WIDTH, &width));
  if (activation && strcmp(activation, "relu2") != 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: mlp_hidden_act is \"%.40s\", expected \"relu2\"", path,
                        activation);
  if (c->head_dim > MAX_DIMENSION / heads)
    return members_bad_key(ctx, path, "mamba_head_dim", "small enough for this number of heads");
  c->d_inner = heads * c->head_dim;
  c->untied_head = true; /* whatever the file says: the class has a head of its own */
  write_mlp(width, json_is_true(members_find(json, "mlp_bias")), mlp);
  return read_blocks(ctx, path, json, mlp, c);
}

/* The type of a block; TYPE_COUNT: it is none of this family's. *mlp: of all MLPs, empty before the first. */
static int type_of(const char *block, char mlp[CONFIG_BLOCK]) {
  for (int i = 0; i < TYPE_COUNT; i++)
    if (types[i].block && strcmp(types[i].block, block) == 0) return i;
  if (!*mlp) strcpy(mlp, block);
  return strcmp(mlp, block) == 0 ? TYPE_COUNT - 1 : TYPE_COUNT;
}

static bool parse_mlp(const char *block, int64_t *width, bool *bias) {
  char again[CONFIG_BLOCK];
  *bias = strstr(block, ",bias=1");
  if (sscanf(block, "mlp(width=%" SCNd64, width) != 1) return false;
  write_mlp(*width, *bias, again);
  return strcmp(again, block) == 0;
}

static bool can_write(const clm_model_config *c) {
  char mlp[CONFIG_BLOCK] = "", block[CONFIG_BLOCK];
  int64_t width;
  bool bias, attends = false;
  if (!c->layers) return false;
  for (int64_t i = 0; i < c->n_layer; i++) {
    config_block(c, i, block);
    const int type = type_of(block, mlp);
    if (type == TYPE_COUNT) return false;
    attends |= types[type].letter == '*';
  }
  if (*mlp && !parse_mlp(mlp, &width, &bias)) return false;
  return (attends || *mlp) && c->untied_head && c->rope_theta == 0 && !c->attention_bias && !c->qk_norm &&
         c->attention_window == 0 && c->attention_scale == 0 && c->logit_scale == 1 && !c->layer_norm &&
         c->residual_scale == 1 && !c->D_per_channel && !c->norm_before_gate && !c->no_gated_norm && c->d_mlp == 0;
}

static json_t *write(const clm_model_config *c, clm_dtype dtype) {
  const char *stored = dtype == CLM_F16 ? "float16" : dtype == CLM_BF16 ? "bfloat16" : "float32";
  char mlp[CONFIG_BLOCK] = "", block[CONFIG_BLOCK];
  int64_t width = 1;
  bool bias = false;
  json_t *list = json_array();
  int failed = 0;
  for (int64_t i = 0; i < c->n_layer; i++) {
    config_block(c, i, block);
    failed |= json_array_append_new(list, json_string(types[type_of(block, mlp)].names[0]));
  }
  if (*mlp) parse_mlp(mlp, &width, &bias);
  json_t *json =
      json_pack("{s:[s], s:s, s:s, s:s, s:s, s:I, s:I, s:b, s:b, s:I, s:s, s:b, s:n, s:n, s:n}", "architectures",
                "NemotronHForCausalLM", "model_type", "nemotron_h", "mamba_hidden_act", "silu", "mlp_hidden_act",
                "relu2", "dtype", stored, HEADS, (json_int_t)(c->d_inner / c->head_dim), WIDTH, (json_int_t)width,
                "mlp_bias", bias, "residual_in_fp32", 1, "chunk_size", (json_int_t)128, "mamba_ssm_cache_dtype",
                "float32", "use_cache", 1, "bos_token_id", "eos_token_id", "pad_token_id");
  failed |= json ? json_object_set_new(json, TYPES, list) : -1;
  if (!json) json_decref(list);
  if (!failed && !members_write(c, FORM_NEMOTRON_H, json) && !members_write_limits(c, LIMITS, json)) return json;
  json_decref(json);
  return NULL;
}

const config_family config_nemotron_h = {is, read, can_write, write, true, NULL, NULL};
