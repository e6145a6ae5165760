/* A backbone and its sequences. */
#include "common/tool.h"
#include "train/train.h"
#include <stdio.h>
#include <string.h>

/* Where the command line says nothing. */
static const clm_train_options standard = {.batch = 16, .lr = 3e-3};

static bool is_classification(void) { return given.task[0] == 'c'; }

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

static const clm_backbone_preset *find_preset(void) {
  size_t count;
  const clm_backbone_preset *presets = clm_backbone_presets(&count);
  for (size_t i = 0; i < count; i++)
    if (!given.preset || strcmp(presets[i].name, given.preset) == 0) return &presets[i];
  tool_fail("there is no preset \"%s\" for --task (see mamba-train --presets)", given.preset);
  return NULL;
}

static bool load_backbone(run *r) {
  const char *from = given.resume ? given.out : given.init;
  if (!from) return true;
  if (clm_backbone_load(r->context, from, &r->backbone)) return train_fail(r);
  bool classes = clm_backbone_configuration(r->backbone)->task == CLM_TASK_CLASSIFICATION;
  return classes == is_classification() ||
         (tool_fail("the model of %s is for %s", from, classes ? "classification" : "regression"), false);
}

static bool read_data(run *r) {
  return dataset_read(&(dataset_request){.data = given.data,
                                         .targets = given.targets,
                                         .target = given.target,
                                         .features = given.features,
                                         .task = is_classification() ? CLM_TASK_CLASSIFICATION : CLM_TASK_REGRESSION,
                                         .output = !given.output            ? -1
                                                   : given.output[0] == 'l' ? (int)CLM_OUTPUT_LAST
                                                                            : (int)CLM_OUTPUT_EVERY,
                                         .known = r->backbone},
                      &r->data);
}

static bool make_backbone(run *r, const clm_backbone_preset *preset) {
  if (r->backbone) return true;
  clm_backbone_config config = preset->config;
  config.embed_dim = r->data.embed_dim;
  config.n_outputs = r->data.n_outputs;
  config.output = r->data.output;
  config.task = is_classification() ? CLM_TASK_CLASSIFICATION : CLM_TASK_REGRESSION;
  config.window = given.window;
  if (given.d_model) config.d_model = given.d_model;
  if (given.n_layer) config.n_layers = given.n_layer;
  if (given.d_state) config.d_state = given.d_state;
  if (given.expand) config.expand = given.expand;
  if (given.d_conv) config.d_conv = given.d_conv;
  if (given.dropout != 0) config.dropout = (float)given.dropout;
  if (clm_backbone_create(r->context, &config, r->options.seed, &r->backbone)) return train_fail(r);
  if (r->data.names && clm_backbone_set_names(r->backbone, (const char *const *)r->data.names))
    return tool_fail("%s: a name of %s is not UTF-8", given.data, is_classification() ? "a class" : "a column"),
           false;
  return true;
}

/* "1,234 parameters, 20 sequences (900 frames of 3 numbers), 2 classes: up (12), down (8)" */
static void describe(run *r) {
  const dataset *d = &r->data;
  size_t size = sizeof r->about;
  size_t used = (size_t)snprintf(
      r->about, size, "%lld parameters, %lld sequences (%lld frames of %lld numbers), %lld %s",
      (long long)clm_backbone_param_count(r->backbone), (long long)d->sequences.count, (long long)d->frames,
      (long long)d->embed_dim, (long long)d->n_outputs, is_classification() ? "classes" : "targets");
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
  const clm_backbone_preset *preset = find_preset();
  r->options = standard;
  if (!preset) return false;
  r->context = tool_context(NULL);
  if (!r->context || !train_options(r) || !load_backbone(r) || !read_data(r) || !make_backbone(r, preset))
    return false;
  if (r->data.note[0]) progress_line(&r->progress, r->data.note);
  describe(r);
  return clm_trainer_create_backbone(r->backbone, &r->data.sequences, &r->options, &r->trainer) == CLM_OK ||
         train_fail(r);
}

static bool save(run *r) { return r->backbone != NULL; } /* the trainer saves all */

static void destroy(run *r) {
  clm_backbone_destroy(&r->backbone);
  dataset_free(&r->data);
}

const train_kind train_regression = {
    .words = {.unit = "frames", .loss = "mean squared error", .quality = "R2", .digits = 5},
    .make = make,
    .save = save,
    .destroy = destroy};

const train_kind train_classification = {
    .words = {.unit = "frames", .loss = "nats", .quality = "accuracy", .digits = 3},
    .make = make,
    .save = save,
    .destroy = destroy};
