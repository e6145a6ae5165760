#include "common/csv.h"
#include "common/tool.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLANKS " \t\r"

void csv_free(csv_table *t) {
  text_free(&t->text);
  free(t->names);
  free(t->fields);
  free(t->lines);
  *t = (csv_table){0};
}

/* Zero-terminated, without the blanks around it. */
static char *trim(char *begin, char *end) {
  while (begin < end && strchr(BLANKS, *begin)) begin++;
  while (end > begin && strchr(BLANKS, end[-1])) end--;
  *end = '\0';
  return begin;
}

static size_t count_fields(const char *line, const char *end) {
  size_t n = 1;
  for (; line < end; line++) n += *line == ',';
  return n;
}

static void split(char *line, char *end, char **fields) {
  for (char *comma; (comma = memchr(line, ',', (size_t)(end - line))) != NULL; line = comma + 1)
    *fields++ = trim(line, comma);
  *fields = trim(line, end);
}

static bool is_blank(const char *line, const char *end) {
  while (line < end && strchr(BLANKS, *line)) line++;
  return line == end;
}

static bool check_names(const csv_table *t) {
  for (size_t i = 0; i < t->columns; i++) {
    if (!t->names[i][0]) return tool_fail("%s: column %zu has no name", t->path, i + 1), false;
    if (csv_column(t, t->names[i]) < i)
      return tool_fail("%s: two columns are called \"%.100s\"", t->path, t->names[i]), false;
  }
  return true;
}

/* Memory for every line to come: no more than there are line ends. */
static bool make_room(csv_table *t, const char *from, const char *end) {
  size_t lines = 1;
  for (; from < end; from++) lines += *from == '\n';
  if (lines > SIZE_MAX / sizeof *t->fields / t->columns) return false;
  t->fields = malloc(lines * t->columns * sizeof *t->fields);
  t->lines = malloc(lines * sizeof *t->lines);
  return t->fields && t->lines;
}

static bool take_header(csv_table *t, char *line, char *end, const char *file_end) {
  t->columns = count_fields(line, end);
  t->names = malloc(t->columns * sizeof *t->names);
  if (!t->names || !make_room(t, end, file_end)) return tool_fail("out of memory for %s", t->path), false;
  split(line, end, t->names);
  return check_names(t);
}

static bool take_row(csv_table *t, char *line, char *end, size_t number) {
  size_t fields = count_fields(line, end);
  if (fields != t->columns)
    return tool_fail("%s: line %zu has %zu fields, the header has %zu", t->path, number, fields, t->columns), false;
  split(line, end, t->fields + t->rows * t->columns);
  t->lines[t->rows++] = number;
  return true;
}

static bool take_lines(csv_table *t) {
  char *at = t->text.data, *end = at + t->text.bytes;
  if (t->text.bytes >= 3 && memcmp(at, "\xef\xbb\xbf", 3) == 0) at += 3; /* the mark that some programs write */
  for (size_t number = 1; at < end; number++) {
    char *line = at, *line_end = memchr(at, '\n', (size_t)(end - at));
    if (!line_end) line_end = end;
    at = line_end + 1;
    if (is_blank(line, line_end)) continue;
    if (!(t->names ? take_row(t, line, line_end, number) : take_header(t, line, line_end, end))) return false;
  }
  if (t->rows == 0) return tool_fail("%s has no rows below its header", t->path), false;
  return true;
}

bool csv_read(const char *path, csv_table *t) {
  *t = (csv_table){.path = path};
  if (!text_read(path, &t->text)) return false;
  char *longer = realloc(t->text.data, t->text.bytes + 1); /* for the zero behind the last field */
  bool ok = longer != NULL;
  if (ok) t->text.data = longer;
  else tool_fail("out of memory for %s", path);
  if (ok && memchr(t->text.data, '\0', t->text.bytes))
    ok = (tool_fail("%s is not text: it has a zero byte", path), false);
  if (ok && memchr(t->text.data, '"', t->text.bytes))
    ok = (tool_fail("%s has a quotation mark: fields without quotes are expected", path), false);
  ok = ok && take_lines(t);
  if (!ok) csv_free(t);
  return ok;
}

size_t csv_column(const csv_table *t, const char *name) {
  size_t i = 0;
  while (i < t->columns && strcmp(t->names[i], name) != 0) i++;
  return i;
}

const char *csv_field(const csv_table *t, size_t row, size_t column) { return t->fields[row * t->columns + column]; }

bool csv_number(const csv_table *t, size_t row, size_t column, float *value) {
  const char *field = csv_field(t, row, column);
  char *end = NULL;
  /* Neither names such as nan nor hexadecimal digits; strtod knows the C locale only, as no tool sets another. */
  bool good = field[0] && strspn(field, "+-.0123456789eE") == strlen(field);
  double number = good ? strtod(field, &end) : 0;
  *value = (float)number;
  if (good && *end == '\0' && isfinite(*value)) return true;
  return tool_fail("%s: line %zu, column \"%.60s\": \"%.40s\" is not a number", t->path, t->lines[row],
                   t->names[column], field),
         false;
}
