/* mamba-train: main.c has the options, run.c a run from its data to its last row, text.c and frames.c what a run is
 * of. */
#ifndef CLM_TOOLS_TRAIN_H
#define CLM_TOOLS_TRAIN_H

#include "common/about.h"
#include "common/progress.h"
#include "common/train_log.h"
#include "train/dataset.h"
#include <clmamba/clmamba.h>

#define SEED_UNSET (-1LL)

/* The command line. */
typedef struct train_given {
  const char *data, *out, *preset, *vocab, *init, *dtype;
  const char *task, *targets, *target, *features, *output;
  double minutes, lr, clip, dropout;
  long long steps, batch, length, accumulate, seed, d_model, n_layer, d_state, expand, d_conv, window, stop_at;
  int resume, validations, presets;
} train_given;

extern train_given given;

struct train_kind;

/* All that a run holds. */
typedef struct run {
  const struct train_kind *kind;
  clm_context *context;
  clm_tokenizer *tokenizer; /* of a text */
  clm_model *model;
  clm_backbone *backbone; /* of frames */
  dataset data;
  clm_trainer *trainer;
  clm_train_options options;
  char about[1000]; /* what is trained on what, for the first line */
  train_log log;
  progress progress;
  bool made_directory, saved;
  /* Of the row in hand */
  double loss_sum;
  int64_t loss_steps, last_step, start_tokens;
  double start_seconds, last_loss, val_loss, val_quality;
  int64_t val_step; /* of val_loss, -1: none */
} run;

typedef struct train_kind {
  train_words words;
  bool (*make)(run *r);    /* context, data, model, options, trainer */
  bool (*save)(run *r);    /* what the trainer does not              */
  void (*destroy)(run *r); /* all but trainer and context            */
} train_kind;

extern const train_kind train_text, train_regression, train_classification;

bool train_fail(const run *r); /* the context's sentence; false */

/* r->options from a preset's to those of the command line, or of the run that is resumed. */
bool train_options(run *r);

/* The presets, for tool_list. */
bool train_text_preset(size_t i, tool_entry *entry);
bool train_frames_preset(size_t i, tool_entry *entry);

bool train_run(const train_kind *kind);

#endif
