#include "common/table.h"
#include "common/tool.h"
#include <csv.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BLANKS " \t\r"

void table_free(table *t) {
  text_free(&t->text);
  free(t->names);
  free(t->fields);
  free(t->lines);
  *t = (table){0};
}

size_t table_column(const table *t, const char *name) {
  size_t i = 0;
  while (i < t->columns && strcmp(t->names[i], name) != 0) i++;
  return i;
}

bool table_is_nameless(const char *name) {
  static const char pandas[] = "Unnamed: "; /* and a number: what it makes of "" when it writes such a table again */
  if (!name[0]) return true;
  return strncmp(name, pandas, sizeof pandas - 1) == 0 && name[sizeof pandas - 1] &&
         strspn(name + sizeof pandas - 1, "0123456789") == strlen(name + sizeof pandas - 1);
}

const char *table_field(const table *t, size_t row, size_t column) { return t->fields[row * t->columns + column]; }

/* ---- Reading: the parser is fed a line at a time, and its fields are kept in the text, whose place it has read ----
 */

typedef struct reader {
  table *t;
  char *out;             /* where the next field goes                  */
  size_t line, row_line; /* the one being read; where the row began    */
  size_t column;         /* of the next field                          */
  size_t room;           /* rows that fields and lines have memory for */
  bool header, ended, failed;
} reader;

static void fail_memory(reader *r) {
  tool_fail("out of memory for %s", r->t->path);
  r->failed = true;
}

/* One more than `count` in a list whose memory doubles. */
static void *grow(void *list, size_t count, size_t *room, size_t size) {
  if (count < *room) return list;
  size_t more = *room ? 2 * *room : 64;
  if (more > SIZE_MAX / 2 / size) return NULL;
  void *larger = realloc(list, more * size);
  if (larger) *room = more;
  return larger;
}

static void add_name(reader *r, char *name) {
  char **names = grow(r->t->names, r->t->columns, &r->room, sizeof *names);
  if (!names) {
    fail_memory(r);
    return;
  }
  r->t->names = names;
  names[r->t->columns++] = name;
}

static bool make_room_for_row(reader *r) {
  table *t = r->t;
  size_t room = r->room;
  if (t->columns > SIZE_MAX / 4 / sizeof *t->fields) return false;
  char **fields = grow(t->fields, t->rows, &room, t->columns * sizeof *fields);
  if (!fields) return false;
  t->fields = fields;
  size_t *lines = grow(t->lines, t->rows, &r->room, sizeof *lines);
  if (!lines) return false;
  t->lines = lines;
  return true;
}

static void take_field(void *bytes, size_t count, void *data) {
  reader *r = data;
  if (r->failed) return;
  char *field = r->out;
  memmove(field, bytes, count);
  field[count] = '\0'; /* in the place of the comma, the line end or the byte after the text */
  r->out += count + 1;
  if (r->header) {
    add_name(r, field);
  } else if (r->column == 0 && !make_room_for_row(r)) {
    fail_memory(r);
  } else if (r->column < r->t->columns) {
    r->t->fields[r->t->rows * r->t->columns + r->column] = field;
  }
  r->column++;
}

static void end_header(reader *r) {
  const table *t = r->t;
  r->header = false;
  r->room = 0;
  for (size_t i = 0; i < t->columns && !r->failed; i++)
    if (t->names[i][0] && table_column(t, t->names[i]) < i) {
      tool_fail("%s: two columns are called \"%.100s\"", t->path, t->names[i]);
      r->failed = true;
    }
}

static void end_row(reader *r) {
  table *t = r->t;
  if (r->column != t->columns) {
    tool_fail("%s: line %zu has %zu fields, the header has %zu", t->path, r->row_line, r->column, t->columns);
    r->failed = true;
  } else t->lines[t->rows++] = r->row_line;
}

static void take_end(int terminator, void *data) {
  (void)terminator;
  reader *r = data;
  r->ended = true;
  if (r->failed) return;
  if (r->header) end_header(r);
  else end_row(r);
  r->column = 0;
}

static bool is_blank(const char *line, const char *end) {
  while (line < end && strchr(BLANKS "\n", *line)) line++;
  return line == end;
}

static void feed(reader *r, struct csv_parser *parser) {
  char *at = r->t->text.data, *end = at + r->t->text.bytes;
  bool open = false; /* a row goes on: a quoted field has line ends */
  if (r->t->text.bytes >= 3 && memcmp(at, "\xef\xbb\xbf", 3) == 0) at += 3; /* the mark that some programs write */
  for (char *next; at < end && !r->failed; at = next) {
    char *newline = memchr(at, '\n', (size_t)(end - at));
    next = newline ? newline + 1 : end;
    r->line++;
    if (!open) r->row_line = r->line;
    bool begun = open || !is_blank(at, next);
    r->ended = false;
    if (csv_parse(parser, at, (size_t)(next - at), take_field, take_end, r) != (size_t)(next - at)) fail_memory(r);
    open = begun && !r->ended;
  }
}

static bool take_lines(table *t) {
  struct csv_parser parser;
  reader r = {.t = t, .out = t->text.data, .header = true};
  if (csv_init(&parser, 0) != 0) return tool_fail("out of memory for %s", t->path), false;
  feed(&r, &parser);
  /* Strict at the end only: a quotation mark within a field is one, as in Python's csv, but quotes must be closed. */
  csv_set_opts(&parser, CSV_STRICT | CSV_STRICT_FINI);
  if (!r.failed && csv_fini(&parser, take_field, take_end, &r) != 0) {
    if (csv_error(&parser) == CSV_EPARSE)
      tool_fail("%s: the row of line %zu has a quoted field that does not end", t->path, r.row_line);
    else tool_fail("out of memory for %s", t->path);
    r.failed = true;
  }
  csv_free(&parser);
  if (!r.failed && t->rows == 0) {
    tool_fail("%s has no rows below its header", t->path);
    r.failed = true;
  }
  return !r.failed;
}

bool table_read(const char *path, table *t) {
  *t = (table){.path = path};
  if (!text_read(path, &t->text)) return false;
  char *longer = realloc(t->text.data, t->text.bytes + 1); /* for the zero after the last field */
  bool ok = longer != NULL;
  if (ok) t->text.data = longer;
  else tool_fail("out of memory for %s", path);
  if (ok && memchr(t->text.data, '\0', t->text.bytes))
    ok = (tool_fail("%s is not text: it has a zero byte", path), false);
  ok = ok && take_lines(t);
  if (!ok) table_free(t);
  return ok;
}

/* ---- Numbers ---- */

bool table_is_number(const char *field, float *value) {
  static const struct {
    const char *text;
    float value;
  } truths[] = {{"True", 1}, {"False", 0}, {"TRUE", 1}, {"FALSE", 0}, {"true", 1}, {"false", 0}};
  for (size_t i = 0; i < sizeof truths / sizeof *truths; i++)
    if (strcmp(field, truths[i].text) == 0) return *value = truths[i].value, true;
  char *end = NULL;
  /* Neither names such as nan nor hexadecimal digits; strtod knows the C locale only, as no tool sets another. */
  bool good = field[0] && strspn(field, "+-.0123456789eE") == strlen(field);
  double number = good ? strtod(field, &end) : 0;
  *value = (float)number;
  return good && *end == '\0' && isfinite(*value);
}

bool table_number(const table *t, size_t row, size_t column, float *value) {
  const char *field = table_field(t, row, column);
  if (table_is_number(field, value)) return true;
  return tool_fail("%s: line %zu, column \"%.60s\": \"%.40s\" is not a number", t->path, t->lines[row],
                   t->names[column], field),
         false;
}
