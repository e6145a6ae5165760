/* Regular expressions of a tokenizer.json. They are written for Oniguruma; PCRE2 runs them, after a translation of
 * what the two mean differently. What has no translation is refused. */
#ifndef CLM_TEXT_PATTERN_H
#define CLM_TEXT_PATTERN_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/bytes.h"
#include <clmamba/context.h>
#include <pcre2.h>

typedef enum pattern_kind {
  PATTERN_REGEX, /* as Oniguruma reads it */
  PATTERN_LITERAL,
  PATTERN_PCRE2, /* one of ours */
} pattern_kind;

/* `text` is UTF-8; `path` is named where it does not compile. */
clm_status pattern_compile(clm_context *context, const char *path, pattern_kind kind, byte_string text,
                           pcre2_code **pattern);

/* What a thread needs to match, and how many steps its matches may still take: one scratch serves one text, so that
 * the limit holds for all matches in it. */
typedef struct pattern_scratch {
  pcre2_match_data *data;
  pcre2_match_context *limits;
  pcre2_jit_stack *stack;
  int64_t steps;
} pattern_scratch;

bool pattern_scratch_create(pattern_scratch *scratch);
void pattern_scratch_free(pattern_scratch *scratch);

/* Walks the matches of `text` (UTF-8) from left to right; none overlap. Begin with a zeroed `at` and `any`. */
typedef struct pattern_search {
  const pcre2_code *pattern;
  pattern_scratch *scratch;
  byte_string text;
  size_t at, last;
  bool any;
} pattern_search;

/* *found false: there are no more. Fails where the pattern takes too many steps on this text. */
clm_status pattern_next(clm_context *context, pattern_search *search, bool *found, size_t *begin, size_t *end);

/* Whether `text` has a match. */
bool pattern_found(const pcre2_code *pattern, pattern_scratch *scratch, byte_string text);

#endif
