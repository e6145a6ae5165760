/* One row a frame. Rows that follow each other with the same text in the column "sequence" are a sequence; without
 * that column all rows are one. Targets are columns too: numbers, or one column of classes, whatever their names. */
#include "common/dataset.h"
#include "common/table.h"
#include "common/tool.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEQUENCE "sequence"

typedef enum role { UNUSED, FEATURE, TARGET, GROUP } role;

typedef struct reading {
  const dataset_request *request;
  table table;
  role *roles;                               /* (columns) */
  size_t *targets;                           /* columns, in the order they were named */
  size_t target_count, feature_count, group; /* group: `columns` if there is none */
} reading;

/* Columns of a list of names get a role; `order` NULL, or receives them. */
static bool name_columns(reading *r, const char *option, const char *list, role as, size_t *order, size_t *count) {
  for (const char *at = list; *at;) {
    size_t length = strcspn(at, ",");
    char *name = strndup(at, length);
    if (!name) return tool_fail("out of memory for %s", r->table.path), false;
    size_t column = table_column(&r->table, name);
    bool known = column < r->table.columns, free_yet = known && r->roles[column] == UNUSED;
    if (!known) tool_fail("%s %s: %s has no such column", option, name, r->table.path);
    else if (!free_yet) tool_fail("%s %s: the column is in use already", option, name);
    free(name);
    if (!free_yet) return false;
    r->roles[column] = as;
    if (order) order[*count] = column;
    ++*count;
    at += length + (at[length] == ',');
  }
  return *count > 0 || (tool_fail("%s names no column", option), false);
}

/* A column of texts. One with a number here and there is not: what is wrong with the others is said. */
static bool has_numbers(const table *t, size_t column) {
  float value;
  for (size_t row = 0; row < t->rows; row++)
    if (table_is_number(table_field(t, row, column), &value)) return true;
  return false;
}

/* "notes.csv: left out: column 1 (no name), colour (no numbers); --features names the columns to learn from" */
static void leave_out(const reading *r, dataset *d, size_t column, bool nameless) {
  size_t used = strlen(d->note), size = sizeof d->note;
  if (!used) used = (size_t)snprintf(d->note, size, "%.120s: left out", r->table.path);
  if (used + 140 > size) return; /* enough of them named */
  char number[32];
  snprintf(number, sizeof number, "column %zu", column + 1);
  snprintf(d->note + used, size - used, "%s %.60s (no %s)", strchr(d->note, '(') ? "," : ":",
           nameless ? number : r->table.names[column], nameless ? "name" : "numbers");
}

/* Every other column that has a name and numbers. */
static void choose_features(reading *r, dataset *d) {
  const table *t = &r->table;
  for (size_t i = 0; i < t->columns; i++) {
    if (r->roles[i] != UNUSED) continue;
    bool nameless = table_is_nameless(t->names[i]);
    if (nameless || !has_numbers(t, i)) leave_out(r, d, i, nameless);
    else r->roles[i] = FEATURE, r->feature_count++;
  }
  size_t used = strlen(d->note);
  if (used) snprintf(d->note + used, sizeof d->note - used, "; --features names the columns to learn from");
}

static bool assign_roles(reading *r, dataset *d) {
  const dataset_request *q = r->request;
  table *t = &r->table;
  r->roles = dataset_memory(q, (int64_t)t->columns, sizeof *r->roles);
  r->targets = dataset_memory(q, (int64_t)t->columns, sizeof *r->targets);
  if (!r->roles || !r->targets) return false;
  r->group = table_column(t, SEQUENCE);
  if (r->group < t->columns) r->roles[r->group] = GROUP;
  if (q->target && !name_columns(r, "--target", q->target, TARGET, r->targets, &r->target_count)) return false;
  if (q->task == CLM_TASK_CLASSIFICATION && r->target_count > 1)
    return tool_fail("--target names %zu columns, the classes are in one", r->target_count), false;
  if (q->features) return name_columns(r, "--features", q->features, FEATURE, NULL, &r->feature_count);
  choose_features(r, d);
  return r->feature_count > 0 || (tool_fail("%s has no columns of numbers besides the targets", t->path), false);
}

static int compare_texts(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Sequences by their names; a name that comes back would be two sequences, or rows out of order. */
static bool check_names(const reading *r, const char **names, size_t count) {
  qsort(names, count, sizeof *names, compare_texts);
  for (size_t i = 1; i < count; i++)
    if (strcmp(names[i - 1], names[i]) == 0)
      return tool_fail("%s: sequence \"%.60s\" comes back after another one: its rows must follow each other",
                       r->table.path, names[i]),
             false;
  return true;
}

static bool group_rows(const reading *r, dataset *d) {
  const table *t = &r->table;
  d->length_memory = dataset_memory(r->request, (int64_t)t->rows, sizeof *d->length_memory);
  const char **names = dataset_memory(r->request, (int64_t)t->rows, sizeof *names);
  bool ok = d->length_memory && names, grouped = r->group < t->columns;
  int64_t count = 0;
  for (size_t row = 0; ok && row < t->rows; row++) {
    const char *name = grouped ? table_field(t, row, r->group) : "";
    if (count == 0 || strcmp(names[count - 1], name) != 0) names[count++] = name;
    d->length_memory[count - 1]++;
  }
  ok = ok && check_names(r, names, (size_t)count);
  free(names);
  d->sequences.count = count;
  d->sequences.lengths = d->length_memory;
  d->frames = (int64_t)t->rows;
  return ok;
}

static bool read_features(const reading *r, dataset *d) {
  const table *t = &r->table;
  float *out = d->frame_memory = dataset_memory(r->request, (int64_t)(t->rows * r->feature_count), sizeof *out);
  d->embed_dim = (int64_t)r->feature_count;
  for (size_t row = 0; out && row < t->rows; row++)
    for (size_t column = 0; column < t->columns; column++)
      if (r->roles[column] == FEATURE && !table_number(t, row, column, out++)) return false;
  return out != NULL;
}

/* ---- Targets: of every row, or of the last row of each sequence ---- */

/* The row of target i: advances *row past the sequences' ends. */
static size_t target_row(const dataset *d, int64_t i, size_t *end) {
  if (d->output == CLM_OUTPUT_EVERY) return (size_t)i;
  *end += (size_t)d->length_memory[i];
  return *end - 1;
}

static int64_t target_rows(const dataset *d) {
  return d->output == CLM_OUTPUT_EVERY ? d->frames : d->sequences.count;
}

static bool read_numbers(const reading *r, dataset *d) {
  const int64_t rows = target_rows(d), width = (int64_t)r->target_count;
  size_t end = 0;
  float *out = d->target_memory = dataset_memory(r->request, rows * width, sizeof *out);
  d->names = dataset_memory(r->request, width, sizeof *d->names);
  d->n_outputs = width;
  if (!out || !d->names) return false;
  for (int64_t k = 0; k < width; k++)
    if (!(d->names[k] = strdup(r->table.names[r->targets[k]])))
      return tool_fail("out of memory for %s", r->table.path), false;
  for (int64_t i = 0; i < rows; i++) {
    size_t row = target_row(d, i, &end);
    for (int64_t k = 0; k < width; k++)
      if (!table_number(&r->table, row, r->targets[k], out++)) return false;
  }
  return true;
}

static bool is_whole(const char *text) {
  text += *text == '-';
  return *text && strlen(text) < 18 && strspn(text, "0123456789") == strlen(text);
}

static int compare_numbers(const void *a, const void *b) {
  long long x = atoll(*(char *const *)a), y = atoll(*(char *const *)b);
  return x != y ? (x < y ? -1 : 1) : compare_texts(a, b);
}

typedef int (*compare_fn)(const void *, const void *);

/* The different texts of `count`, sorted: as numbers if all are whole. Returns how many. */
static size_t distinct(char **texts, size_t count, compare_fn *compare) {
  bool whole = true;
  for (size_t i = 0; i < count; i++) whole = whole && is_whole(texts[i]);
  *compare = whole ? compare_numbers : compare_texts;
  qsort(texts, count, sizeof *texts, *compare);
  size_t n = 0;
  for (size_t i = 0; i < count; i++)
    if (n == 0 || strcmp(texts[n - 1], texts[i]) != 0) texts[n++] = texts[i];
  return n;
}

/* The classes: those of the model that is there, in its order, else all that occur. */
static bool make_classes(const reading *r, dataset *d, char **texts, size_t count, compare_fn *compare) {
  const clm_backbone *known = r->request->known;
  size_t n = known ? (size_t)clm_backbone_output_size(known) : distinct(texts, count, compare);
  if (n > DATASET_MAX_CLASSES)
    return tool_fail("%s: column \"%.60s\" has %zu different classes, at most %d are expected", r->table.path,
                     r->table.names[r->targets[0]], n, DATASET_MAX_CLASSES),
           false;
  if (known && !clm_backbone_name(known, 0)) return tool_fail("the model's classes have no names"), false;
  d->names = dataset_memory(r->request, (int64_t)n, sizeof *d->names);
  d->n_outputs = (int64_t)n;
  for (size_t i = 0; d->names && i < n; i++)
    if (!(d->names[i] = strdup(known ? clm_backbone_name(known, (int64_t)i) : texts[i])))
      return tool_fail("out of memory for %s", r->table.path), false;
  return d->names != NULL;
}

/* -1: the data have no such class. */
static int32_t find_class(const dataset *d, const char *text, compare_fn compare) {
  if (compare) {
    char **found = bsearch(&text, d->names, (size_t)d->n_outputs, sizeof *d->names, compare);
    return found ? (int32_t)(found - d->names) : -1;
  }
  for (int64_t i = 0; i < d->n_outputs; i++)
    if (strcmp(d->names[i], text) == 0) return (int32_t)i;
  return -1;
}

/* Not learnt: the label that PyTorch's losses ignore by default. */
static bool is_ignored(const char *text) { return strcmp(text, "-100") == 0; }

static bool number_classes(const reading *r, dataset *d, char **texts) {
  const int64_t rows = target_rows(d);
  const size_t column = r->targets[0];
  compare_fn compare = NULL;
  size_t end = 0, count = 0;
  for (int64_t i = 0; i < rows; i++) {
    const char *text = table_field(&r->table, target_row(d, i, &end), column);
    if (!is_ignored(text)) texts[count++] = (char *)(uintptr_t)text;
  }
  if (count == 0) return tool_fail("%s has no class: all are -100", r->table.path), false;
  if (!make_classes(r, d, texts, count, &compare)) return false;
  end = 0;
  for (int64_t i = 0; i < rows; i++) {
    size_t row = target_row(d, i, &end);
    const char *text = table_field(&r->table, row, column);
    d->class_memory[i] = is_ignored(text) ? -1 : find_class(d, text, compare);
    if (!text[0]) return tool_fail("%s: line %zu has no class", r->table.path, r->table.lines[row]), false;
    if (d->class_memory[i] < 0 && !is_ignored(text))
      return tool_fail("%s: line %zu: \"%.60s\" is not a class of the model", r->table.path, r->table.lines[row],
                       text),
             false;
  }
  return true;
}

static bool read_classes(const reading *r, dataset *d) {
  char **texts = dataset_memory(r->request, target_rows(d), sizeof *texts);
  d->class_memory = dataset_memory(r->request, target_rows(d), sizeof *d->class_memory);
  bool ok = texts && d->class_memory && number_classes(r, d, texts);
  free(texts);
  return ok;
}

static bool read_targets(const reading *r, dataset *d) {
  if (r->request->frames_only) return true;
  return r->request->task == CLM_TASK_CLASSIFICATION ? read_classes(r, d) : read_numbers(r, d);
}

bool dataset_read_csv(const dataset_request *request, dataset *d) {
  reading r = {.request = request};
  if (request->targets)
    return tool_fail("--targets is for npy arrays: the targets of %s are columns", request->data), false;
  if (!request->target && !request->frames_only)
    return tool_fail("--target NAME is missing: which columns of %s are to be learnt", request->data), false;
  if (!table_read(request->data, &r.table)) return false;
  d->output = request->output < 0 ? CLM_OUTPUT_EVERY : (clm_backbone_output)request->output;
  bool ok = assign_roles(&r, d) && group_rows(&r, d) && read_features(&r, d) && read_targets(&r, d);
  free(r.roles);
  free(r.targets);
  table_free(&r.table);
  return ok;
}
