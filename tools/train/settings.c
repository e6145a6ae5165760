/* The options of mamba-train, and the one place where they meet presets and saved runs: a table says where each goes,
 * what it may be, and what it goes with. */
#include "common/model.h"
#include "common/tool.h"
#include "train/train.h"
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <string.h>

/* What is read; whether it was given at all is asked of tool_given. */
static struct {
  const char *data, *out, *preset, *vocab, *init, *dtype, *keep;
  const char *task, *targets, *target, *features, *output, *layers;
  double minutes, lr, clip, dropout;
  long long steps, batch, length, accumulate, seed, validation_tokens;
  long long d_model, n_layer, d_state, expand, d_conv, head_dim, n_groups, window, stop_at;
  int resume, validations, presets;
} given = {.keep = "best", .validations = 4, .validation_tokens = 131072};

const struct poptOption train_options[] = {
    {"data", '\0', POPT_ARG_STRING, &given.data, 0,
     "text, or with --task X.npy or a CSV table, to train on (its last 10% are for validation)", "FILE"},
    {"out", '\0', POPT_ARG_STRING, &given.out, 0, "model directory to create", "DIR"},
    {"task", '\0', POPT_ARG_STRING, &given.task, 0, "learn from vectors instead of text",
     "regression|classification"},
    {"targets", '\0', POPT_ARG_STRING, &given.targets, 0, "targets to learn for X.npy", "Y.npy"},
    {"target", '\0', POPT_ARG_STRING, &given.target, 0, "columns of the table to learn", "NAME[,NAME]"},
    {"features", '\0', POPT_ARG_STRING, &given.features, 0,
     "columns to use as inputs (default: all other numeric ones that have a name)", "NAME[,NAME]"},
    {"output", '\0', POPT_ARG_STRING, &given.output, 0,
     "outputs at the last frame of each sequence, or at every frame", "last|every"},
    {"window", '\0', POPT_ARG_LONGLONG, &given.window, 0, "frames that an output may see (0: all before it)", "N"},
    {"preset", '\0', POPT_ARG_STRING, &given.preset, 0, "model and training options", "NAME"},
    {"presets", '\0', POPT_ARG_NONE, &given.presets, 0, "list the presets and exit", NULL},
    {"vocab", '\0', POPT_ARG_STRING, &given.vocab, 0, "tokens are bytes or characters", "byte|char"},
    {"init", '\0', POPT_ARG_STRING, &given.init, 0, "start from this model, with its tokenizer", "DIR"},
    {"resume", '\0', POPT_ARG_NONE, &given.resume, 0, "continue the run of --out", NULL},
    {"minutes", '\0', POPT_ARG_DOUBLE, &given.minutes, 0, "length of the run: wall time, validations included", "M"},
    {"steps", '\0', POPT_ARG_LONGLONG, &given.steps, 0, "length of the run: optimizer steps", "N"},
    {"stop-at", '\0', POPT_ARG_LONGLONG, &given.stop_at, 0, "save and exit after step N, as an interrupt would", "N"},
    {"batch", '\0', POPT_ARG_LONGLONG, &given.batch, 0, "windows, or sequences, in a batch", "N"},
    {"length", '\0', POPT_ARG_LONGLONG, &given.length, 0,
     "tokens in a window; longer sequences are cut to so many frames (0: not cut)", "N"},
    {"accumulate", '\0', POPT_ARG_LONGLONG, &given.accumulate, 0, "batches in a step", "N"},
    {"lr", '\0', POPT_ARG_DOUBLE, &given.lr, 0, "peak learning rate", "X"},
    {"clip", '\0', POPT_ARG_DOUBLE, &given.clip, 0, "clip the gradient's global norm (0: off)", "X"},
    {"dropout", '\0', POPT_ARG_DOUBLE, &given.dropout, 0, "dropout rate after every mixer", "X"},
    {"dtype", '\0', POPT_ARG_STRING, &given.dtype, 0, "activations inside the layers; all else is f32 (default: f32)",
     "f32|bf16|f16"},
    {"seed", '\0', POPT_ARG_LONGLONG, &given.seed, 0, "seed of weights, order of windows and dropout (default: 1)",
     "N"},
    {"d-model", '\0', POPT_ARG_LONGLONG, &given.d_model, 0, "width of the model, instead of the preset's", "N"},
    {"n-layer", '\0', POPT_ARG_LONGLONG, &given.n_layer, 0, "layers of the model, instead of the preset's", "N"},
    {"d-state", '\0', POPT_ARG_LONGLONG, &given.d_state, 0, "states of a channel, instead of the preset's", "N"},
    {"expand", '\0', POPT_ARG_LONGLONG, &given.expand, 0, "d_inner / d_model, instead of the preset's", "N"},
    {"d-conv", '\0', POPT_ARG_LONGLONG, &given.d_conv, 0, "taps of the convolution, instead of the preset's", "N"},
    {"layers", '\0', POPT_ARG_STRING, &given.layers, 0,
     "layers of the blocks, instead of the preset's: mamba1, mamba2, or a list such as \"mamba2 mlp\"", "LIST"},
    {"head-dim", '\0', POPT_ARG_LONGLONG, &given.head_dim, 0, "channels of a head of mamba2 layers", "N"},
    {"n-groups", '\0', POPT_ARG_LONGLONG, &given.n_groups, 0, "groups of B and C of mamba2 layers", "N"},
    {"validations", '\0', POPT_ARG_INT | POPT_ARGFLAG_SHOW_DEFAULT, &given.validations, 0,
     "times to validate and save, the end included", "N"},
    {"validation-tokens", '\0', POPT_ARG_LONGLONG | POPT_ARGFLAG_SHOW_DEFAULT, &given.validation_tokens, 0,
     "validate on the first N tokens, or frames, of the last 10% (0: on all)", "N"},
    {"keep", '\0', POPT_ARG_STRING | POPT_ARGFLAG_SHOW_DEFAULT, &given.keep, 0,
     "which model to keep: of the best validation, or of the last step", "best|last"},
    {NULL, '\0', POPT_ARG_INCLUDE_TABLE, tool_device_options, 0, "Device:", NULL},
    POPT_TABLEEND,
};

bool train_presets_asked(void) { return given.presets; }

/* ---- What goes with what, where it goes ---- */

enum {
  TEXT = 1,      /* goes with a text                                               */
  FRAMES = 2,    /* goes with --task                                               */
  MODEL = 4,     /* a model brings its own: at odds with --init                    */
  FREE = 8,      /* goes with --resume: it does not make the run what it is        */
  ZERO_OFF = 16, /* 0 turns it off, which the library's options have as a negative */
};

typedef enum value_type { TEXTUAL, WHOLE, REAL } value_type; /* a text is taken by train_settings_read */

static const struct rule {
  const char *name;
  const void *variable;
  int flags;
  value_type type;
  double low, high; /* of numbers                                                    */
  size_t to;        /* of the member of train_settings that it sets */
} rules[] = {
#define OPTION(m) offsetof(train_settings, options.m)
#define SHAPE(m)  offsetof(train_settings, shape.m)
#define MANY      1e19   /* more than any */
#define TINY      1e-300 /* above 0 */
    {"--preset", &given.preset, TEXT | FRAMES, TEXTUAL, 0, 0, 0},
    {"--init", &given.init, TEXT | FRAMES, TEXTUAL, 0, 0, 0},
    {"--vocab", &given.vocab, TEXT | MODEL, TEXTUAL, 0, 0, 0},
    {"--batch", &given.batch, TEXT | FRAMES, WHOLE, 1, 1 << 20, OPTION(batch)},
    {"--length", &given.length, TEXT, WHOLE, 1, 1 << 24, OPTION(length)},
    {"--length", &given.length, FRAMES, WHOLE, 0, 1 << 24, OPTION(length)},
    {"--accumulate", &given.accumulate, TEXT | FRAMES, WHOLE, 1, 1 << 20, OPTION(accumulate)},
    {"--lr", &given.lr, TEXT | FRAMES, REAL, TINY, 10, OPTION(lr)},
    {"--clip", &given.clip, TEXT | FRAMES | ZERO_OFF, REAL, 0, 1e300, OPTION(clip)},
    {"--dropout", &given.dropout, TEXT | FRAMES | ZERO_OFF, REAL, 0, 0.99, OPTION(dropout)},
    {"--dtype", &given.dtype, TEXT | FRAMES, TEXTUAL, 0, 0, 0},
    {"--seed", &given.seed, TEXT | FRAMES, WHOLE, -MANY, MANY, OPTION(seed)},
    {"--d-model", &given.d_model, TEXT | FRAMES | MODEL, WHOLE, 1, INT_MAX, SHAPE(d_model)},
    {"--n-layer", &given.n_layer, TEXT | FRAMES | MODEL, WHOLE, 1, INT_MAX, SHAPE(n_layer)},
    {"--d-state", &given.d_state, TEXT | FRAMES | MODEL, WHOLE, 1, INT_MAX, SHAPE(d_state)},
    {"--expand", &given.expand, TEXT | FRAMES | MODEL, WHOLE, 1, INT_MAX, SHAPE(expand)},
    {"--d-conv", &given.d_conv, TEXT | FRAMES | MODEL, WHOLE, 1, INT_MAX, SHAPE(d_conv)},
    {"--layers", &given.layers, TEXT | FRAMES | MODEL, TEXTUAL, 0, 0, 0},
    {"--head-dim", &given.head_dim, TEXT | FRAMES | MODEL, WHOLE, 1, INT_MAX, SHAPE(head_dim)},
    {"--n-groups", &given.n_groups, TEXT | FRAMES | MODEL, WHOLE, 1, INT_MAX, SHAPE(n_groups)},
    {"--window", &given.window, FRAMES | MODEL, WHOLE, 0, INT_MAX, SHAPE(window)},
    {"--targets", &given.targets, FRAMES | FREE, TEXTUAL, 0, 0, 0},
    {"--target", &given.target, FRAMES | FREE, TEXTUAL, 0, 0, 0},
    {"--features", &given.features, FRAMES | FREE, TEXTUAL, 0, 0, 0},
    {"--output", &given.output, FRAMES | FREE, TEXTUAL, 0, 0, 0},
    {"--steps", &given.steps, TEXT | FRAMES | FREE, WHOLE, 1, MANY, OPTION(steps)},
    {"--minutes", &given.minutes, TEXT | FRAMES | FREE, REAL, TINY, 1e9, OPTION(minutes)},
    {"--stop-at", &given.stop_at, TEXT | FRAMES | FREE, WHOLE, 0, MANY, offsetof(train_settings, stop_at)},
    {"--validation-tokens", &given.validation_tokens, TEXT | FRAMES | FREE, WHOLE, 0, MANY,
     OPTION(validation_tokens)},
};
enum { RULES = sizeof rules / sizeof *rules };

static bool applies(const struct rule *r, const train_settings *s) {
  return (r->flags & (s->task->frames ? FRAMES : TEXT)) && tool_given(r->variable);
}

static bool check_kind(const train_settings *s) {
  const int kind = s->task->frames ? FRAMES : TEXT;
  int kinds = 0;
  for (size_t i = 0; i < RULES; i++) {
    const struct rule *r = &rules[i];
    kinds |= r->flags;
    if (i + 1 < RULES && rules[i + 1].variable == r->variable) continue; /* another one for the other kind */
    if (tool_given(r->variable) && !(kinds & kind))
      return tool_fail("%s is %s --task", r->name, s->task->frames ? "for texts: it does not go with" : "only for"),
             false;
    kinds = 0;
  }
  return true;
}

static bool check_company(const train_settings *s) {
  for (size_t i = 0; i < RULES; i++) {
    const struct rule *r = &rules[i];
    if (!applies(r, s)) continue;
    if (s->resume && !(r->flags & FREE)) return tool_fail("%s cannot be given with --resume", r->name), false;
    if (given.init && r->flags & MODEL)
      return tool_fail("%s cannot be given with --init: the model brings its own", r->name), false;
  }
  return true;
}

static bool check_range(const train_settings *s) {
  for (size_t i = 0; i < RULES; i++) {
    const struct rule *r = &rules[i];
    if (!applies(r, s) || r->type == TEXTUAL) continue;
    double number = r->type == WHOLE ? (double)*(const long long *)r->variable : *(const double *)r->variable;
    if (number >= r->low && number <= r->high) continue;
    char low[40], high[40] = "";
    if (r->low == TINY) snprintf(low, sizeof low, "a number above 0");
    else snprintf(low, sizeof low, "%g", r->low);
    if (r->high < 1e9) snprintf(high, sizeof high, r->low == TINY ? ", at most %g" : " to %.10g", r->high);
    else if (r->low != TINY) snprintf(high, sizeof high, " or more");
    return tool_fail("%s is %.10g, expected %s%s", r->name, number, low, high), false;
  }
  return true;
}

/* The number of the word that an option names; -1 and a message if it names none. */
static int choose(const char *name, const char *text, const char *const words[2]) {
  for (int i = 0; i < 2; i++)
    if (strcmp(text, words[i]) == 0) return i;
  tool_fail("%s is \"%.60s\", expected %s or %s", name, text, words[0], words[1]);
  return -1;
}

/* ---- The folder ---- */

/* A new run wants no folder, or an empty one. */
static bool check_folder(const train_settings *s) {
  DIR *folder = opendir(s->out);
  int error = errno, entries = 0;
  for (struct dirent *e; folder && (e = readdir(folder)) != NULL;)
    entries += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
  if (folder) closedir(folder);
  if (!folder && error == ENOENT)
    return !s->resume || (tool_fail("there is no run to resume: %s does not exist", s->out), false);
  if (!folder) return tool_fail("cannot read %s: %s", s->out, strerror(error)), false;
  return s->resume || !entries ||
         (tool_fail("%s exists and is not empty: give another --out, or --resume to continue its run", s->out),
          false);
}

/* ---- The settings ---- */

bool train_settings_read(train_settings *s) {
  static const char *const kinds[] = {"regression", "classification"}, *const ends[] = {"last", "every"},
                           *const vocabularies[] = {"byte", "char"}, *const keeps[] = {"best", "last"};
  static const train_task *const tasks[] = {&train_regression, &train_classification};
  if (!given.data) return tool_fail("--data FILE is missing"), false;
  if (!given.out) return tool_fail("--out DIR is missing"), false;
  int kind = given.task ? choose("--task", given.task, kinds) : 0;
  int output = given.output ? choose("--output", given.output, ends) : 0;
  int vocabulary = given.vocab ? choose("--vocab", given.vocab, vocabularies) : 0;
  int keep = choose("--keep", given.keep, keeps);
  clm_dtype dtype = CLM_F32;
  if (given.dtype && !tool_activations(given.dtype, &dtype))
    return tool_fail("--dtype is \"%.60s\", expected f32, bf16 or f16", given.dtype), false;
  if (kind < 0 || output < 0 || vocabulary < 0 || keep < 0) return false;
  *s = (train_settings){.task = given.task ? tasks[kind] : &train_text,
                        .data = given.data,
                        .out = given.out,
                        .from = given.resume ? given.out : given.init,
                        .preset = given.preset,
                        .resume = given.resume,
                        .keep_best = keep == 0,
                        .new_length = given.resume && (tool_given(&given.minutes) || tool_given(&given.steps)),
                        .stop_at = -1,
                        .validations = given.validations,
                        .dtype = dtype,
                        .targets = given.targets,
                        .target = given.target,
                        .features = given.features,
                        .output = !given.output ? -1
                                  : output == 0 ? CLM_OUTPUT_LAST
                                                : CLM_OUTPUT_EVERY};
  if (!check_kind(s) || !check_company(s) || !check_range(s)) return false;
  if (tool_given(&given.minutes) && tool_given(&given.steps))
    return tool_fail("--minutes and --steps exclude each other"), false;
  if (!s->resume && !tool_given(&given.minutes) && !tool_given(&given.steps))
    return tool_fail("say how long to train: --minutes M or --steps N"), false;
  if (given.validations < 1) return tool_fail("--validations is %d, expected 1 or more", given.validations), false;
  return check_folder(s);
}

bool train_settings_complete(clm_context *context, train_settings *s) {
  if (!s->task->preset(s->preset, s))
    return tool_fail("there is no preset \"%s\"%s (see mamba-train --presets)", s->preset,
                     s->task->frames ? " for --task" : ""),
           false;
  s->options.seed = 1;
  s->options.validation_tokens = given.validation_tokens;
  s->options.activations = s->dtype;
  if (s->resume && clm_trainer_saved_options(context, s->out, &s->options))
    return tool_fail("%s", clm_context_error(context)), false;
  if (tool_given(&given.minutes)) s->options.steps = 0;
  if (tool_given(&given.steps)) s->options.minutes = 0;
  if (given.layers) s->shape.layers = given.layers;
  if (given.vocab) s->shape.vocabulary = given.vocab[0] == 'b' ? CLM_VOCABULARY_BYTE : CLM_VOCABULARY_CHAR;
  for (size_t i = 0; i < RULES; i++) {
    const struct rule *r = &rules[i];
    if (!applies(r, s) || r->type == TEXTUAL) continue;
    void *member = (char *)s + r->to;
    if (r->type == WHOLE) *(int64_t *)member = *(const long long *)r->variable;
    else {
      double number = *(const double *)r->variable;
      *(double *)member = number == 0 && r->flags & ZERO_OFF ? -1 : number;
    }
  }
  return true;
}
