/* The configuration that a GGUF file of architecture mamba or mamba2 carries, under llama.cpp's keys, which begin
 * with the architecture's name. */
#include "core/context.h"
#include "core/try.h"
#include "model/config/config.h"
#include "model/config/family.h"
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum { MAMBA = 1, MAMBA2 = 2, BOTH = MAMBA | MAMBA2 };
static const struct {
  const char *name;
  int bit;
} architectures[] = {{"mamba", MAMBA}, {"mamba2", MAMBA2}};

/* Of mamba2 time_step_rank is the number of heads: head_dim comes of it. */
static const struct {
  const char *key;
  size_t member;
  int of;
} sizes[] = {
    {"embedding_length", offsetof(clm_model_config, d_model), BOTH},
    {"block_count", offsetof(clm_model_config, n_layer), BOTH},
    {"ssm.conv_kernel", offsetof(clm_model_config, d_conv), BOTH},
    {"ssm.inner_size", offsetof(clm_model_config, d_inner), BOTH},
    {"ssm.state_size", offsetof(clm_model_config, d_state), BOTH},
    {"ssm.time_step_rank", offsetof(clm_model_config, dt_rank), MAMBA},
    {"ssm.time_step_rank", offsetof(clm_model_config, head_dim), MAMBA2},
    {"ssm.group_count", offsetof(clm_model_config, n_groups), MAMBA2},
};

typedef struct gguf_key {
  char text[64];
} gguf_key;

static gguf_key key_of(int architecture, const char *key) {
  gguf_key k;
  snprintf(k.text, sizeof k.text, "%s.%s", architectures[architecture].name, key);
  return k;
}

static clm_status bad(clm_context *ctx, const source *s, const char *key, const char *expected) {
  return context_fail(ctx, CLM_BAD_FORMAT, "%s: \"%s\" is not %s", s->path, key, expected);
}

static clm_status read_sizes(clm_context *ctx, const source *s, int architecture, clm_model_config *c) {
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    const gguf_key key = key_of(architecture, sizes[i].key);
    int64_t value;
    if (!(sizes[i].of & architectures[architecture].bit)) continue;
    if (!gguf_integer(s, key.text, &value) || value < 1) return bad(ctx, s, key.text, "a whole number of at least 1");
    *(int64_t *)(void *)((char *)c + sizes[i].member) = value;
  }
  return CLM_OK;
}

/* Number in the table; -1: it is none of these. */
static int find_architecture(const source *s, gguf_text *name) {
  if (!gguf_string(s, GGUF_ARCHITECTURE, name)) return -1;
  for (int i = 0; i < 2; i++)
    if (strlen(architectures[i].name) == name->bytes && memcmp(architectures[i].name, name->text, name->bytes) == 0)
      return i;
  return -1;
}

static clm_status read_mamba2(clm_context *ctx, const source *s, clm_model_config *c) {
  const int64_t heads = c->head_dim;
  if (c->d_inner % heads)
    return bad(ctx, s, "mamba2.ssm.time_step_rank", "a number of heads that divides mamba2.ssm.inner_size");
  c->head_dim = c->d_inner / heads;
  return config_set_layers(ctx, s->path, "mamba2", c);
}

clm_status config_read_gguf(clm_context *ctx, const source *s, clm_model_config *c) {
  gguf_text name = {"", 0};
  const int architecture = find_architecture(s, &name);
  double epsilon;
  *c = (clm_model_config){0};
  if (architecture < 0)
    return context_fail(ctx, CLM_UNSUPPORTED,
                        "%s: " GGUF_ARCHITECTURE " is \"%.*s\", expected \"mamba\" or \"mamba2\"", s->path,
                        (int)(name.bytes < 40 ? name.bytes : 40), name.text);
  const bool mamba2 = architectures[architecture].bit == MAMBA2;
  const gguf_key epsilon_key = key_of(architecture, "attention.layer_norm_rms_epsilon"),
                 norms_key = key_of(architecture, "ssm.dt_b_c_rms");
  TRY(read_sizes(ctx, s, architecture, c));
  if (!gguf_real(s, epsilon_key.text, &epsilon) || !(epsilon > 0))
    return bad(ctx, s, epsilon_key.text, "a positive number");
  if (!mamba2 && gguf_find(s, norms_key.text) && !gguf_flag(s, norms_key.text, &c->mixer_norm))
    return bad(ctx, s, norms_key.text, "true or false");
  const source_tensor *embedding = source_find(s, "token_embd.weight");
  if (!embedding || embedding->rank != 2)
    return context_fail(ctx, CLM_BAD_FORMAT, "%s has no tensor \"token_embd.weight\" of 2 dimensions", s->path);
  c->vocab_size = embedding->shape[0];
  c->norm_epsilon = c->mixer_norm_epsilon = (float)epsilon; /* the file has one for all */
  c->untied_head = source_find(s, "output.weight");
  c->no_conv_bias = !source_find(s, "blk.0.ssm_conv1d.bias");
  c->projection_bias = source_find(s, "blk.0.ssm_in.bias");
  if (mamba2) TRY(read_mamba2(ctx, s, c));
  return config_check(ctx, s->path, c);
}
