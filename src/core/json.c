#include "core/json.h"
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static const struct {
  const char *name;
  double value;
} non_finite[] = {{"NaN", (double)NAN}, {"Infinity", (double)INFINITY}, {"-Infinity", (double)-INFINITY}};
enum { IS_NAN, IS_INFINITY, IS_MINUS_INFINITY, NON_FINITE };

enum { DEEPEST = 2048 };

typedef struct reader {
  const char *begin, *at, *end;
  json_rules rules;
  json_error_t *error;
  int depth;
  /* Strings as they are decoded; those of the members that are being read lie one after another. No string is longer
   * than its text, so that what is allocated at first is enough. */
  char *strings;
  size_t used;
} reader;

/* ---- Errors: the first one counts ---- */

static json_t *fail(reader *r, enum json_error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static json_t *fail(reader *r, enum json_error_code code, const char *format, ...) {
  json_error_t *e = r->error;
  const char *line = r->begin;
  *e = (json_error_t){.line = 1, .position = (int)(r->at - r->begin)};
  for (const char *c = r->begin; c < r->at; c++)
    if (*c == '\n') e->line++, line = c + 1;
  e->column = (int)(r->at - line) + 1;
  const size_t room = sizeof e->text - 1; /* jansson keeps the code in the last byte */
  int n = snprintf(e->text, room, "column %d: ", e->column);
  va_list args;
  va_start(args, format);
  vsnprintf(e->text + n, room - (size_t)n, format, args);
  va_end(args);
  e->text[room] = (char)code;
  return NULL;
}

static json_t *fail_memory(reader *r) { return fail(r, json_error_out_of_memory, "out of memory"); }

static json_t *fail_expected(reader *r, const char *what) {
  return fail(r, json_error_invalid_syntax, "%s is expected%s", what, r->at == r->end ? " instead of the end" : "");
}

/* A value as jansson made it, or failed to. */
static json_t *made(reader *r, json_t *json) { return json ? json : fail_memory(r); }

/* ---- Tokens ---- */

static void skip_space(reader *r) {
  while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t')) r->at++;
}

static bool take(reader *r, char c) {
  if (r->at == r->end || *r->at != c) return false;
  r->at++;
  return true;
}

static bool take_word(reader *r, const char *word) {
  const size_t bytes = strlen(word);
  if ((size_t)(r->end - r->at) < bytes || memcmp(r->at, word, bytes) != 0) return false;
  r->at += bytes;
  return true;
}

static size_t take_digits(reader *r) {
  const char *begin = r->at;
  while (r->at < r->end && *r->at >= '0' && *r->at <= '9') r->at++;
  return (size_t)(r->at - begin);
}

/* ---- Strings ---- */

static bool put_code(reader *r, long code) {
  if (code == 0 && r->rules == JSON_EXACT) return fail(r, json_error_invalid_syntax, "\\u0000 is not allowed"), false;
  r->used += (size_t)utf8proc_encode_char((utf8proc_int32_t)code, (utf8proc_uint8_t *)r->strings + r->used);
  return true;
}

/* The code of \uXXXX, which is taken; -1: it is none, and nothing is taken. */
static long take_code(reader *r) {
  char digits[5] = {0};
  if (r->end - r->at < 6 || r->at[0] != '\\' || r->at[1] != 'u') return -1;
  memcpy(digits, r->at + 2, 4);
  if (strspn(digits, "0123456789abcdefABCDEF") != 4) return -1;
  r->at += 6;
  return strtol(digits, NULL, 16);
}

static bool read_code(reader *r) {
  long code = take_code(r);
  if (code < 0) return fail(r, json_error_invalid_syntax, "\\u and four hexadecimal digits are expected"), false;
  if (code < 0xd800 || code > 0xdfff) return put_code(r, code);
  const char *second = r->at;
  const long partner = code < 0xdc00 ? take_code(r) : -1;
  if (partner >= 0xdc00 && partner <= 0xdfff)
    return put_code(r, 0x10000 + ((code - 0xd800) << 10) + (partner - 0xdc00));
  r->at = second;
  if (r->rules == JSON_PYTHON) return put_code(r, 0xfffd);
  return fail(r, json_error_invalid_syntax, "one part of a surrogate pair stands alone"), false;
}

static bool read_escape(reader *r) {
  static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
  const char *name = r->end - r->at > 1 && r->at[1] ? strchr(names, r->at[1]) : NULL;
  if (!name) return read_code(r);
  r->strings[r->used++] = values[name - names];
  r->at += 2;
  return true;
}

static bool read_character(reader *r) {
  utf8proc_int32_t code;
  const unsigned char first = (unsigned char)*r->at;
  if (first < 0x20) return fail(r, json_error_invalid_syntax, "control character 0x%02x in a text", first), false;
  utf8proc_ssize_t bytes =
      first < 0x80 ? 1 : utf8proc_iterate((const utf8proc_uint8_t *)r->at, r->end - r->at, &code);
  if (bytes < 1) return fail(r, json_error_invalid_syntax, "byte 0x%02x is not UTF-8", first), false;
  memcpy(r->strings + r->used, r->at, (size_t)bytes);
  r->used += (size_t)bytes;
  r->at += bytes;
  return true;
}

/* After its first quote: its bytes, and a zero, from the old r->used on. */
static bool read_string(reader *r, size_t *bytes) {
  const size_t begin = r->used;
  while (!take(r, '"')) {
    if (r->at == r->end) return fail(r, json_error_invalid_syntax, "a text does not end"), false;
    if (!(*r->at == '\\' ? read_escape(r) : read_character(r))) return false;
  }
  *bytes = r->used - begin;
  r->strings[r->used++] = '\0';
  return true;
}

static json_t *read_text(reader *r) {
  const size_t begin = r->used;
  size_t bytes;
  if (!read_string(r, &bytes)) return NULL;
  r->used = begin;
  return made(r, json_stringn_nocheck(r->strings + begin, bytes));
}

/* ---- Numbers ---- */

/* Of text that is a number; strtod wants the locale's decimal point. */
static double real_of(reader *r, const char *begin) {
  const char *separator = localeconv()->decimal_point;
  char *copy = r->strings + r->used, *to = copy;
  for (const char *c = begin; c < r->at; c++)
    if (*c == '.') to = stpcpy(to, separator);
    else *to++ = *c;
  *to = '\0';
  return strtod(copy, NULL);
}

static bool integer_of(const reader *r, const char *begin, json_int_t *value) {
  const bool negative = *begin == '-';
  *value = 0;
  for (const char *c = begin + negative; c < r->at; c++)
    if (__builtin_mul_overflow(*value, 10, value) ||
        __builtin_add_overflow(*value, negative ? -(*c - '0') : *c - '0', value))
      return false;
  return true;
}

static json_t *read_number(reader *r) {
  const char *begin = r->at;
  bool whole = true;
  json_int_t integer;
  take(r, '-');
  if (!take(r, '0') && take_digits(r) == 0) return fail_expected(r, "a value");
  if (take(r, '.')) {
    whole = false;
    if (take_digits(r) == 0) return fail_expected(r, "a digit");
  }
  if (take(r, 'e') || take(r, 'E')) {
    whole = false;
    if (!take(r, '+')) take(r, '-');
    if (take_digits(r) == 0) return fail_expected(r, "a digit");
  }
  if (whole && integer_of(r, begin, &integer)) return made(r, json_integer(integer));
  const double real = real_of(r, begin);
  if (isfinite(real)) return made(r, json_real(real));
  return made(r, json_string(non_finite[real < 0 ? IS_MINUS_INFINITY : IS_INFINITY].name));
}

/* ---- Values ---- */

static json_t *read_value(reader *r);

static bool read_element(reader *r, json_t *array) {
  json_t *value = read_value(r);
  if (!value) return false;
  return json_array_append_new(array, value) == 0 || (fail_memory(r), false);
}

static bool read_member(reader *r, json_t *object) {
  const size_t begin = r->used;
  size_t bytes;
  skip_space(r);
  if (!take(r, '"')) return fail_expected(r, "a name in quotes"), false;
  if (!read_string(r, &bytes)) return false;
  const char *name = r->strings + begin;
  if (strlen(name) != bytes) return fail(r, json_error_invalid_syntax, "a name has a zero byte"), false;
  if (r->rules == JSON_EXACT && json_object_get(object, name))
    return fail(r, json_error_duplicate_key, "two members have one name"), false;
  skip_space(r);
  if (!take(r, ':')) return fail_expected(r, "\":\""), false;
  json_t *value = read_value(r);
  r->used = begin;
  if (!value) return false;
  return json_object_set_new_nocheck(object, name, value) == 0 || (fail_memory(r), false);
}

/* An array or an object, from after its first bracket to its last, `close`. */
static json_t *read_list(reader *r, json_t *list, bool (*read_one)(reader *, json_t *), char close) {
  if (!list) return fail_memory(r);
  bool good = r->depth++ < DEEPEST || (fail(r, json_error_invalid_syntax, "brackets nest too deep"), false);
  skip_space(r);
  if (good && !take(r, close)) {
    do {
      good = read_one(r, list);
      skip_space(r);
    } while (good && take(r, ','));
    if (good && !take(r, close)) good = (fail_expected(r, close == ']' ? "\",\" or \"]\"" : "\",\" or \"}\""), false);
  }
  r->depth--;
  if (good) return list;
  json_decref(list);
  return NULL;
}

static json_t *read_value(reader *r) {
  skip_space(r);
  if (take(r, '{')) return read_list(r, json_object(), read_member, '}');
  if (take(r, '[')) return read_list(r, json_array(), read_element, ']');
  if (take(r, '"')) return read_text(r);
  if (take_word(r, "true")) return json_true();
  if (take_word(r, "false")) return json_false();
  if (take_word(r, "null")) return json_null();
  for (int i = 0; i < NON_FINITE; i++)
    if (take_word(r, non_finite[i].name)) return made(r, json_string(non_finite[i].name));
  return read_number(r);
}

json_t *json_parse(const char *text, size_t bytes, json_rules rules, json_error_t *error) {
  reader r = {.begin = text, .at = text, .end = text + bytes, .rules = rules, .error = error};
  r.strings = malloc(bytes + 32); /* a number with the locale's point, or a zero byte, more */
  json_t *json = r.strings ? read_value(&r) : fail_memory(&r);
  skip_space(&r);
  if (json && r.at < r.end) {
    json_decref(json);
    json = fail_expected(&r, "the end");
  }
  free(r.strings);
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
