/* A language model and its text. */
#include "common/text.h"
#include "common/tool.h"
#include "train/train.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool train_text_preset(size_t i, tool_entry *entry) {
  static char text[240];
  size_t count;
  const clm_train_preset *p = clm_train_presets(&count) + i;
  if (i >= count) return false;
  snprintf(text, sizeof text, "%s (d_model %lld, %lld layers, d_state %lld, batch %lld, length %lld)", p->description,
           (long long)p->model.d_model, (long long)p->model.n_layer, (long long)p->model.d_state,
           (long long)p->train.batch, (long long)p->train.length);
  *entry = (tool_entry){p->name, text};
  return true;
}

static const clm_train_preset *find_preset(void) {
  size_t count;
  const clm_train_preset *presets = clm_train_presets(&count);
  for (size_t i = 0; i < count; i++)
    if (!given.preset || strcmp(presets[i].name, given.preset) == 0) return &presets[i];
  tool_fail("there is no preset \"%s\" (see mamba-train --presets)", given.preset);
  return NULL;
}

static bool make_new_model(run *r, const clm_train_preset *preset, const text_file *text) {
  clm_vocabulary kind = preset->vocabulary;
  if (given.vocab) kind = given.vocab[0] == 'b' ? CLM_VOCABULARY_BYTE : CLM_VOCABULARY_CHAR;
  if (clm_tokenizer_create(r->context, kind, text->data, text->bytes, &r->tokenizer))
    return tool_fail("%s: %s", given.data, clm_context_error(r->context)), false;
  clm_model_config config = preset->model;
  config.vocab_size = clm_tokenizer_vocab_size(r->tokenizer);
  if (given.d_model) config.d_model = given.d_model;
  if (given.n_layer) config.n_layer = given.n_layer;
  if (given.d_state) config.d_state = given.d_state;
  if (given.expand) config.expand = given.expand;
  if (given.d_conv) config.d_conv = given.d_conv;
  return clm_model_create(r->context, &config, r->options.seed, &r->model) == CLM_OK || train_fail(r);
}

static bool make_model(run *r, const text_file *text) {
  const clm_train_preset *preset = find_preset();
  if (!preset) return false;
  r->options = preset->train;
  if (!train_options(r)) return false;
  const char *from = given.resume ? given.out : given.init;
  if (!from) return make_new_model(r, preset, text);
  return (clm_tokenizer_load(r->context, from, &r->tokenizer) == CLM_OK &&
          clm_model_load(r->context, from, &r->model) == CLM_OK) ||
         train_fail(r);
}

static bool make_trainer(run *r, const text_file *text) {
  token_list tokens;
  if (!text_encode(r->tokenizer, r->context, text, given.data, &tokens)) return false;
  bool ok =
      clm_trainer_create(r->model, tokens.ids, tokens.count, &r->options, &r->trainer) == CLM_OK || train_fail(r);
  snprintf(r->about, sizeof r->about, "%lld parameters, %zu tokens of %lld kinds",
           (long long)clm_model_parameter_count(r->model), tokens.count,
           (long long)clm_tokenizer_vocab_size(r->tokenizer));
  free(tokens.ids);
  return ok;
}

static bool make(run *r) {
  text_file text;
  if (!text_read(given.data, &text)) return false;
  r->context = tool_context(NULL);
  bool ok = r->context && make_model(r, &text) && make_trainer(r, &text);
  text_free(&text);
  return ok;
}

static bool save(run *r) { return clm_tokenizer_save(r->tokenizer, given.out) == CLM_OK || train_fail(r); }

static void destroy(run *r) {
  clm_model_destroy(&r->model);
  clm_tokenizer_destroy(&r->tokenizer);
}

const train_kind train_text = {.words = {.unit = "tokens", .loss = "nats per token", .digits = 3},
                               .make = make,
                               .save = save,
                               .destroy = destroy};
