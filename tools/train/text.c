/* The task of learning a text: a language model. */
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

static bool preset(const char *name, train_settings *s) {
  size_t count, i = 0;
  const clm_train_preset *p = clm_train_presets(&count);
  while (name && i < count && strcmp(p[i].name, name) != 0) i++;
  if (i == count) return false;
  s->options = p[i].train;
  s->shape = (train_shape){.d_model = p[i].model.d_model,
                           .n_layer = p[i].model.n_layer,
                           .d_state = p[i].model.d_state,
                           .expand = p[i].model.expand,
                           .d_conv = p[i].model.d_conv,
                           .layers = p[i].model.layers,
                           .head_dim = p[i].model.head_dim,
                           .n_groups = p[i].model.n_groups,
                           .others = p[i].model,
                           .vocabulary = p[i].vocabulary};
  return true;
}

typedef struct text_state {
  clm_tokenizer *tokenizer;
  clm_model *model;
} text_state;

static bool make_new_model(run *r, text_state *t, const text_file *text) {
  const train_shape *shape = &r->settings.shape;
  if (clm_tokenizer_create(r->context, shape->vocabulary, text->data, text->bytes, &t->tokenizer))
    return tool_fail("%s: %s", r->settings.data, clm_context_error(r->context)), false;
  clm_model_config config = shape->others;
  config.vocab_size = clm_tokenizer_vocab_size(t->tokenizer);
  config.d_model = shape->d_model;
  config.n_layer = shape->n_layer;
  config.d_state = shape->d_state;
  config.expand = shape->expand;
  config.d_conv = shape->d_conv;
  config.layers = shape->layers;
  config.head_dim = shape->head_dim;
  config.n_groups = shape->n_groups;
  return clm_model_create(r->context, &config, r->settings.options.seed, &t->model) == CLM_OK || train_fail(r);
}

static bool make_model(run *r, text_state *t, const text_file *text) {
  const char *from = r->settings.from;
  if (!from) return make_new_model(r, t, text);
  return (clm_tokenizer_load(r->context, from, &t->tokenizer) == CLM_OK &&
          clm_model_load(r->context, from, &t->model) == CLM_OK) ||
         train_fail(r);
}

static bool make_trainer(run *r, const text_state *t, const text_file *text) {
  token_list tokens;
  if (!text_encode(t->tokenizer, r->context, text, r->settings.data, &tokens)) return false;
  train_data_ready(r);
  bool ok = clm_trainer_create(t->model, tokens.ids, tokens.count, &r->settings.options, &r->trainer) == CLM_OK ||
            train_fail(r);
  snprintf(r->about, sizeof r->about, "%lld parameters, %zu tokens of %lld kinds",
           (long long)clm_model_parameter_count(t->model), tokens.count,
           (long long)clm_tokenizer_vocab_size(t->tokenizer));
  free(tokens.ids);
  return ok;
}

static bool make(run *r) {
  text_state *t = r->task_state = calloc(1, sizeof *t);
  text_file text;
  if (!t) return tool_fail("out of memory"), false;
  if (!text_read(r->settings.data, &text)) return false;
  bool ok = make_model(r, t, &text) && make_trainer(r, t, &text);
  text_free(&text);
  return ok;
}

static bool save_model(run *r) {
  const text_state *t = r->task_state;
  return (clm_tokenizer_save(t->tokenizer, r->settings.out) == CLM_OK &&
          clm_model_save(t->model, r->settings.out) == CLM_OK) ||
         train_fail(r);
}

static void destroy(run *r) {
  text_state *t = r->task_state;
  if (!t) return;
  clm_model_destroy(&t->model);
  clm_tokenizer_destroy(&t->tokenizer);
  free(t);
}

const train_task train_text = {.words = {.unit = "tokens", .loss = "nats per token", .digits = 3},
                               .preset = preset,
                               .make = make,
                               .save_model = save_model,
                               .destroy = destroy};
