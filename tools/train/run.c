/* A run: steps, rows, lines, validations, checkpoints. */
#include "common/text.h"
#include "common/tool.h"
#include "train/train.h"
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

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
  interrupted = 1;
  signal(number, SIG_DFL); /* a second one ends the program at once */
}

bool train_fail(const run *r) {
  tool_fail("%s", clm_context_error(r->context));
  return false;
}

bool train_options(run *r) {
  clm_train_options *o = &r->options;
  if (given.resume && clm_trainer_saved_options(r->context, given.out, o)) return train_fail(r);
  if (given.steps > 0) o->steps = given.steps, o->minutes = 0;
  if (given.minutes > 0) o->minutes = given.minutes, o->steps = 0;
  if (given.batch) o->batch = given.batch;
  if (given.length) o->length = given.length;
  if (given.accumulate) o->accumulate = given.accumulate;
  if (given.lr != 0) o->lr = given.lr;
  if (given.clip != 0) o->clip = given.clip;
  if (given.dropout != 0) o->dropout = given.dropout;
  if (!given.resume) o->seed = given.seed == SEED_UNSET ? 1 : (uint64_t)given.seed;
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
  if (!r->kind->save(r)) return false;
  if (clm_trainer_save(r->trainer, given.out)) return train_fail(r);
  r->saved = true;
  return true;
}

/* train.csv, and loss.svg with the shape of the run, the device and the date above it. */
static bool write_log(const run *r) {
  clm_device_info device;
  char date[11], title[300], run_text[300], length[40] = "";
  if (clm_context_device(r->context, &device)) return train_fail(r);
  tool_date(date);
  if (r->options.length) snprintf(length, sizeof length, " x %lld", (long long)r->options.length);
  snprintf(title, sizeof title, "%.80s: %.160s", given.out, r->about);
  snprintf(run_text, sizeof run_text, "batch %lld%s, %s, %s, %s", (long long)r->options.batch, length, given.dtype,
           device.name, date);
  return train_log_write_csv(&r->log, text_path(given.out, "train.csv")) &&
         train_log_write_svg(&r->log, text_path(given.out, "loss.svg"), title, run_text);
}

/* Where the run stands; collects the losses of the row in hand. */
static bool observe(run *r, clm_train_status *s) {
  if (clm_trainer_status(r->trainer, s)) return train_fail(r);
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
  snprintf(text, sizeof text, "step %lld  loss %.*f  %.0f %s/s%s", (long long)s->step, r->kind->words.digits,
           r->last_loss, speed(r, s), r->kind->words.unit, eta);
  if (line) progress_line(&r->progress, text);
  else progress_bar(&r->progress, s->fraction, text);
}

static bool add_row(run *r, const clm_train_status *s) {
  double train = r->loss_steps ? r->loss_sum / (double)r->loss_steps : (double)NAN;
  bool validated = r->val_step == s->step;
  r->loss_sum = 0;
  r->loss_steps = 0;
  return train_log_add(&r->log, (train_row){.step = s->step,
                                            .tokens = s->tokens,
                                            .seconds = s->seconds,
                                            .learning_rate = s->lr,
                                            .train_loss = train,
                                            .val_loss = validated ? r->val_loss : (double)NAN,
                                            .val_quality = validated ? r->val_quality : (double)NAN}) ||
         (tool_fail("out of memory"), false);
}

/* ", R2 0.93", or nothing. */
static const char *quality_text(const run *r, char *text, size_t size) {
  text[0] = '\0';
  if (r->kind->words.quality && isfinite(r->val_quality))
    snprintf(text, size, ", %s %.4f", r->kind->words.quality, r->val_quality);
  return text;
}

static bool validate(run *r, const clm_train_status *s) {
  char text[160], quality[40];
  if (clm_trainer_validate(r->trainer, &r->val_loss)) return train_fail(r);
  clm_train_status status;
  if (!observe(r, &status)) return false;
  r->val_quality = status.quality;
  r->val_step = s->step;
  snprintf(text, sizeof text, "step %lld  validation loss %.*f%s", (long long)s->step, r->kind->words.digits + 1,
           r->val_loss, quality_text(r, quality, sizeof quality));
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
    if (clm_trainer_step(r->trainer)) return train_fail(r);
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
    r->val_quality = last->val_quality;
  }
  if (!save(r)) return false; /* before anything that takes time: an interrupt may not be patient */
  if (r->val_step != s->step && (!validate(r, s) || !add_row(r, s))) return false;
  if (!write_log(r)) return false;
  progress_end(&r->progress);
  clm_train_status end;
  if (clm_trainer_status(r->trainer, &end)) return train_fail(r);
  const train_words *words = &r->kind->words;
  char quality[40];
  printf("%s: %s step %lld, %lld %s in %.1f s (%.0f %s/s), validation loss %.*f %s%s\n", given.out,
         s->finished ? "trained to" : "stopped at", (long long)s->step, (long long)s->tokens, words->unit,
         end.seconds, speed(r, s), words->unit, words->digits + 1, r->val_loss, words->loss,
         quality_text(r, quality, sizeof quality));
  return true;
}

static bool work(run *r) {
  if (!r->kind->make(r)) return false;
  if (given.resume && clm_trainer_resume(r->trainer, given.out)) return train_fail(r);
  if (!make_directory(r)) return false;
  clm_train_status s;
  if (clm_trainer_status(r->trainer, &s)) return train_fail(r);
  r->last_step = s.step;
  r->start_tokens = s.tokens;
  r->start_seconds = s.seconds;
  if (given.resume && !train_log_read(&r->log, text_path(given.out, "train.csv"), s.step))
    return tool_fail("out of memory"), false;
  clm_device_info device;
  char text[1400];
  if (clm_context_device(r->context, &device)) return train_fail(r);
  snprintf(text, sizeof text, "%s, on %s", r->about, device.name);
  progress_line(&r->progress, text);
  return train(r, &s) && finish(r, &s);
}

bool train_run(const train_kind *kind) {
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  run r = {.kind = kind, .log = {.words = &kind->words}, .progress = progress_start(), .val_step = -1};
  bool ok = work(&r);
  progress_end(&r.progress);
  undo_directory(&r);
  clm_trainer_destroy(&r.trainer);
  kind->destroy(&r);
  clm_context_destroy(&r.context);
  train_log_free(&r.log);
  return ok;
}
