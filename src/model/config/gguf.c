/* The configuration that a GGUF file of architecture mamba carries, under llama.cpp's keys. */
#include "core/context.h"
#include "core/try.h"
#include "model/config/config.h"
#include <stddef.h>
#include <string.h>

static const struct {
  const char *key;
  size_t member;
  bool needed;
} sizes[] = {
    {"mamba.embedding_length", offsetof(clm_model_config, d_model), true},
    {"mamba.block_count", offsetof(clm_model_config, n_layer), true},
    {"mamba.ssm.conv_kernel", offsetof(clm_model_config, d_conv), true},
    {"mamba.ssm.inner_size", offsetof(clm_model_config, d_inner), true},
    {"mamba.ssm.state_size", offsetof(clm_model_config, d_state), true},
    {"mamba.ssm.time_step_rank", offsetof(clm_model_config, dt_rank), true},
};

static clm_status bad(clm_context *ctx, const source *s, const char *key, const char *expected) {
  return context_fail(ctx, CLM_BAD_FORMAT, "%s: \"%s\" is not %s", s->path, key, expected);
}

static clm_status read_sizes(clm_context *ctx, const source *s, clm_model_config *c) {
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    int64_t value;
    if (!gguf_integer(s, sizes[i].key, &value) || value < 1)
      return bad(ctx, s, sizes[i].key, "a whole number of at least 1");
    *(int64_t *)(void *)((char *)c + sizes[i].member) = value;
  }
  return CLM_OK;
}

clm_status config_read_gguf(clm_context *ctx, const source *s, clm_model_config *c) {
  static const char epsilon_key[] = "mamba.attention.layer_norm_rms_epsilon", norms_key[] = "mamba.ssm.dt_b_c_rms";
  gguf_text architecture = {"", 0};
  double epsilon;
  *c = (clm_model_config){0};
  if (!gguf_string(s, GGUF_ARCHITECTURE, &architecture) || architecture.bytes != 5 ||
      memcmp(architecture.text, "mamba", 5) != 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: " GGUF_ARCHITECTURE " is \"%.*s\", expected \"mamba\"", s->path,
                        (int)(architecture.bytes < 40 ? architecture.bytes : 40), architecture.text);
  TRY(read_sizes(ctx, s, c));
  if (!gguf_real(s, epsilon_key, &epsilon) || !(epsilon > 0)) return bad(ctx, s, epsilon_key, "a positive number");
  if (gguf_find(s, norms_key) && !gguf_flag(s, norms_key, &c->mixer_norm))
    return bad(ctx, s, norms_key, "true or false");
  const source_tensor *embedding = source_find(s, "token_embd.weight");
  if (!embedding || embedding->rank != 2)
    return context_fail(ctx, CLM_BAD_FORMAT, "%s has no tensor \"token_embd.weight\" of 2 dimensions", s->path);
  c->vocab_size = embedding->shape[0];
  c->norm_epsilon = c->mixer_norm_epsilon = (float)epsilon; /* the file has one for all */
  c->untied_head = source_find(s, "output.weight");
  c->no_conv_bias = !source_find(s, "blk.0.ssm_conv1d.bias");
  c->projection_bias = source_find(s, "blk.0.ssm_in.bias");
  return config_check(ctx, s->path, c);
}
