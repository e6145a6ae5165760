#include "core/json.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
  const char *name, *as_string;
  double value;
} non_finite[] = {{"NaN", "\"NaN\"", (double)NAN},
                  {"Infinity", "\"Infinity\"", (double)INFINITY},
                  {"-Infinity", "\"-Infinity\"", (double)-INFINITY}};
enum { IS_NAN, IS_INFINITY, IS_MINUS_INFINITY, NON_FINITE };

/* ---- From Python's JSON to the standard's ---- */

/* A walk over `text` that copies it to `out`, which has room for twice as much. */
typedef struct rewriter {
  const char *at, *end;
  char *out;
  bool surrogates; /* to be replaced */
  bool changed;
} rewriter;

static void copy(rewriter *w, size_t bytes) {
  memcpy(w->out, w->at, bytes);
  w->out += bytes;
  w->at += bytes;
}

static void replace(rewriter *w, size_t bytes, const char *by) {
  w->out = stpcpy(w->out, by);
  w->at += bytes;
  w->changed = true;
}

static bool begins_with(const rewriter *w, const char *text) {
  const size_t bytes = strlen(text);
  return (size_t)(w->end - w->at) >= bytes && memcmp(w->at, text, bytes) == 0;
}

/* The code of \uXXXX at `at`, -1 for anything else. */
static long escaped_code(const char *at, const char *end) {
  char digits[5] = {0}, *stop;
  if (end - at < 6 || at[0] != '\\' || at[1] != 'u') return -1;
  memcpy(digits, at + 2, 4);
  const long code = strtol(digits, &stop, 16);
  return stop == digits + 4 && strspn(digits, "0123456789abcdefABCDEF") == 4 ? code : -1;
}

static void rewrite_escape(rewriter *w) {
  const long code = escaped_code(w->at, w->end);
  if (code < 0xd800 || code > 0xdfff) {
    copy(w, w->end - w->at < 2 ? 1 : 2);
    return;
  }
  const long partner = escaped_code(w->at + 6, w->end);
  if (code < 0xdc00 && partner >= 0xdc00 && partner <= 0xdfff) copy(w, 12);
  else if (w->surrogates) replace(w, 6, "\\ufffd");
  else copy(w, 6);
}

static void rewrite_string(rewriter *w) {
  copy(w, 1);
  while (w->at < w->end && *w->at != '"')
    if (*w->at == '\\') rewrite_escape(w);
    else copy(w, 1);
  if (w->at < w->end) copy(w, 1);
}

static bool is_too_large(const char *number, size_t bytes) {
  json_error_t error;
  json_t *json = json_loadb(number, bytes, JSON_DECODE_ANY, &error);
  const bool too_large = !json && json_error_code(&error) == json_error_numeric_overflow;
  json_decref(json);
  return too_large;
}

/* An integer of more than 64 bits with ".0" after it is a real number, unless it is too large for that too. */
static void rewrite_number(rewriter *w) {
  static const char digits[] = "0123456789.eE+-";
  size_t bytes = 1;
  while (w->at + bytes < w->end && memchr(digits, w->at[bytes], sizeof digits - 1)) bytes++;
  const char *number = w->at;
  copy(w, bytes);
  if (!is_too_large(number, bytes)) return;
  w->changed = true;
  memcpy(w->out, ".0", 2);
  const bool whole = !memchr(number, '.', bytes) && !memchr(number, 'e', bytes) && !memchr(number, 'E', bytes);
  if (whole && !is_too_large(w->out - bytes, bytes + 2)) w->out += 2;
  else w->out = stpcpy(w->out - bytes, non_finite[*number == '-' ? IS_MINUS_INFINITY : IS_INFINITY].as_string);
}

static void rewrite(rewriter *w) {
  while (w->at < w->end) {
    int which = 0;
    while (which < NON_FINITE && !begins_with(w, non_finite[which].name)) which++;
    if (which < NON_FINITE) replace(w, strlen(non_finite[which].name), non_finite[which].as_string);
    else if (*w->at == '"') rewrite_string(w);
    else if (*w->at == '-' || (*w->at >= '0' && *w->at <= '9')) rewrite_number(w);
    else copy(w, 1);
  }
}

json_t *json_parse(const char *text, size_t bytes, json_rules rules, json_error_t *error) {
  const size_t flags = JSON_DECODE_ANY | (rules == JSON_EXACT ? JSON_REJECT_DUPLICATES : JSON_ALLOW_NUL);
  json_t *json = json_loadb(text, bytes, flags, error);
  char *out = json ? NULL : malloc(2 * bytes + 16);
  if (!out) return json;
  rewriter w = {.at = text, .end = text + bytes, .out = out, .surrogates = rules == JSON_PYTHON};
  rewrite(&w);
  if (w.changed) json = json_loadb(out, (size_t)(w.out - out), flags, error);
  free(out);
  return json;
}

bool json_to_double(const json_t *value, double *number) {
  if (json_is_object(value)) value = json_object_get(value, "__float__");
  if (json_is_number(value)) {
    *number = json_number_value(value);
    return true;
  }
  const char *name = json_string_value(value);
  for (int i = 0; name && i < NON_FINITE; i++)
    if (strcmp(name, non_finite[i].name) == 0) {
      *number = non_finite[i].value;
      return true;
    }
  return false;
}
