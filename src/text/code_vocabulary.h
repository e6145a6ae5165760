/* The vocabularies that need no tokenizer of their own: bytes, and the characters of a text. */
#ifndef CLM_TEXT_CODE_VOCABULARY_H
#define CLM_TEXT_CODE_VOCABULARY_H

#include "text/bpe.h"
#include <clmamba/tokenizer.h>

typedef struct code_vocabulary {
  int64_t size;
  uint32_t *codes;      /* token -> byte or code point                    */
  int32_t *sorted;      /* tokens in the order of their codes, for lookup */
  char (*texts)[5];     /* token -> its bytes                             */
  char (*spellings)[5]; /* token -> how tokenizer.json writes it          */
} code_vocabulary;

/* `codes` becomes the vocabulary's; a code that occurs twice is an error. */
clm_status code_vocabulary_create(clm_context *context, clm_vocabulary kind, uint32_t *codes, int64_t size,
                                  code_vocabulary *v);

/* All bytes, or the characters of `text`. */
clm_status code_vocabulary_learn(clm_context *context, clm_vocabulary kind, byte_string text, code_vocabulary *v);
void code_vocabulary_free(code_vocabulary *v);

/* The token of a code, -1 if there is none. */
int32_t code_vocabulary_find(const code_vocabulary *v, uint32_t code);

/* A character outside of the vocabulary is an error that names it and its place. */
clm_status code_vocabulary_encode(clm_context *context, clm_vocabulary kind, const code_vocabulary *v,
                                  byte_string text, token_sink *sink);

#endif
