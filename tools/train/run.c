/* A run from its first step to its last row: rows, lines, validations. */
#include "common/interrupt.h"
#include "common/text.h"
#include "common/tool.h"
#include "train/train.h"
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOG_ROWS   100 /* rows of train.csv in a whole run */
#define PLAIN_ROWS 20  /* lines without a terminal         */

/* Interrupts end the run in order; a reader of its lines who goes away does not. */
static void handle_signals(void) {
  interrupt_catch();
  signal(SIGPIPE, SIG_IGN);
}

bool train_fail(const run *r) {
  tool_fail("%s", clm_context_error(r->context));
  return false;
}

void train_data_ready(run *r) {
  double *minutes = &r->settings.options.minutes, spent = (tool_seconds() - r->begun) / 60;
  if (*minutes > 0 && !r->settings.resume) *minutes = fmax(*minutes - spent, 0.1 * *minutes);
}

/* Where the run stands; collects the losses of the current row. */
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
  snprintf(text, sizeof text, "step %lld  loss %.*f  %.0f %s/s%s", (long long)s->step, r->settings.task->words.digits,
           r->last_loss, speed(r, s), r->settings.task->words.unit, eta);
  if (line) progress_line(&r->progress, text);
  else progress_bar(&r->progress, s->fraction, text);
}

static bool add_row(run *r, const clm_train_status *s) {
  double train = r->loss_steps ? r->loss_sum / (double)r->loss_steps : (double)NAN;
  r->loss_sum = 0;
  r->loss_steps = 0;
  return train_log_add(&r->log, (train_row){.step = s->step,
                                            .tokens = s->tokens,
                                            .seconds = s->seconds,
                                            .learning_rate = s->lr,
                                            .train_loss = train,
                                            .val_loss = (double)NAN,
                                            .val_quality = (double)NAN}) ||
         (tool_fail("out of memory"), false);
}

/* ", R2 0.93", or nothing. */
static const char *quality_text(const run *r, const validation *v, char *text, size_t size) {
  text[0] = '\0';
  if (r->settings.task->words.quality && isfinite(v->quality))
    snprintf(text, size, ", %s %.4f", r->settings.task->words.quality, v->quality);
  return text;
}

/* Into the last row, which is of this step. */
static bool validate(run *r, const clm_train_status *s) {
  char text[160], quality[40];
  validation v = {.step = s->step};
  progress_note("validating");
  if (clm_trainer_validate(r->trainer, &v.loss)) return train_fail(r);
  clm_train_status after;
  if (!observe(r, &after)) return false;
  v.quality = after.quality;
  r->last = v;
  train_row *row = &r->log.rows[r->log.count - 1];
  row->val_loss = v.loss;
  row->val_quality = v.quality;
  snprintf(text, sizeof text, "step %lld  validation loss %.*f%s", (long long)s->step,
           r->settings.task->words.digits + 1, v.loss, quality_text(r, &v, quality, sizeof quality));
  progress_line(&r->progress, text);
  return true;
}

/* ---- When what is due ---- */

/* How many of `parts` equal parts of the run are done. */
static int64_t parts_done(double fraction, int64_t parts) { return (int64_t)floor(fraction * (double)parts + 1e-9); }

/* Counted runs look at fixed steps, so that their logs are equal too; timed runs four times a second. */
static int64_t row_steps(const run *r) {
  return r->settings.options.steps > LOG_ROWS ? r->settings.options.steps / LOG_ROWS : 1;
}

/* Whether a run that is not interrupted validates there. Of timed runs, and of those that are given another length,
 * no two are equal: all their validations count. */
static bool on_schedule(const run *r, int64_t step) {
  const int64_t steps = r->settings.options.steps, back = row_steps(r);
  if (steps == 0 || step >= steps || r->settings.new_length) return true;
  return step % back == 0 && parts_done((double)step / (double)steps, r->settings.validations) >
                                 parts_done((double)(step - back) / (double)steps, r->settings.validations);
}

/* What is due after a step: a row, a line, a validation with a checkpoint. */
static bool report(run *r, const clm_train_status *before, const clm_train_status *s) {
  bool due = parts_done(s->fraction, r->settings.validations) > parts_done(before->fraction, r->settings.validations);
  bool row = parts_done(s->fraction, LOG_ROWS) > parts_done(before->fraction, LOG_ROWS);
  bool line = parts_done(s->fraction, PLAIN_ROWS) > parts_done(before->fraction, PLAIN_ROWS) && !r->progress.terminal;
  show(r, s, line);
  if (s->finished || !(row || due)) return true; /* the end has a row and a validation of its own */
  if (!add_row(r, s)) return false;
  return !due || (validate(r, s) && folder_save(r) && folder_keep(r, &r->last, true));
}

/* Steps until the run ends or is interrupted; *s is then its status. */
static bool train(run *r, clm_train_status *s) {
  const train_settings *settings = &r->settings;
  double last = tool_seconds();
  clm_train_status before = *s;
  while (!s->finished && !interrupt_came() && !(settings->stop_at >= 0 && s->step >= settings->stop_at)) {
    if (clm_trainer_step(r->trainer)) return train_fail(r);
    s->step++;
    bool end = s->step == settings->options.steps || s->step == settings->stop_at || interrupt_came();
    bool look = settings->options.steps ? s->step % row_steps(r) == 0 : tool_seconds() - last > 0.25;
    if (!look && !end) continue;
    last = tool_seconds();
    if (!observe(r, s) || !report(r, &before, s)) return false;
    before = *s;
  }
  return observe(r, s);
}

/* The line that stays, and whether the model that is kept is not the last one. */
static void summarize(const run *r, const clm_train_status *s, double seconds) {
  const train_words *words = &r->settings.task->words;
  const char *out = r->settings.out;
  char quality[40];
  printf("%s: %s step %lld, %lld %s in %.1f s (%.0f %s/s), validation loss %.*f %s%s\n", out,
         s->finished ? "trained to" : "stopped at", (long long)s->step, (long long)s->tokens, words->unit, seconds,
         speed(r, s), words->unit, words->digits + 1, r->last.loss, words->loss,
         quality_text(r, &r->last, quality, sizeof quality));
  if (s->skipped)
    printf("%s: %lld steps were skipped, as a gradient overflowed in f16; the scale of the loss is %g\n", out,
           (long long)s->skipped, s->loss_scale);
  if (r->best.step < 0 || r->best.loss >= r->last.loss) return;
  printf("%s: the best validation loss was %.*f%s, at step %lld; it has risen since, the model overfits. %s\n", out,
         words->digits + 1, r->best.loss, quality_text(r, &r->best, quality, sizeof quality), (long long)r->best.step,
         r->settings.keep_best ? "The model of that step is kept (--keep last keeps the last)."
                               : "The model of the last step is kept (--keep best keeps that one).");
}

/* Whether everything has been said that was to be said. */
static bool streams_written(const run *r) {
  int error = fflush(stdout) != 0 ? errno : 0;
  if (error && !progress_unread(error))
    return tool_fail("cannot write to the standard output: %s", strerror(error)), false;
  return !r->progress.error || progress_unread(r->progress.error);
}

static bool finish(run *r, const clm_train_status *s) {
  train_row *row = r->log.count ? &r->log.rows[r->log.count - 1] : NULL;
  if (row && row->step == s->step && isfinite(row->val_loss)) /* nothing was left to do, or it was due just now */
    r->last = (validation){s->step, row->val_loss, row->val_quality};
  if (r->last.step != s->step) {
    if ((!row || row->step != s->step) && !add_row(r, s)) return false;
    if (!folder_save(r)) return false; /* before what takes time: an interrupt may not have any */
    if (!validate(r, s) || !folder_keep(r, &r->last, on_schedule(r, s->step))) return false;
  }
  progress_end(&r->progress);
  clm_train_status end;
  if (clm_trainer_status(r->trainer, &end)) return train_fail(r);
  summarize(r, s, end.seconds);
  if (r->state_failed)
    return tool_fail("%s: trainer.safetensors could not be written: the model is whole, but --resume cannot go on "
                     "from step %lld",
                     r->settings.out, (long long)s->step),
           false;
  return streams_written(r);
}

static bool work(run *r) {
  const train_settings *settings = &r->settings;
  clm_train_status s;
  clm_device_info device;
  char text[1400];
  r->context = tool_context(NULL);
  if (!r->context || !train_settings_complete(r->context, &r->settings) || !settings->task->make(r)) return false;
  if (settings->resume && clm_trainer_resume(r->trainer, settings->out)) return train_fail(r);
  if (!folder_begin(r)) return false;
  if (clm_trainer_status(r->trainer, &s) || clm_context_device(r->context, &device)) return train_fail(r);
  r->last_step = s.step;
  r->start_tokens = s.tokens;
  r->start_seconds = s.seconds;
  if (settings->resume && !folder_resume(r, s.step, on_schedule)) return false;
  snprintf(text, sizeof text, "%s, on %s", r->about, device.name);
  progress_line(&r->progress, text);
  progress_wait(&r->progress, "the first steps");
  return train(r, &s) && finish(r, &s);
}

bool train_run(const train_settings *settings) {
  handle_signals();
  run r = {.settings = *settings,
           .begun = tool_seconds(),
           .log = {.words = &settings->task->words},
           .progress = progress_start(),
           .last = {.step = -1},
           .best = {.step = -1},
           .lock = -1,
           .model_step = -1};
  bool ok = work(&r);
  progress_end(&r.progress);
  folder_end(&r);
  clm_trainer_destroy(&r.trainer);
  settings->task->destroy(&r);
  clm_context_destroy(&r.context);
  train_log_free(&r.log);
  return ok;
}
