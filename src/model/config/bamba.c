/* config.json as Hugging Face's BambaConfig writes it: layers of Mamba-2 or attention, each with an MLP. */
#include "core/context.h"
#include "core/try.h"
#include "model/config/family.h"
#include "model/config/hybrid.h"
#include "model/config/members.h"
#include <stdlib.h>
#include <string.h>

#define ATTENTION "attn_layer_indices"

static bool is(const json_t *json) {
  const char *type = config_type(json);
  return type && strcmp(type, "bamba") == 0;
}

static bool lists(const json_t *indices, int64_t number) {
  for (size_t i = 0; i < json_array_size(indices); i++)
    if (json_integer_value(json_array_get(indices, i)) == number) return true;
  return false;
}

static clm_status read_indices(clm_context *ctx, const char *path, const json_t *json, int64_t layers,
                               const json_t **indices) {
  *indices = members_find(json, ATTENTION);
  bool good = !*indices || json_is_array(*indices);
  for (size_t i = 0; i < json_array_size(*indices); i++) {
    const json_t *number = json_array_get(*indices, i);
    good = good && json_is_integer(number) && json_integer_value(number) >= 0 && json_integer_value(number) < layers;
  }
  return good ? CLM_OK : members_bad_key(ctx, path, ATTENTION, "a list of numbers of layers");
}

/* What the file leaves out is as the class has it, which rotates half of each head. */
static clm_status read(clm_context *ctx, const char *path, const json_t *json, clm_model_config *c) {
  hybrid_sizes sizes = {.layers = 32, .width = 14336, .mamba_heads = 128};
  const json_t *indices;
  *c = (clm_model_config){.vocab_size = 128000,
                          .d_model = 4096,
                          .d_state = 256,
                          .attention_heads = 32,
                          .kv_heads = 8,
                          .untied_head = true,
                          .rope_theta = 10000};
  TRY(hybrid_read(ctx, path, json, &sizes, c));
  TRY(read_indices(ctx, path, json, sizes.layers, &indices));
  c->rotary_dim = c->attention_head_dim / 2;
  char(*blocks)[CONFIG_BLOCK] = calloc((size_t)sizes.layers, 2 * sizeof *blocks);
  if (!blocks) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  for (int64_t i = 0; i < sizes.layers; i++) {
    strcpy(blocks[2 * i], lists(indices, i) ? "attention" : "mamba2");
    hybrid_mlp(&sizes, blocks[2 * i + 1]);
  }
  clm_status status = config_list_blocks(ctx, path, (const char(*)[CONFIG_BLOCK])blocks, 2 * sizes.layers, c);
  free(blocks);
  return status;
}

static bool can_write(const clm_model_config *c) {
  static const char *const mixers[] = {"mamba2", "attention", NULL};
  return hybrid_can_write(c, mixers) && c->attention_heads * c->attention_head_dim == c->d_model &&
         2 * c->rotary_dim == c->attention_head_dim && c->d_inner == c->expand * c->d_model && c->logit_scale == 1 &&
         !c->norm_before_gate && !c->no_gated_norm;
}

static json_t *write(const clm_model_config *c, clm_dtype dtype) {
  json_t *json = hybrid_write(c, dtype, "BambaForCausalLM", "bamba"), *indices = json_array();
  int failed = 0;
  for (int64_t i = 0; i < c->n_layer; i += 2) {
    char block[CONFIG_BLOCK];
    config_block(c, i, block);
    if (strcmp(block, "attention") == 0) failed |= json_array_append_new(indices, json_integer(i / 2));
  }
  failed |= json_object_set_new(json, ATTENTION, indices);
  if (!failed) return json;
  json_decref(json);
  return NULL;
}

const config_family config_bamba = {is, read, can_write, write, true, hybrid_naming, NULL};
