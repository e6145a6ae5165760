#include "common/train_log.h"
#include "common/output.h"
#include "common/plot.h"
#include "common/tool.h"
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "step,tokens,seconds,learning_rate,train_loss,val_loss", and "val_r2" where there is such a thing */
static void header(const train_words *w, char *text, size_t size) {
  int n = snprintf(text, size, "step,%s,seconds,learning_rate,train_loss,val_loss", w->unit);
  if (w->quality) n += snprintf(text + n, size - (size_t)n, ",val_%s", w->quality);
  for (char *c = text; *c; c++) *c = (char)tolower((unsigned char)*c);
  snprintf(text + n, size - (size_t)n, "\n");
}

bool train_log_add(train_log *log, train_row row) {
  if (log->count == log->capacity) {
    size_t capacity = log->capacity ? 2 * log->capacity : 128;
    train_row *larger = realloc(log->rows, capacity * sizeof *larger);
    if (!larger) return false;
    log->rows = larger;
    log->capacity = capacity;
  }
  log->rows[log->count++] = row;
  return true;
}

void train_log_free(train_log *log) {
  free(log->rows);
  *log = (train_log){.words = log->words};
}

/* A line of numbers of which each may be missing (NaN); false: it is not such a line. */
static bool read_numbers(const char *line, double *values, int count) {
  for (int i = 0; i < count; i++) {
    char *end;
    values[i] = strtod(line, &end);
    if (end == line) values[i] = (double)NAN;
    if (i + 1 == count) return strcmp(end, "\n") == 0 || strcmp(end, "\r\n") == 0;
    if (*end != ',') return false;
    line = end + 1;
  }
  return false;
}

static bool read_rows(train_log *log, FILE *f, int64_t last_step, size_t *damaged) {
  char line[256], first[256];
  header(log->words, first, sizeof first);
  const int count = log->words->quality ? 7 : 6;
  for (size_t number = 1; fgets(line, sizeof line, f); number++) {
    double v[7] = {[6] = (double)NAN};
    bool good = number > 1 ? read_numbers(line, v, count) && isfinite(v[0]) && isfinite(v[1])
                           : strncmp(line, first, strlen(first) - 1) == 0;
    if (!good) return *damaged = number, true;
    if (number == 1) continue;
    if (v[0] > (double)last_step) break; /* written before a checkpoint that never came */
    if (!train_log_add(log, (train_row){(int64_t)v[0], (int64_t)v[1], v[2], v[3], v[4], v[5], v[6]}))
      return tool_fail("out of memory"), false;
  }
  return true;
}

bool train_log_read(train_log *log, const char *path, int64_t last_step, size_t *damaged) {
  *damaged = 0;
  FILE *f = fopen(path, "r");
  if (!f && errno == ENOENT) return true;
  bool ok = f && read_rows(log, f, last_step, damaged);
  if (!f || ferror(f)) ok = (tool_fail("cannot read %s: %s", path, strerror(errno)), false);
  if (f) fclose(f);
  return ok;
}

static void put_loss(FILE *f, double loss, const char *after) {
  if (isfinite(loss)) fprintf(f, "%.6f", loss);
  fputs(after, f);
}

static void put_csv(FILE *f, const train_log *log) {
  char first[256];
  header(log->words, first, sizeof first);
  fputs(first, f);
  for (size_t i = 0; i < log->count; i++) {
    const train_row *r = &log->rows[i];
    fprintf(f, "%lld,%lld,%.3f,%.6g,", (long long)r->step, (long long)r->tokens, r->seconds, r->learning_rate);
    put_loss(f, r->train_loss, ",");
    put_loss(f, r->val_loss, log->words->quality ? "," : "\n");
    if (log->words->quality) put_loss(f, r->val_quality, "\n");
  }
}

bool train_log_write_csv(const train_log *log, const char *path) {
  output o;
  if (!output_open(&o, path)) return false;
  put_csv(o.stream, log);
  return output_close(&o, true);
}

bool train_log_write_svg(const train_log *log, const char *path, const char *title, const char *subtitle) {
  double *columns = malloc((3 * log->count + 1) * sizeof *columns);
  if (!columns) return tool_fail("out of memory for %s", path), false;
  double *tokens = columns, *train = columns + log->count, *val = columns + 2 * log->count;
  for (size_t i = 0; i < log->count; i++) {
    tokens[i] = (double)log->rows[i].tokens / 1e6;
    train[i] = log->rows[i].train_loss;
    val[i] = log->rows[i].val_loss;
  }
  char x_label[60], y_label[80];
  snprintf(x_label, sizeof x_label, "%s seen (millions)", log->words->unit);
  snprintf(y_label, sizeof y_label, "loss (%s)", log->words->loss);
  const plot_series series[] = {{"training", tokens, train, log->count, .markers = log->count == 1},
                                {"validation", tokens, val, log->count, .markers = true}};
  const plot p = {title, subtitle, x_label, y_label, PLOT_LINEAR, PLOT_AUTO, series, 2};
  bool ok = plot_write(&p, path);
  free(columns);
  return ok;
}
