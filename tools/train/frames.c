/* The tasks of learning from sequences of frames: a backbone. */
#include "common/dataset.h"
#include "common/tool.h"
#include "train/train.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool train_frames_preset(size_t i, tool_entry *entry) {
  static char text[240];
  size_t count;
  const clm_backbone_preset *p = clm_backbone_presets(&count) + i;
  if (i >= count) return false;
  snprintf(text, sizeof text, "%s (d_model %lld, %lld layers, d_state %lld, dropout %g)", p->description,
           (long long)p->config.d_model, (long long)p->config.n_layers, (long long)p->config.d_state,
           (double)p->config.dropout);
  *entry = (tool_entry){p->name, text};
  return true;
}

/* Where the command line says nothing. */
static const clm_train_options standard = {.batch = 16, .lr = 3e-3};

static bool preset(const char *name, train_settings *s) {
  size_t count, i = 0;
  const clm_backbone_preset *p = clm_backbone_presets(&count);
  while (name && i < count && strcmp(p[i].name, name) != 0) i++;
  if (i == count) return false;
  const clm_backbone_config *c = &p[i].config;
  s->options = standard;
  if (!s->from) s->options.dropout = (double)c->dropout; /* a model that is there has its own */
  s->shape = (train_shape){.d_model = c->d_model,
                           .n_layer = c->n_layers,
                           .d_state = c->d_state,
                           .expand = c->expand,
                           .d_conv = c->d_conv,
                           .layers = c->layers,
                           .head_dim = c->head_dim,
                           .n_groups = c->n_groups};
  return true;
}

typedef struct frames_state {
  dataset data;
  clm_backbone *backbone;
} frames_state;

static bool is_classification(const run *r) { return r->settings.task->kind == CLM_TASK_CLASSIFICATION; }

static bool load_backbone(run *r, frames_state *f) {
  const char *from = r->settings.from;
  if (!from) return true;
  if (clm_backbone_load(r->context, from, &f->backbone)) return train_fail(r);
  clm_backbone_task kind = clm_backbone_configuration(f->backbone)->task;
  return kind == r->settings.task->kind ||
         (tool_fail("the model of %s is for %s", from,
                    kind == CLM_TASK_CLASSIFICATION ? "classification" : "regression"),
          false);
}

static bool read_data(run *r, frames_state *f) {
  const train_settings *s = &r->settings;
  return dataset_read(&(dataset_request){.data = s->data,
                                         .targets = s->targets,
                                         .target = s->target,
                                         .features = s->features,
                                         .task = s->task->kind,
                                         .output = s->output,
                                         .known = f->backbone},
                      &f->data);
}

static bool make_backbone(run *r, frames_state *f) {
  const train_settings *s = &r->settings;
  if (f->backbone) return true;
  clm_backbone_config config = {.embed_dim = f->data.embed_dim,
                                .n_outputs = f->data.n_outputs,
                                .output = f->data.output,
                                .task = s->task->kind,
                                .window = s->shape.window,
                                .d_model = s->shape.d_model,
                                .n_layers = s->shape.n_layer,
                                .d_state = s->shape.d_state,
                                .expand = s->shape.expand,
                                .d_conv = s->shape.d_conv,
                                .layers = s->shape.layers,
                                .head_dim = s->shape.head_dim,
                                .n_groups = s->shape.n_groups,
                                .dropout = s->options.dropout > 0 ? (float)s->options.dropout : 0};
  if (clm_backbone_create(r->context, &config, s->options.seed, &f->backbone)) return train_fail(r);
  if (f->data.names && clm_backbone_set_names(f->backbone, (const char *const *)f->data.names))
    return tool_fail("%s: a name of %s is not UTF-8", s->data, is_classification(r) ? "a class" : "a column"), false;
  return true;
}

/* "1,234 parameters, 20 sequences (900 frames of 3 numbers), 2 classes: up (12), down (8)" */
static void describe(run *r, const frames_state *f) {
  const dataset *d = &f->data;
  size_t size = sizeof r->about;
  size_t used = (size_t)snprintf(
      r->about, size, "%lld parameters, %lld sequences (%lld frames of %lld numbers), %lld %s",
      (long long)clm_backbone_param_count(f->backbone), (long long)d->sequences.count, (long long)d->frames,
      (long long)d->embed_dim, (long long)d->n_outputs, is_classification(r) ? "classes" : "targets");
  for (int64_t i = 0; d->names && i < d->n_outputs; i++) {
    char one[120], count[32] = "";
    if (d->name_counts) snprintf(count, sizeof count, " (%lld)", (long long)d->name_counts[i]);
    snprintf(one, sizeof one, "%s%.60s%s", i ? ", " : ": ", d->names[i], count);
    if (used + strlen(one) + sizeof ", ..." > size) {
      snprintf(r->about + used, size - used, ", ...");
      break;
    }
    used += (size_t)snprintf(r->about + used, size - used, "%s", one);
  }
}

static bool make(run *r) {
  frames_state *f = r->task_state = calloc(1, sizeof *f);
  if (!f) return tool_fail("out of memory"), false;
  if (!load_backbone(r, f) || !read_data(r, f) || !make_backbone(r, f)) return false;
  if (f->data.note[0]) progress_line(&r->progress, f->data.note);
  describe(r, f);
  train_data_ready(r);
  return clm_trainer_create_backbone(f->backbone, &f->data.sequences, &r->settings.options, &r->trainer) == CLM_OK ||
         train_fail(r);
}

static bool save_model(run *r) {
  const frames_state *f = r->task_state;
  return clm_backbone_save(f->backbone, r->settings.out) == CLM_OK || train_fail(r);
}

static void destroy(run *r) {
  frames_state *f = r->task_state;
  if (!f) return;
  clm_backbone_destroy(&f->backbone);
  dataset_free(&f->data);
  free(f);
}

const train_task train_regression = {
    .words = {.unit = "frames", .loss = "mean squared error", .quality = "R2", .digits = 5},
    .kind = CLM_TASK_REGRESSION,
    .frames = true,
    .preset = preset,
    .make = make,
    .save_model = save_model,
    .destroy = destroy};

const train_task train_classification = {
    .words = {.unit = "frames", .loss = "nats", .quality = "accuracy", .digits = 3},
    .kind = CLM_TASK_CLASSIFICATION,
    .frames = true,
    .preset = preset,
    .make = make,
    .save_model = save_model,
    .destroy = destroy};
