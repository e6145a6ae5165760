/* mamba-train: trains a language model on a text, or a backbone on sequences of vectors, and leaves a model
 * directory, train.csv and loss.svg. */
#include "common/tool.h"
#include "train/train.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

train_given given = {.dtype = "f32", .seed = SEED_UNSET, .validations = 4};

static const struct poptOption options[] = {
    {"data", '\0', POPT_ARG_STRING, &given.data, 0,
     "text, or with --task X.npy or a CSV table, to train on (its last 10% are for validation)", "FILE"},
    {"out", '\0', POPT_ARG_STRING, &given.out, 0, "model directory to make", "DIR"},
    {"task", '\0', POPT_ARG_STRING, &given.task, 0, "learn from vectors instead of text",
     "regression|classification"},
    {"targets", '\0', POPT_ARG_STRING, &given.targets, 0, "what is to be learnt of X.npy", "Y.npy"},
    {"target", '\0', POPT_ARG_STRING, &given.target, 0, "columns of the table that are to be learnt", "NAME[,NAME]"},
    {"features", '\0', POPT_ARG_STRING, &given.features, 0, "columns to learn from (default: all others)",
     "NAME[,NAME]"},
    {"output", '\0', POPT_ARG_STRING, &given.output, 0,
     "outputs at the last frame of each sequence, or at every frame", "last|every"},
    {"window", '\0', POPT_ARG_LONGLONG, &given.window, 0, "frames that an output may see", "N"},
    {"preset", '\0', POPT_ARG_STRING, &given.preset, 0, "model and training options", "NAME"},
    {"presets", '\0', POPT_ARG_NONE, &given.presets, 0, "list the presets and exit", NULL},
    {"vocab", '\0', POPT_ARG_STRING, &given.vocab, 0, "tokens are bytes or characters", "byte|char"},
    {"init", '\0', POPT_ARG_STRING, &given.init, 0, "start from this model, with its tokenizer", "DIR"},
    {"resume", '\0', POPT_ARG_NONE, &given.resume, 0, "continue the run of --out", NULL},
    {"minutes", '\0', POPT_ARG_DOUBLE, &given.minutes, 0, "length of the run: wall time, validations included", "M"},
    {"steps", '\0', POPT_ARG_LONGLONG, &given.steps, 0, "length of the run: optimizer steps", "N"},
    {"stop-at", '\0', POPT_ARG_LONGLONG, &given.stop_at, 0, "save and leave after step N, as an interrupt would",
     "N"},
    {"batch", '\0', POPT_ARG_LONGLONG, &given.batch, 0, "windows, or sequences, in a batch", "N"},
    {"length", '\0', POPT_ARG_LONGLONG, &given.length, 0,
     "tokens in a window; frames that longer sequences are cut to", "N"},
    {"accumulate", '\0', POPT_ARG_LONGLONG, &given.accumulate, 0, "batches in a step", "N"},
    {"lr", '\0', POPT_ARG_DOUBLE, &given.lr, 0, "peak learning rate", "X"},
    {"clip", '\0', POPT_ARG_DOUBLE, &given.clip, 0, "clip the gradient's global norm", "X"},
    {"dropout", '\0', POPT_ARG_DOUBLE, &given.dropout, 0, "dropout rate after every mixer", "X"},
    {"dtype", '\0', POPT_ARG_STRING, &given.dtype, 0, "arithmetic", "f32"},
    {"seed", '\0', POPT_ARG_LONGLONG, &given.seed, 0, "of weights, order of windows and dropout", "N"},
    {"d-model", '\0', POPT_ARG_LONGLONG, &given.d_model, 0, "width of the model, instead of the preset's", "N"},
    {"n-layer", '\0', POPT_ARG_LONGLONG, &given.n_layer, 0, "layers of the model, instead of the preset's", "N"},
    {"d-state", '\0', POPT_ARG_LONGLONG, &given.d_state, 0, "states of a channel, instead of the preset's", "N"},
    {"expand", '\0', POPT_ARG_LONGLONG, &given.expand, 0, "d_inner / d_model, instead of the preset's", "N"},
    {"d-conv", '\0', POPT_ARG_LONGLONG, &given.d_conv, 0, "taps of the convolution, instead of the preset's", "N"},
    {"validations", '\0', POPT_ARG_INT, &given.validations, 0, "times to validate and save, the end included", "N"},
    {NULL, '\0', POPT_ARG_INCLUDE_TABLE, tool_device_options, 0, "Device:", NULL},
    POPT_TABLEEND,
};

static const tool_list presets[] = {
    {"Presets for a text", "preset", train_text_preset},
    {"Presets with --task", "preset", train_frames_preset},
    {NULL, NULL, NULL},
};

static const tool_entry examples[] = {
    {"mamba-train --data book.txt --out model --preset char-small --minutes 3", "train on a text for three minutes"},
    {"mamba-train --data book.txt --out model --resume", "continue a run that was interrupted"},
    {"mamba-train --task regression --data walks.csv --target sum --out backbone --steps 500",
     "learn a number from the rows of a table"},
    {NULL, NULL},
};

static const tool_about about = {
    .name = "mamba-train",
    .summary = "train a Mamba language model or backbone",
    .description =
        "Trains a language model on a text file, or with --task a backbone on sequences of vectors. The result is a "
        "model directory as Hugging Face writes it, with train.csv and loss.svg, the losses of the run. The last 10% "
        "of the data are kept for validation.\n\n"
        "An interrupt saves the run and exits; --resume continues it.",
    .options = options,
    .lists = presets,
    .examples = examples,
};

static int list_presets(void) {
  for (const tool_list *list = presets; list->title; list++) about_list(list, about_columns());
  return TOOL_OK;
}

/* Options that make a run what it is, and so cannot change when it is resumed; those that a model brings along; those
 * of one kind of data. */
static bool check_exclusive(void) {
  enum { TEXT = 1, FRAMES = 2, MODEL = 4, FREE = 8 }; /* MODEL: at odds with --init, FREE: goes with --resume */
  const int kind = given.task ? FRAMES : TEXT;
  const struct {
    const char *name;
    bool set;
    int flags;
  } rules[] = {{"--preset", given.preset, TEXT | FRAMES},
               {"--init", given.init, TEXT | FRAMES},
               {"--vocab", given.vocab, TEXT | MODEL},
               {"--batch", given.batch != 0, TEXT | FRAMES},
               {"--length", given.length != 0, TEXT | FRAMES},
               {"--accumulate", given.accumulate != 0, TEXT | FRAMES},
               {"--lr", given.lr != 0, TEXT | FRAMES},
               {"--clip", given.clip != 0, TEXT | FRAMES},
               {"--dropout", given.dropout != 0, TEXT | FRAMES},
               {"--seed", given.seed != SEED_UNSET, TEXT | FRAMES},
               {"--d-model", given.d_model != 0, TEXT | FRAMES | MODEL},
               {"--n-layer", given.n_layer != 0, TEXT | FRAMES | MODEL},
               {"--d-state", given.d_state != 0, TEXT | FRAMES | MODEL},
               {"--expand", given.expand != 0, TEXT | FRAMES | MODEL},
               {"--d-conv", given.d_conv != 0, TEXT | FRAMES | MODEL},
               {"--window", given.window != 0, FRAMES | MODEL},
               {"--targets", given.targets, FRAMES | FREE},
               {"--target", given.target, FRAMES | FREE},
               {"--features", given.features, FRAMES | FREE},
               {"--output", given.output, FRAMES | FREE}};
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
    if (!rules[i].set) continue;
    if (!(rules[i].flags & kind))
      return tool_fail("%s is %s --task", rules[i].name, given.task ? "for texts: it does not go with" : "only for"),
             false;
    if (given.resume && !(rules[i].flags & FREE))
      return tool_fail("%s cannot be given with --resume", rules[i].name), false;
    if (given.init && rules[i].flags & MODEL)
      return tool_fail("%s cannot be given with --init: the model brings its own", rules[i].name), false;
  }
  return true;
}

static bool check_given(void) {
  if (!given.data) return tool_fail("--data FILE is missing"), false;
  if (!given.out) return tool_fail("--out DIR is missing"), false;
  if (strcmp(given.dtype, "f32") != 0) return tool_fail("--dtype is \"%s\", expected f32", given.dtype), false;
  if (given.vocab && strcmp(given.vocab, "byte") != 0 && strcmp(given.vocab, "char") != 0)
    return tool_fail("--vocab is \"%s\", expected byte or char", given.vocab), false;
  if (given.task && strcmp(given.task, "regression") != 0 && strcmp(given.task, "classification") != 0)
    return tool_fail("--task is \"%s\", expected regression or classification", given.task), false;
  if (given.output && strcmp(given.output, "last") != 0 && strcmp(given.output, "every") != 0)
    return tool_fail("--output is \"%s\", expected last or every", given.output), false;
  if (given.minutes < 0 || given.steps < 0 || !isfinite(given.minutes))
    return tool_fail("--minutes and --steps must be positive"), false;
  if (given.minutes > 0 && given.steps > 0) return tool_fail("--minutes and --steps exclude each other"), false;
  if (!given.resume && given.minutes == 0 && given.steps == 0)
    return tool_fail("say how long to train: --minutes M or --steps N"), false;
  if (given.validations < 1) return tool_fail("--validations must be at least 1"), false;
  struct stat status;
  bool exists = stat(given.out, &status) == 0;
  if (exists && !given.resume)
    return tool_fail("%s exists: give another --out, or --resume to continue its run", given.out), false;
  if (!exists && given.resume) return tool_fail("there is no run to resume: %s does not exist", given.out), false;
  return check_exclusive();
}

int main(int argc, char **argv) {
  int status;
  if (!tool_parse(argc, argv, &about, NULL, &status)) return status;
  if (given.presets) return list_presets();
  if (!check_given()) return TOOL_USAGE;
  const train_kind *kind = !given.task            ? &train_text
                           : given.task[0] == 'c' ? &train_classification
                                                  : &train_regression;
  return train_run(kind) ? TOOL_OK : TOOL_FAILED;
}
