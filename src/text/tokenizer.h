/* The inside of a tokenizer, for src/text. */
#ifndef CLM_TEXT_TOKENIZER_H
#define CLM_TEXT_TOKENIZER_H

#include "text/code_vocabulary.h"
#include "text/companions.h"
#include "text/json_reader.h"
#include "text/pipeline.h"

enum { TOKENIZER_SPECIALS = CLM_TOKEN_UNK + 1 };

struct clm_tokenizer {
  clm_context *context;
  clm_vocabulary kind;
  code_vocabulary codes; /* bytes and characters */
  pipeline *pipeline;    /* BPE                  */
  decoder codes_decoder;
  int32_t special[TOKENIZER_SPECIALS]; /* -1: none */
  int32_t begin;                       /* where generation begins without a prompt, -1: nothing is known */
  int32_t *ends;                       /* the tokens at which it ends */
  size_t end_count;
  const char *class_name; /* of transformers, if it builds parts of tokenizer.json anew, else NULL */
  char *json;             /* tokenizer.json as it was read, or NULL */
  size_t json_bytes;
  char *saved[COMPANIONS_SAVED]; /* the files that belong to it, as they were read, or NULL */
  size_t saved_bytes[COMPANIONS_SAVED];
};

clm_status tokenizer_new(clm_context *context, clm_vocabulary kind, clm_tokenizer **tokenizer);

/* Takes a tokenizer.json in, whose text (to be freed) becomes the tokenizer's. */
clm_status tokenizer_from_json(const json_reader *reader, const json_t *json, char *text, size_t bytes,
                               clm_tokenizer **tokenizer);

/* Special tokens, where generation begins and ends, from the other files. */
clm_status tokenizer_take_specials(clm_tokenizer *tokenizer, const companions *c);

/* Numbers below 0 are left out. False when out of memory. */
bool tokenizer_set_ends(clm_tokenizer *tokenizer, const int32_t *ids, size_t count);

#endif
