#include "text/pattern.h"
#include "core/context.h"
#include "core/try.h"
#include <string.h>

#define MAX_PATTERN_BYTES 65536

enum { MATCH_HEAP_KIB = 65536, JIT_STACK_START = 32768, JIT_STACK_END = 8 << 20 };

/* PCRE2 counts steps anew for every place where a match may begin, and does not tell how many it took. So places are
 * cheap, up to CHEAP_STEPS, which is more than sensible patterns take, or are tried one by one with growing limits;
 * what those limits come to is taken from what the text may cost. */
enum { CHEAP_STEPS = 2000, TEXT_STEPS = 10000000, STEPS_PER_BYTE = 100 };

/* ---- From Oniguruma to PCRE2 ---- */

/* \w of Oniguruma in UTF-8: alphabetic, marks, decimal digits, connectors, and the other numbers of Latin-1. */
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#define HEX  "0-9A-Fa-f"

/* Escapes that mean something else in PCRE2, outside of a class and inside; NULL: there is no such form. Those of
 * white space: PCRE2's own takes U+180E in as well. */
static const struct escape {
  char letter;
  const char *outside, *inside;
} escapes[] = {
    {'s', "\\p{wspace}", "\\p{wspace}"},
    {'S', "\\P{wspace}", "\\P{wspace}"},
    {'d', "\\p{Nd}", "\\p{Nd}"},
    {'D', "\\P{Nd}", "\\P{Nd}"},
    {'w', "[" WORD "]", WORD},
    {'W', "[^" WORD "]", NULL},
    {'h', "[" HEX "]", HEX},
    {'H', "[^" HEX "]", NULL},
    {'v', "\\x0b", "\\x0b"},
    {'b', "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))", "\\x08"},
    {'B', "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))", NULL},
    {'O', "(?s:.)", NULL},
    {'A', "\\A", NULL},
    {'z', "\\z", NULL},
    {'Z', "\\Z", NULL},
    {'G', "\\G", NULL},
    {'R', "\\R", NULL},
    {'X', "\\X", NULL},
    {'N', "\\N", NULL},
    {'k', "\\k", NULL},
    {'n', "\\n", "\\n"},
    {'t', "\\t", "\\t"},
    {'r', "\\r", "\\r"},
    {'f', "\\f", "\\f"},
    {'a', "\\a", "\\a"},
    {'e', "\\e", "\\e"},
    {'x', "\\x", "\\x"},
};

static const struct posix_class {
  const char *name, *property;
} posix_classes[] = {
    {"space", "wspace"}, {"digit", "Nd"}, {"alpha", "Alphabetic"}, {"upper", "Uppercase"}, {"lower", "Lowercase"},
};

typedef struct translation {
  const char *from; /* zero-terminated */
  size_t at;
  byte_buffer to;
  bool in_class;
  const char *refused; /* what has no translation */
} translation;

static bool put(translation *t, const char *text, size_t bytes) {
  if (!bytes_append(&t->to, text, bytes)) t->refused = "more memory than there is";
  return !t->refused;
}

static bool put_text(translation *t, const char *text) { return put(t, text, strlen(text)); }

static bool copy(translation *t, size_t bytes) {
  t->at += bytes;
  return put(t, t->from + t->at - bytes, bytes);
}

static bool refuse(translation *t, const char *what) {
  t->refused = what;
  return false;
}

static bool compiles(const char *pattern) {
  int error;
  PCRE2_SIZE offset;
  pcre2_code *code =
      pcre2_compile((PCRE2_SPTR)pattern, strlen(pattern), PCRE2_UTF | PCRE2_UCP, &error, &offset, NULL);
  pcre2_code_free(code);
  return code != NULL;
}

/* \p{Name}. A script by its name is the script alone in Oniguruma; in PCRE2 its extensions too, unless told so. */
static bool translate_property(translation *t) {
  char script[64];
  const char *name = t->from + t->at + 3, *end = strchr(name, '}');
  if (t->from[t->at + 2] != '{' || !end) return refuse(t, "\\p without {}");
  bool negated = *name == '^';
  name += negated;
  size_t bytes = (size_t)(end - name);
  if (bytes >= 40) return refuse(t, "a property of so long a name");
  memcpy(script, "\\p{sc:", 6);
  memcpy(script + 6, name, bytes);
  memcpy(script + 6 + bytes, "}", 2);
  bool is_script = bytes > 2 && compiles(script), positive = (t->from[t->at + 1] == 'p') != negated;
  t->at = (size_t)(end - t->from) + 1;
  return put_text(t, positive ? "\\p{" : "\\P{") && put_text(t, is_script ? "sc:" : "") && put(t, name, bytes) &&
         put_text(t, "}");
}

static bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

static bool translate_escape(translation *t) {
  char letter = t->from[t->at + 1];
  if (letter == 'p' || letter == 'P') return translate_property(t);
  if (letter == 'u') {
    for (int i = 2; i < 6; i++)
      if (!is_hex(t->from[t->at + (size_t)i])) return refuse(t, "\\u without four digits");
    t->at += 6;
    return put_text(t, "\\x{") && put(t, t->from + t->at - 4, 4) && put_text(t, "}");
  }
  for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++)
    if (escapes[i].letter == letter) {
      const char *to = t->in_class ? escapes[i].inside : escapes[i].outside;
      t->at += 2;
      return to ? put_text(t, to) : refuse(t, "this escape in a class");
    }
  if (letter == '\0' || (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z'))
    return refuse(t, "such an escape");
  return (unsigned char)letter < 0x80 ? copy(t, 2) : (t->at++, true); /* of a character that needs none */
}

static bool translate_posix_class(translation *t) {
  const char *name = t->from + t->at + 2;
  bool negated = *name == '^';
  name += negated;
  for (size_t i = 0; i < sizeof posix_classes / sizeof *posix_classes; i++) {
    size_t bytes = strlen(posix_classes[i].name);
    if (strncmp(name, posix_classes[i].name, bytes) != 0 || strncmp(name + bytes, ":]", 2) != 0) continue;
    t->at = (size_t)(name - t->from) + bytes + 2;
    return put_text(t, negated ? "\\P{" : "\\p{") && put_text(t, posix_classes[i].property) && put_text(t, "}");
  }
  return refuse(t, "such a [:class:]");
}

static bool translate_in_class(translation *t) {
  const char *at = t->from + t->at;
  if (at[0] == '[') return at[1] == ':' ? translate_posix_class(t) : refuse(t, "a class inside of a class");
  if (at[0] == '&' && at[1] == '&') return refuse(t, "an intersection of classes");
  if (at[0] == ']') t->in_class = false;
  return copy(t, 1);
}

static bool open_class(translation *t) {
  t->in_class = true;
  copy(t, t->from[t->at + 1] == '^' ? 2 : 1);
  if (t->from[t->at] != ']') return !t->refused;
  t->at++; /* the first character of a class is never its end */
  return put_text(t, "\\]");
}

/* (?imx-imx: and such: the letter for "the dot takes newlines" is m in Oniguruma, s in PCRE2. */
static bool translate_group(translation *t) {
  if (t->from[t->at + 1] == '*') return refuse(t, "(*...)");
  if (t->from[t->at + 1] != '?') return copy(t, 1);
  copy(t, 2);
  char next = t->from[t->at];
  if (next == '~' || next == '@' || next == '(' || next == '{') return refuse(t, "such a group");
  if (next && strchr("<:=!>#", next)) return copy(t, 1);
  while (t->from[t->at] && strchr("imx-", t->from[t->at])) {
    if (t->from[t->at] != 'm') copy(t, 1);
    else t->at++, put_text(t, "s");
  }
  return strchr(":)", t->from[t->at]) && t->from[t->at] ? copy(t, 1) : refuse(t, "such a group");
}

static bool translate_interval(translation *t) {
  const char *at = t->from + t->at;
  size_t bytes = strspn(at + 1, "0123456789,") + 1;
  if (at[bytes] != '}' || bytes == 1) return put_text(t, "\\{") && (t->at++, true); /* only a brace */
  if (at[bytes + 1] == '+') return refuse(t, "a possessive interval");
  if (at[1] != ',') return copy(t, bytes + 1);
  t->at += bytes + 1;
  return put_text(t, "{0") && put(t, at + 1, bytes);
}

static bool translate(translation *t) {
  while (t->from[t->at] && !t->refused) {
    char c = t->from[t->at];
    if (c == '\\') translate_escape(t);
    else if (t->in_class) translate_in_class(t);
    else if (c == '[') open_class(t);
    else if (c == '(') translate_group(t);
    else if (c == '{') translate_interval(t);
    else copy(t, 1);
  }
  return !t->refused;
}

/* ---- Compiling ---- */

static clm_status compile(clm_context *ctx, const char *path, byte_string given, byte_string text, uint32_t options,
                          pcre2_code **pattern) {
  int error;
  PCRE2_SIZE offset;
  pcre2_compile_context *how = pcre2_compile_context_create(NULL);
  if (!how) return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  pcre2_set_newline(how, PCRE2_NEWLINE_LF);
  *pattern =
      pcre2_compile((PCRE2_SPTR)(text.bytes ? text.text : ""), text.bytes, options | PCRE2_UTF, &error, &offset, how);
  pcre2_compile_context_free(how);
  if (*pattern) {
    pcre2_jit_compile(*pattern, PCRE2_JIT_COMPLETE); /* where there is no compiler, the interpreter matches */
    return CLM_OK;
  }
  PCRE2_UCHAR why[120];
  pcre2_get_error_message(error, why, sizeof why);
  return context_fail(ctx, CLM_BAD_FORMAT, "%s: the pattern \"%.*s\" is not a regular expression: %s", path,
                      (int)(given.bytes < 80 ? given.bytes : 80), given.text, (const char *)why);
}

clm_status pattern_compile(clm_context *ctx, const char *path, pattern_kind kind, byte_string text,
                           pcre2_code **pattern) {
  *pattern = NULL;
  if (text.bytes > MAX_PATTERN_BYTES || memchr(text.text, 0, text.bytes))
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: a pattern of %zu bytes, or with a zero byte; at most %d are read",
                        path, text.bytes, MAX_PATTERN_BYTES);
  if (kind != PATTERN_REGEX)
    return compile(ctx, path, text, text, kind == PATTERN_LITERAL ? PCRE2_LITERAL : PCRE2_UCP, pattern);
  translation t = {0};
  byte_buffer from = {0};
  clm_status status = CLM_OK;
  if (!bytes_append(&from, text.text, text.bytes) || !bytes_append(&from, "\0\0\0\0\0\0\0", 8))
    status = context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  t.from = from.data;
  if (!status && !translate(&t))
    status = context_fail(ctx, CLM_UNSUPPORTED, "%s: the pattern \"%.*s\" uses %s, which is not supported", path,
                          (int)(text.bytes < 80 ? text.bytes : 80), text.text, t.refused);
  if (!status) status = compile(ctx, path, text, bytes_of(&t.to), PCRE2_UCP | PCRE2_MULTILINE, pattern);
  bytes_free(&t.to);
  bytes_free(&from);
  return status;
}

/* ---- Matching ---- */

bool pattern_scratch_create(pattern_scratch *s) {
  *s = (pattern_scratch){
      .data = pcre2_match_data_create(1, NULL), .limits = pcre2_match_context_create(NULL), .steps = TEXT_STEPS};
  if (!s->data || !s->limits) return false;
  pcre2_set_heap_limit(s->limits, MATCH_HEAP_KIB);
  s->stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_END, NULL); /* NULL: without a compiler, no stack */
  if (s->stack) pcre2_jit_stack_assign(s->limits, NULL, s->stack);
  return true;
}

void pattern_scratch_free(pattern_scratch *s) {
  pcre2_match_data_free(s->data);
  pcre2_match_context_free(s->limits);
  if (s->stack) pcre2_jit_stack_free(s->stack);
  *s = (pattern_scratch){0};
}

static int attempt(const pattern_search *s, size_t at, uint32_t options, int64_t limit) {
  pcre2_set_match_limit(s->scratch->limits, (uint32_t)limit);
  return pcre2_match(s->pattern, (PCRE2_SPTR)s->text.text, s->text.bytes, at, PCRE2_NO_UTF_CHECK | options,
                     s->scratch->data, s->scratch->limits);
}

static size_t next_character(byte_string text, size_t at) {
  do at++;
  while (at < text.bytes && ((unsigned char)text.text[at] & 0xc0) == 0x80);
  return at;
}

/* The first match at or after `at`, as far as every place before it is cheap. */
static int match_cheaply(const pattern_search *s, size_t at) {
  int found = attempt(s, at, 0, CHEAP_STEPS);
  return found == PCRE2_ERROR_JIT_STACKLIMIT ? attempt(s, at, PCRE2_NO_JIT, CHEAP_STEPS) : found;
}

/* A match that begins at `at`; *cheap: it was no costly place. */
static int match_here(const pattern_search *s, size_t at, bool *cheap) {
  const uint32_t here = PCRE2_ANCHORED | PCRE2_NO_JIT;
  int found = attempt(s, at, here, CHEAP_STEPS);
  *cheap = found != PCRE2_ERROR_MATCHLIMIT;
  for (int64_t limit = 10 * CHEAP_STEPS; found == PCRE2_ERROR_MATCHLIMIT && s->scratch->steps > 0; limit *= 10) {
    if (limit > s->scratch->steps) limit = s->scratch->steps;
    s->scratch->steps -= limit;
    found = attempt(s, at, here, limit);
  }
  return found;
}

static int match(const pattern_search *s) {
  for (size_t at = s->at;;) {
    int found = match_cheaply(s, at);
    if (found != PCRE2_ERROR_MATCHLIMIT) return found;
    for (bool cheap = true; cheap; at = next_character(s->text, at)) {
      if (at > s->text.bytes) return PCRE2_ERROR_NOMATCH;
      found = match_here(s, at, &cheap);
      if (found != PCRE2_ERROR_NOMATCH) return found;
    }
    if (at > s->text.bytes) return PCRE2_ERROR_NOMATCH;
  }
}

bool pattern_found(const pcre2_code *pattern, pattern_scratch *scratch, byte_string text) {
  return match(&(pattern_search){.pattern = pattern, .scratch = scratch, .text = text}) >= 0;
}

/* As Oniguruma's iterator: an empty match is one, but not where the last match ended. */
clm_status pattern_next(clm_context *ctx, pattern_search *s, bool *found, size_t *begin, size_t *end) {
  if (s->at == 0 && !s->any) s->scratch->steps += (int64_t)s->text.bytes * STEPS_PER_BYTE;
  for (*found = false; s->at <= s->text.bytes;) {
    int got = match(s);
    if (got == PCRE2_ERROR_NOMATCH) return CLM_OK;
    if (got < 0)
      return context_fail(ctx, CLM_UNSUPPORTED,
                          "the pattern of the tokenizer takes too many steps, or too much memory, on this text");
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(s->scratch->data);
    if (at[0] == at[1] && s->any && at[1] == s->last) {
      s->at = next_character(s->text, s->at);
      continue;
    }
    *begin = at[0], *end = at[1];
    s->at = s->last = at[1];
    s->any = *found = true;
    return CLM_OK;
  }
  return CLM_OK;
}
