/* mamba-train: trains a language model on a text file and leaves a model directory, train.csv and loss.svg. */
#include "common/progress.h"
#include "common/text.h"
#include "common/tool.h"
#include "common/train_log.h"
#include <clmamba/clmamba.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_ROWS   100 /* rows of train.csv in a whole run */
#define PLAIN_ROWS 20  /* lines without a terminal         */
#define SEED_UNSET (-1LL)

static struct {
  const char *data, *out, *preset, *vocab, *init, *dtype;
  double minutes, lr, clip, dropout;
  long long steps, batch, length, accumulate, seed, d_model, n_layer, d_state, stop_at;
  int resume, validations, presets;
} given = {.dtype = "f32", .seed = SEED_UNSET, .validations = 4};

static const struct poptOption options[] = {
    {"data", '\0', POPT_ARG_STRING, &given.data, 0, "text to train on (its last 10% are for validation)", "FILE"},
    {"out", '\0', POPT_ARG_STRING, &given.out, 0, "model directory to make", "DIR"},
    {"preset", '\0', POPT_ARG_STRING, &given.preset, 0, "model and training options (see --presets)", "NAME"},
    {"presets", '\0', POPT_ARG_NONE, &given.presets, 0, "list the presets and leave", NULL},
    {"vocab", '\0', POPT_ARG_STRING, &given.vocab, 0, "byte or char", "KIND"},
    {"init", '\0', POPT_ARG_STRING, &given.init, 0, "start from this model, with its tokenizer", "DIR"},
    {"resume", '\0', POPT_ARG_NONE, &given.resume, 0, "continue the run of --out", NULL},
    {"minutes", '\0', POPT_ARG_DOUBLE, &given.minutes, 0, "length of the run: wall time, validations included", "M"},
    {"steps", '\0', POPT_ARG_LONGLONG, &given.steps, 0, "length of the run: optimizer steps", "N"},
    {"stop-at", '\0', POPT_ARG_LONGLONG, &given.stop_at, 0, "save and leave after step N, as an interrupt would",
     "N"},
    {"batch", '\0', POPT_ARG_LONGLONG, &given.batch, 0, "windows in a batch", "N"},
    {"length", '\0', POPT_ARG_LONGLONG, &given.length, 0, "tokens in a window", "N"},
    {"accumulate", '\0', POPT_ARG_LONGLONG, &given.accumulate, 0, "batches in a step", "N"},
    {"lr", '\0', POPT_ARG_DOUBLE, &given.lr, 0, "peak learning rate", "X"},
    {"clip", '\0', POPT_ARG_DOUBLE, &given.clip, 0, "clip the gradient's global norm", "X"},
    {"dropout", '\0', POPT_ARG_DOUBLE, &given.dropout, 0, "dropout rate after every mixer", "X"},
    {"dtype", '\0', POPT_ARG_STRING, &given.dtype, 0, "f32", "TYPE"},
    {"seed", '\0', POPT_ARG_LONGLONG, &given.seed, 0, "of weights, order of windows and dropout", "N"},
    {"d-model", '\0', POPT_ARG_LONGLONG, &given.d_model, 0, "width of the model, instead of the preset's", "N"},
    {"n-layer", '\0', POPT_ARG_LONGLONG, &given.n_layer, 0, "layers of the model, instead of the preset's", "N"},
    {"d-state", '\0', POPT_ARG_LONGLONG, &given.d_state, 0, "states of a channel, instead of the preset's", "N"},
    {"validations", '\0', POPT_ARG_INT, &given.validations, 0, "times to validate and save, the end included", "N"},
    {NULL, '\0', POPT_ARG_INCLUDE_TABLE, tool_device_options, 0, "Device:", NULL},
    POPT_TABLEEND,
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
  interrupted = 1;
  signal(number, SIG_DFL); /* a second one ends the program at once */
}

/* All that a run holds; run_free takes apart what is there. */
typedef struct run {
  clm_context *context;
  clm_tokenizer *tokenizer;
  clm_model *model;
  clm_trainer *trainer;
  text_file text;
  token_list tokens;
  clm_train_options options;
  train_log log;
  progress progress;
  bool made_directory, saved;
  /* Of the row in hand */
  double loss_sum;
  int64_t loss_steps, last_step, start_tokens;
  double start_seconds, last_loss, val_loss;
  int64_t val_step; /* of val_loss, -1: none */
} run;

static void run_free(run *r) {
  clm_trainer_destroy(&r->trainer);
  clm_model_destroy(&r->model);
  clm_tokenizer_destroy(&r->tokenizer);
  clm_context_destroy(&r->context);
  free(r->tokens.ids);
  text_free(&r->text);
  train_log_free(&r->log);
}

static bool fail_with(const run *r) {
  tool_fail("%s", clm_context_error(r->context));
  return false;
}

static int list_presets(void) {
  size_t count;
  const clm_train_preset *p = clm_train_presets(&count);
  for (size_t i = 0; i < count; i++)
    printf("%-12s %s (d_model %lld, %lld layers, d_state %lld, batch %lld, length %lld)\n", p[i].name,
           p[i].description, (long long)p[i].model.d_model, (long long)p[i].model.n_layer,
           (long long)p[i].model.d_state, (long long)p[i].train.batch, (long long)p[i].train.length);
  return TOOL_OK;
}

static const clm_train_preset *find_preset(void) {
  size_t count;
  const clm_train_preset *presets = clm_train_presets(&count);
  for (size_t i = 0; i < count; i++)
    if (!given.preset || strcmp(presets[i].name, given.preset) == 0) return &presets[i];
  tool_fail("there is no preset \"%s\" (see mamba-train --presets)", given.preset);
  return NULL;
}

/* Options that make a run what it is, and so cannot change when it is resumed; and those that a model brings along.
 */
static bool check_exclusive(void) {
  const struct {
    const char *name;
    bool set, model; /* model: also at odds with --init */
  } fixed[] = {{"--preset", given.preset, false},        {"--init", given.init, false},
               {"--vocab", given.vocab, true},           {"--batch", given.batch != 0, false},
               {"--length", given.length != 0, false},   {"--accumulate", given.accumulate != 0, false},
               {"--lr", given.lr != 0, false},           {"--clip", given.clip != 0, false},
               {"--dropout", given.dropout != 0, false}, {"--seed", given.seed != SEED_UNSET, false},
               {"--d-model", given.d_model != 0, true},  {"--n-layer", given.n_layer != 0, true},
               {"--d-state", given.d_state != 0, true}};
  for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
    if (given.resume && fixed[i].set) return tool_fail("%s cannot be given with --resume", fixed[i].name), false;
    if (given.init && fixed[i].set && fixed[i].model)
      return tool_fail("%s cannot be given with --init: the model brings its own", fixed[i].name), false;
  }
  return true;
}

static bool check_given(void) {
  if (!given.data) return tool_fail("--data FILE is missing"), false;
  if (!given.out) return tool_fail("--out DIR is missing"), false;
  if (strcmp(given.dtype, "f32") != 0) return tool_fail("--dtype is \"%s\", expected f32", given.dtype), false;
  if (given.vocab && strcmp(given.vocab, "byte") != 0 && strcmp(given.vocab, "char") != 0)
    return tool_fail("--vocab is \"%s\", expected byte or char", given.vocab), false;
  if (given.minutes < 0 || given.steps < 0 || !isfinite(given.minutes))
    return tool_fail("--minutes and --steps must be positive"), false;
  if (given.minutes > 0 && given.steps > 0) return tool_fail("--minutes and --steps exclude each other"), false;
  if (!given.resume && given.minutes == 0 && given.steps == 0)
    return tool_fail("say how long to train: --minutes M or --steps N"), false;
  if (given.validations < 1) return tool_fail("--validations must be at least 1"), false;
  struct stat about;
  bool exists = stat(given.out, &about) == 0;
  if (exists && !given.resume)
    return tool_fail("%s exists: give another --out, or --resume to continue its run", given.out), false;
  if (!exists && given.resume) return tool_fail("there is no run to resume: %s does not exist", given.out), false;
  return check_exclusive();
}

static void override(clm_train_options *o) {
  if (given.steps > 0) o->steps = given.steps, o->minutes = 0;
  if (given.minutes > 0) o->minutes = given.minutes, o->steps = 0;
  if (given.batch) o->batch = given.batch;
  if (given.length) o->length = given.length;
  if (given.accumulate) o->accumulate = given.accumulate;
  if (given.lr != 0) o->lr = given.lr;
  if (given.clip != 0) o->clip = given.clip;
  if (given.dropout != 0) o->dropout = given.dropout;
  if (!given.resume) o->seed = given.seed == SEED_UNSET ? 1 : (uint64_t)given.seed;
}

static bool make_new_model(run *r, const clm_train_preset *preset) {
  clm_vocabulary kind = preset->vocabulary;
  if (given.vocab) kind = given.vocab[0] == 'b' ? CLM_VOCABULARY_BYTE : CLM_VOCABULARY_CHAR;
  if (clm_tokenizer_create(r->context, kind, r->text.data, r->text.bytes, &r->tokenizer))
    return tool_fail("%s: %s", given.data, clm_context_error(r->context)), false;
  clm_model_config config = preset->model;
  config.vocab_size = clm_tokenizer_vocab_size(r->tokenizer);
  if (given.d_model) config.d_model = given.d_model;
  if (given.n_layer) config.n_layer = given.n_layer;
  if (given.d_state) config.d_state = given.d_state;
  return clm_model_create(r->context, &config, r->options.seed, &r->model) == CLM_OK || fail_with(r);
}

static bool make_model(run *r) {
  const clm_train_preset *preset = find_preset();
  if (!preset) return false;
  r->options = preset->train;
  if (given.resume && clm_trainer_saved_options(r->context, given.out, &r->options)) return fail_with(r);
  override(&r->options);
  const char *from = given.resume ? given.out : given.init;
  if (!from) return make_new_model(r, preset);
  return (clm_tokenizer_load(r->context, from, &r->tokenizer) == CLM_OK &&
          clm_model_load(r->context, from, &r->model) == CLM_OK) ||
         fail_with(r);
}

static bool make_trainer(run *r) {
  if (!text_encode(r->tokenizer, r->context, &r->text, given.data, &r->tokens)) return false;
  if (clm_trainer_create(r->model, r->tokens.ids, r->tokens.count, &r->options, &r->trainer)) return fail_with(r);
  if (given.resume && clm_trainer_resume(r->trainer, given.out)) return fail_with(r);
  return true;
}

static bool make_directory(run *r) {
  if (given.resume) return true;
  if (mkdir(given.out, 0777) != 0) return tool_fail("cannot create %s: %s", given.out, strerror(errno)), false;
  r->made_directory = true;
  return true;
}

/* Of a run that failed before its first checkpoint nothing stays. */
static void undo_directory(const run *r) {
  static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "config.json", "model.safetensors"};
  if (!r->made_directory || r->saved) return;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) remove(text_path(given.out, names[i]));
  rmdir(given.out);
}

static bool save(run *r) {
  if (clm_tokenizer_save(r->tokenizer, given.out) || clm_trainer_save(r->trainer, given.out)) return fail_with(r);
  r->saved = true;
  return true;
}

static bool write_log(const run *r) {
  return train_log_write_csv(&r->log, text_path(given.out, "train.csv")) &&
         train_log_write_svg(&r->log, text_path(given.out, "loss.svg"), given.out);
}

/* Where the run stands; collects the losses of the row in hand. */
static bool observe(run *r, clm_train_status *s) {
  if (clm_trainer_status(r->trainer, s)) return fail_with(r);
  if (s->step == r->last_step) return true;
  r->last_loss = s->loss;
  r->loss_sum += s->loss * (double)(s->step - r->last_step);
  r->loss_steps += s->step - r->last_step;
  r->last_step = s->step;
  if (isfinite(s->loss)) return true;
  return tool_fail("the loss is not a number at step %lld: try a smaller --lr", (long long)s->step), false;
}

static double speed(const run *r, const clm_train_status *s) {
  double seconds = s->seconds - r->start_seconds;
  return seconds > 0 ? (double)(s->tokens - r->start_tokens) / seconds : 0;
}

static void show(run *r, const clm_train_status *s, bool line) {
  char text[200], eta[40] = "";
  if (s->fraction > 0 && s->fraction < 1) {
    double left = s->seconds / s->fraction * (1 - s->fraction);
    snprintf(eta, sizeof eta, "  %d:%02d left", (int)(left / 60), (int)left % 60);
  }
  snprintf(text, sizeof text, "step %lld  loss %.3f  %.0f tokens/s%s", (long long)s->step, r->last_loss, speed(r, s),
           eta);
  if (line) progress_line(&r->progress, text);
  else progress_bar(&r->progress, s->fraction, text);
}

static bool add_row(run *r, const clm_train_status *s) {
  double train = r->loss_steps ? r->loss_sum / (double)r->loss_steps : (double)NAN;
  double val = r->val_step == s->step ? r->val_loss : (double)NAN;
  r->loss_sum = 0;
  r->loss_steps = 0;
  return train_log_add(&r->log, (train_row){s->step, s->tokens, s->seconds, s->lr, train, val}) ||
         (tool_fail("out of memory"), false);
}

static bool validate(run *r, const clm_train_status *s) {
  char text[100];
  if (clm_trainer_validate(r->trainer, &r->val_loss)) return fail_with(r);
  r->val_step = s->step;
  snprintf(text, sizeof text, "step %lld  validation loss %.4f", (long long)s->step, r->val_loss);
  progress_line(&r->progress, text);
  return true;
}

/* How many of `parts` equal parts of the run are done. */
static int64_t parts_done(const clm_train_status *s, int64_t parts) {
  return (int64_t)floor(s->fraction * (double)parts + 1e-9);
}

/* What is due after a step: a row, a line, a validation with a checkpoint. */
static bool report(run *r, const clm_train_status *before, const clm_train_status *s) {
  bool crossed = parts_done(s, given.validations) > parts_done(before, given.validations);
  bool row = parts_done(s, LOG_ROWS) > parts_done(before, LOG_ROWS);
  bool line = parts_done(s, PLAIN_ROWS) > parts_done(before, PLAIN_ROWS) && !r->progress.terminal;
  bool due = crossed && !s->finished;
  show(r, s, line);
  if (due && !validate(r, s)) return false;
  if ((row || due) && !s->finished && !add_row(r, s)) return false;
  return !due || (save(r) && write_log(r));
}

/* Steps until the run ends or is interrupted; *s is then its status. */
static bool train(run *r, clm_train_status *s) {
  double last = tool_seconds();
  clm_train_status before = *s;
  int64_t row_steps = r->options.steps > LOG_ROWS ? r->options.steps / LOG_ROWS : 1;
  while (!s->finished && !interrupted && !(given.stop_at && s->step >= given.stop_at)) {
    if (clm_trainer_step(r->trainer)) return fail_with(r);
    s->step++;
    /* Counted runs look at fixed steps, so that their logs are equal too; timed runs four times a second. */
    bool end = s->step == r->options.steps || s->step == given.stop_at || interrupted;
    bool look = r->options.steps ? s->step % row_steps == 0 : tool_seconds() - last > 0.25;
    if (!look && !end) continue;
    last = tool_seconds();
    if (!observe(r, s) || !report(r, &before, s)) return false;
    before = *s;
  }
  return observe(r, s);
}

static bool finish(run *r, const clm_train_status *s) {
  const train_row *last = r->log.count ? &r->log.rows[r->log.count - 1] : NULL;
  if (last && last->step == s->step && isfinite(last->val_loss)) { /* resumed, with nothing left to do */
    r->val_step = s->step;
    r->val_loss = last->val_loss;
  }
  if (!save(r)) return false; /* before anything that takes time: an interrupt may not be patient */
  if (r->val_step != s->step && (!validate(r, s) || !add_row(r, s))) return false;
  if (!write_log(r)) return false;
  progress_end(&r->progress);
  clm_train_status end;
  if (clm_trainer_status(r->trainer, &end)) return fail_with(r);
  printf("%s: %s step %lld, %lld tokens in %.1f s (%.0f tokens/s), validation loss %.4f nats per token\n", given.out,
         s->finished ? "trained to" : "stopped at", (long long)s->step, (long long)s->tokens, end.seconds,
         speed(r, s), r->val_loss);
  return true;
}

static bool work(run *r) {
  if (!text_read(given.data, &r->text)) return false;
  r->context = tool_context(NULL);
  if (!r->context || !make_model(r) || !make_trainer(r) || !make_directory(r)) return false;
  clm_train_status s;
  if (clm_trainer_status(r->trainer, &s)) return fail_with(r);
  r->last_step = s.step;
  r->start_tokens = s.tokens;
  r->start_seconds = s.seconds;
  if (given.resume && !train_log_read(&r->log, text_path(given.out, "train.csv"), s.step))
    return tool_fail("out of memory"), false;
  clm_device_info device;
  char text[300];
  if (clm_context_device(r->context, &device)) return fail_with(r);
  snprintf(text, sizeof text, "%lld parameters, %zu tokens of %lld kinds, on %s",
           (long long)clm_model_parameter_count(r->model), r->tokens.count,
           (long long)clm_tokenizer_vocab_size(r->tokenizer), device.name);
  progress_line(&r->progress, text);
  return train(r, &s) && finish(r, &s);
}

int main(int argc, char **argv) {
  int status;
  if (!tool_parse(argc, argv, "mamba-train", options, NULL, &status)) return status;
  if (given.presets) return list_presets();
  if (!check_given()) return TOOL_USAGE;
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  run r = {.progress = progress_start(), .val_step = -1};
  bool ok = work(&r);
  progress_end(&r.progress);
  undo_directory(&r);
  run_free(&r);
  return ok ? TOOL_OK : TOOL_FAILED;
}
