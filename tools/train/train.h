/* mamba-train: main.c is the program, settings.c what the command line, a preset and a saved run make of each other,
 * run.c a run from its first step to its last row, text.c and frames.c what is learnt. */
#ifndef CLM_TOOLS_TRAIN_H
#define CLM_TOOLS_TRAIN_H

#include "common/about.h"
#include "common/progress.h"
#include "common/train_log.h"
#include <clmamba/clmamba.h>

/* Shape of a new model. */
typedef struct train_shape {
  int64_t d_model, n_layer, d_state, expand, d_conv;
  const char *layers;         /* as in clm_model_config; NULL: every block is Mamba-1 */
  int64_t head_dim, n_groups; /* of Mamba-2 layers; 0: the default */
  int64_t window;             /* of frames; 0: no limit */
  clm_vocabulary vocabulary;  /* of a text              */
  clm_model_config others;    /* of a text: what else the preset says of a model */
} train_shape;

struct train_task;

/* All that a run is told. */
typedef struct train_settings {
  const struct train_task *task;
  const char *data, *out;
  const char
      *from; /* folder of the model that it goes on from: --init, or --out where it is resumed; NULL: a new one */
  const char *preset;
  bool resume, keep_best;
  bool new_length; /* of a run that is resumed */
  clm_train_options options;
  train_shape shape;
  int64_t stop_at; /* -1: at the end */
  int validations;
  clm_dtype dtype; /* of activations, of a new run */
  /* Of frames */
  const char *targets, *target, *features; /* as dataset_request has them */
  int output;                              /* clm_backbone_output, -1: as the targets are */
} train_settings;

typedef struct validation {
  int64_t step; /* -1: none was taken */
  double loss, quality;
} validation;

/* All that a run holds. */
typedef struct run {
  train_settings settings;
  clm_context *context;
  void *task_state; /* what the task alone knows    */
  clm_trainer *trainer;
  double begun;     /* tool_seconds()               */
  char about[1000]; /* what is trained on what, for the first line */
  train_log log;
  progress progress;
  validation last, best; /* the last one taken; the best of those on schedule */
  /* Of the folder */
  int lock;
  bool made_folder, new_files; /* it, its files, by this program */
  bool saved;                  /* there is a whole model         */
  bool state_failed;           /* but no trainer of the same step */
  int64_t model_step;          /* its step, -1: not known         */
  /* Of the row that is being collected */
  double loss_sum;
  int64_t loss_steps, last_step, start_tokens;
  double start_seconds, last_loss;
} run;

/* What is learnt: a text, or sequences of frames. Functions that return bool print a message when they fail. */
typedef struct train_task {
  train_words words;
  clm_backbone_task kind; /* of frames */
  bool frames;
  /* Options and shape of the preset of that name (NULL: the first); false: there is none. */
  bool (*preset)(const char *name, train_settings *settings);
  bool (*make)(run *r);       /* data, model, r->about, r->trainer           */
  bool (*save_model)(run *r); /* the model's files, each whole, into --out   */
  void (*destroy)(run *r);    /* all but trainer and context                 */
} train_task;

extern const train_task train_text, train_regression, train_classification;

extern const struct poptOption train_options[];

bool train_presets_asked(void); /* --presets */

/* What the command line says, checked. False: the message is on stderr. */
bool train_settings_read(train_settings *settings);

/* Merges what is not on the command line into it: from the preset, or from the run that is resumed. */
bool train_settings_complete(clm_context *context, train_settings *settings);

/* The presets, for tool_list. */
bool train_text_preset(size_t i, tool_entry *entry);
bool train_frames_preset(size_t i, tool_entry *entry);

bool train_fail(const run *r); /* the context's message; false */

/* To be called before the trainer is made: what a timed run has spent on its data is taken off its minutes. */
void train_data_ready(run *r);

/* ---- folder.c ---- */

/* Makes the folder, or takes an empty one, or that of the run that is resumed. */
bool folder_begin(run *r);

/* What an earlier part of the run has left, up to its checkpoint at `step`: the log, the best validation among the
 * steps that `counts` names. */
bool folder_resume(run *r, int64_t step, bool (*counts)(const run *, int64_t step));

/* Saves log and trainer; the model too if there is none yet, or the last one is to be kept. */
bool folder_save(run *r);

/* Saves the log with a validation, and its model if it is the best that is to be kept. `on_schedule`: an unbroken run
 * has it too. */
bool folder_keep(run *r, const validation *v, bool on_schedule);

/* Removes what a run that failed before its first checkpoint has made. */
void folder_end(run *r);

bool train_run(const train_settings *settings);

#endif
