#include "common/train_log.h"
#include "common/output.h"
#include "common/plot.h"
#include "common/tool.h"
#include <ctype.h>
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

/* The number at *text, NaN if the field is empty; moves past the comma or the end of the line. */
static double field(const char **text, bool *ok) {
  char *end;
  double value = strtod(*text, &end);
  if (end == *text) value = (double)NAN;
  *ok = *ok && (*end == ',' || *end == '\n');
  *text = *end ? end + 1 : end;
  return value;
}

bool train_log_read(train_log *log, const char *path, int64_t last_step) {
  char line[256], first[256];
  header(log->words, first, sizeof first);
  FILE *f = fopen(path, "r");
  bool ok = f && fgets(line, sizeof line, f) && strcmp(line, first) == 0, added = true;
  while (ok && added && fgets(line, sizeof line, f)) {
    const char *at = line;
    double values[7] = {[6] = (double)NAN};
    for (int i = 0; i < (log->words->quality ? 7 : 6); i++) values[i] = field(&at, &ok);
    ok = ok && values[0] <= (double)last_step;
    if (ok)
      added = train_log_add(log, (train_row){(int64_t)values[0], (int64_t)values[1], values[2], values[3], values[4],
                                             values[5], values[6]});
  }
  if (f) fclose(f);
  return added;
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
