/* A BPE tokenizer: added tokens, normalizer, pre-tokenizer, model, what is put around a text, decoder. */
#ifndef CLM_TEXT_PIPELINE_H
#define CLM_TEXT_PIPELINE_H

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/pretokenizer.h"
#include <clmamba/tokenizer.h>

enum { PIPELINE_AROUND = 16 };

typedef struct pipeline {
  vocabulary vocabulary;
  bpe_model model;
  added_set as_written;    /* found in the text before it is normalized */
  added_set as_normalized; /* found after that                          */
  normalizer normalizer;
  pretokenizer pretokenizer;
  int32_t before[PIPELINE_AROUND], after[PIPELINE_AROUND]; /* special tokens around a text */
  size_t before_count, after_count;
  bool has_template;
  decoder decoder;
} pipeline;

clm_status pipeline_encode(clm_context *context, const pipeline *p, const clm_encode_options *options,
                           byte_string text, token_sink *sink);
void pipeline_free(pipeline *p);

#endif
