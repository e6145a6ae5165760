#include "model/ends.h"

/* clang-format off */
void ends_params(const clm_model_config *c, model_ends ends, param *p) {
  const int64_t model = c->d_model, vocab = c->vocab_size;
  p[END_NORM] = (param){"backbone.norm_f.weight", "output_norm.weight", .hybrid = "model.final_layernorm.weight", .number = 1, .rank = 1, .shape = {model}, .init = param_ones};
  if (c->layer_norm)
    p[END_NORM_BIAS] = (param){"backbone.norm_f.bias", .number = 19, .rank = 1, .shape = {model}};
  if (ends.inputs == 0) {
    p[END_EMBEDDING] = (param){"backbone.embeddings.weight", "token_embd.weight", {"backbone.embedding.weight", c->untied_head ? NULL : "lm_head.weight"}, .hybrid = "model.embed_tokens.weight", .number = 0, .rank = 2, .shape = {vocab, model}, .init = param_embedding, .decay = true, .matrix = true};
    if (c->untied_head)
      p[END_LM_HEAD] = (param){"lm_head.weight", "output.weight", .number = 2, .rank = 2, .shape = {vocab, model}, .init = param_embedding, .decay = true, .matrix = true};
    return;
  }
  p[END_INPUT] =      (param){"input_proj.weight", .number = 15, .rank = 2, .shape = {model, ends.inputs}, .init = param_uniform_fan_in, .decay = true, .matrix = true};
  p[END_INPUT_BIAS] = (param){"input_proj.bias",   .number = 16, .rank = 1, .shape = {model}};
  if (ends.outputs == 0) return;
  p[END_HEAD] =       (param){"head.weight",       .number = 17, .rank = 2, .shape = {ends.outputs, model}, .init = param_uniform_fan_in, .decay = true, .matrix = true};
  p[END_HEAD_BIAS] =  (param){"head.bias",         .number = 18, .rank = 1, .shape = {ends.outputs}};
}
/* clang-format on */
