/* What a tokenizer does to a text before it is split: a list of steps, each over the whole text. */
#ifndef CLM_TEXT_NORMALIZER_H
#define CLM_TEXT_NORMALIZER_H

#include "text/pattern.h"

typedef enum normalizer_kind {
  NORMALIZER_NFC,
  NORMALIZER_NFD,
  NORMALIZER_NFKC,
  NORMALIZER_NFKD,
  NORMALIZER_LOWERCASE,
  NORMALIZER_PREPEND,    /* content, unless the text is empty */
  NORMALIZER_REPLACE,    /* what the pattern matches, by content */
  NORMALIZER_BYTE_LEVEL, /* bytes by their stand-ins */
} normalizer_kind;

typedef struct normalizer_step {
  normalizer_kind kind;
  byte_buffer content;
  pcre2_code *pattern;
} normalizer_step;

enum { NORMALIZER_STEPS = 16 };

typedef struct normalizer {
  normalizer_step steps[NORMALIZER_STEPS];
  size_t count;
} normalizer;

/* Appends what the step makes of `text` (UTF-8). */
clm_status normalizer_step_apply(clm_context *context, const normalizer_step *step, pattern_scratch *scratch,
                                 byte_string text, byte_buffer *to);

/* All steps; *text becomes the result, which lies in `buffers` if there is a step. */
clm_status normalizer_apply(clm_context *context, const normalizer *n, pattern_scratch *scratch,
                            byte_buffer buffers[2], byte_string *text);
void normalizer_free(normalizer *n);

/* White space as Unicode has it since version 6.3. */
bool is_white_space(uint32_t code);

#endif
