/* The folder of a run: made, locked, filled, and taken back of a run that came to nothing. */
#include "common/text.h"
#include "common/tool.h"
#include "train/train.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODEL "model.safetensors"
/* While an interrupted run waits to be resumed: the best model on schedule, where that of the interrupt was better. A
 * run in parts then ends with the same model as an unbroken one. */
#define SCHEDULED "scheduled.safetensors"

/* ---- Begin, undo ---- */

/* Two runs in one folder would write over each other's files. */
static bool lock(run *r) {
  r->lock = open(r->settings.out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (r->lock < 0) return tool_fail("cannot open %s: %s", r->settings.out, strerror(errno)), false;
  if (flock(r->lock, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return true; /* not every file system can */
  return tool_fail("another mamba-train is at work in %s", r->settings.out), false;
}

/* What a run that was killed while it wrote has left. */
static void remove_partial_files(const run *r) {
  static const char ending[] = ".partial";
  DIR *folder = opendir(r->settings.out);
  for (struct dirent *e; folder && (e = readdir(folder)) != NULL;) {
    size_t length = strlen(e->d_name);
    if (length >= sizeof ending && strcmp(e->d_name + length - (sizeof ending - 1), ending) == 0)
      unlink(text_path(r->settings.out, e->d_name));
  }
  if (folder) closedir(folder);
}

bool folder_begin(run *r) {
  if (mkdir(r->settings.out, 0777) == 0) r->made_folder = true;
  else if (errno != EEXIST) return tool_fail("cannot create %s: %s", r->settings.out, strerror(errno)), false;
  if (!lock(r)) return false;
  r->new_files = !r->settings.resume;
  remove_partial_files(r);
  return true;
}

void folder_end(run *r) {
  static const char *const names[] = {
      "tokenizer.json", "tokenizer_config.json", "config.json", MODEL, "trainer.safetensors", "train.csv",
      "loss.svg"};
  if (r->new_files && !r->saved)
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unlink(text_path(r->settings.out, names[i]));
  if (r->made_folder && !r->saved) rmdir(r->settings.out);
  if (r->lock >= 0) close(r->lock);
}

/* ---- The log ---- */

/* A log that is damaged is kept under another name: the rows after the damage may be worth something. */
static bool put_aside(run *r, size_t line) {
  char path[4096], aside[4200], text[4400];
  snprintf(path, sizeof path, "%s", text_path(r->settings.out, "train.csv"));
  for (int i = 1; i <= 1000; i++) {
    snprintf(aside, sizeof aside, "%s.damaged-%d", path, i);
    if (link(path, aside) == 0) {
      snprintf(text, sizeof text,
               "%.1000s: line %zu is damaged; the file is kept as %.1000s, the rows before it go on", path, line,
               aside);
      progress_line(&r->progress, text);
      return true;
    }
    if (errno != EEXIST) break;
  }
  return tool_fail("%s: line %zu is damaged, and it cannot be kept as %s: %s", path, line, aside, strerror(errno)),
         false;
}

static bool write_log(const run *r) {
  const train_settings *s = &r->settings;
  clm_device_info device;
  char date[11], title[300], run_text[300], length[40] = "";
  if (clm_context_device(r->context, &device)) return train_fail(r);
  tool_date(date);
  if (s->options.length) snprintf(length, sizeof length, " x %lld", (long long)s->options.length);
  snprintf(title, sizeof title, "%.80s: %.160s", s->out, r->about);
  snprintf(run_text, sizeof run_text, "batch %lld%s, f32, %s, %s", (long long)s->options.batch, length, device.name,
           date);
  return train_log_write_csv(&r->log, text_path(s->out, "train.csv")) &&
         train_log_write_svg(&r->log, text_path(s->out, "loss.svg"), title, run_text);
}

/* ---- Checkpoints ---- */

static bool save_model(run *r) {
  if (!r->settings.task->save_model(r)) return false;
  r->saved = true;
  r->model_step = r->last_step;
  return true;
}

/* A model without a trainer is worth having: where there is no room for the trainer's file, which is three times as
 * large, the run goes on, and says at its end that it cannot be resumed. */
static void save_state(run *r) {
  r->state_failed = clm_trainer_save_state(r->trainer, r->settings.out) != CLM_OK;
  if (!r->state_failed) return;
  char text[700];
  snprintf(text, sizeof text, "%.500s: the model is kept, but the run cannot be resumed from here",
           clm_context_error(r->context));
  progress_line(&r->progress, text);
}

/* The log goes first, so that no checkpoint lacks its rows. A first model goes before the trainer, so that where
 * there is a trainer there is a model; later ones after it, since folder_resume makes of a trainer the model that
 * could not be saved any more. */
bool folder_save(run *r) {
  if (!write_log(r) || (!r->saved && !save_model(r))) return false;
  save_state(r);
  return r->settings.keep_best || r->model_step == r->last_step || save_model(r);
}

/* Keeps the best model on schedule, which one that is better, but not on schedule, takes the place of. */
static bool put_scheduled_aside(const run *r) {
  char model[4096];
  snprintf(model, sizeof model, "%s", text_path(r->settings.out, MODEL));
  const char *aside = text_path(r->settings.out, SCHEDULED);
  return (unlink(aside) == 0 || errno == ENOENT) && link(model, aside) == 0;
}

bool folder_keep(run *r, const validation *v, bool on_schedule) {
  bool better = r->best.step < 0 || v->loss < r->best.loss;
  bool first = r->best.step < 0;
  if (better && on_schedule) r->best = *v;
  if (!write_log(r)) return false;
  if (!better || r->model_step == v->step) return true;
  if (!on_schedule && !first && !put_scheduled_aside(r)) return true; /* it cannot be replaced, so it stays */
  return save_model(r);
}

bool folder_resume(run *r, int64_t step, bool (*counts)(const run *, int64_t step)) {
  size_t damaged;
  if (!train_log_read(&r->log, text_path(r->settings.out, "train.csv"), step, &damaged)) return false;
  if (damaged && !put_aside(r, damaged)) return false;
  for (size_t i = 0; i < r->log.count; i++) {
    const train_row *row = &r->log.rows[i];
    if (isfinite(row->val_loss) && counts(r, row->step) && (r->best.step < 0 || row->val_loss < r->best.loss))
      r->best = (validation){row->step, row->val_loss, row->val_quality};
  }
  r->saved = true;
  r->model_step = r->best.step;
  char model[4096];
  snprintf(model, sizeof model, "%s", text_path(r->settings.out, MODEL));
  const char *aside = text_path(r->settings.out, SCHEDULED);
  if ((r->settings.new_length ? unlink(aside) : rename(aside, model)) != 0 && errno != ENOENT)
    return tool_fail("cannot write %s: %s", model, strerror(errno)), false;
  /* The weights are those of the trainer: what was to be kept, and may not have been any more. */
  return (r->settings.keep_best && r->best.step != step) || save_model(r);
}
