/* The inside of a tokenizer, for src/text. */
#ifndef CLM_TEXT_TOKENIZER_H
#define CLM_TEXT_TOKENIZER_H

#include "text/code_vocabulary.h"
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
  char *json, *config;                 /* tokenizer.json and tokenizer_config.json as they were read, or NULL */
  size_t json_bytes, config_bytes;
};

clm_status tokenizer_new(clm_context *context, clm_vocabulary kind, clm_tokenizer **tokenizer);

/* Takes a tokenizer.json in, whose text (to be freed) becomes the tokenizer's. */
clm_status tokenizer_from_json(const json_reader *reader, const json_t *json, char *text, size_t bytes,
                               clm_tokenizer **tokenizer);

/* Looks for the special tokens in the other files of `directory`. */
clm_status tokenizer_read_specials(clm_tokenizer *tokenizer, const char *directory);

#endif
