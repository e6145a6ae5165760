/* The inside of a tokenizer, for src/text. */
#ifndef CLM_TEXT_TOKENIZER_H
#define CLM_TEXT_TOKENIZER_H

#include <clmamba/tokenizer.h>

struct clm_tokenizer {
  clm_context *context;
  clm_vocabulary kind;
  int64_t size;
  uint32_t *codes;  /* token -> byte or code point                    */
  int32_t *sorted;  /* tokens in the order of their codes, for lookup */
  char (*texts)[5]; /* token -> its bytes                             */
};

/* `codes` becomes the tokenizer's; a code that occurs twice is an error. */
clm_status tokenizer_new(clm_context *context, clm_vocabulary kind, uint32_t *codes, int64_t size,
                         clm_tokenizer **tokenizer);

#endif
