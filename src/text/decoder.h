/* From tokens back to text. What the steps of a decoder do to one token is done once, when the tokenizer is read
 * (token_entry.text); what is left for a text is to put these together. */
#ifndef CLM_TEXT_DECODER_H
#define CLM_TEXT_DECODER_H

#include "text/normalizer.h"
#include "text/vocabulary.h"

typedef enum decoder_kind {
  DECODER_SPACED, /* no decoder at all: tokens with a space between them               */
  DECODER_TEXT,   /* tokens are text; runs of byte tokens are text if they are UTF-8   */
  DECODER_BYTES,  /* tokens are bytes; what is not UTF-8 in all of them becomes U+FFFD */
} decoder_kind;

typedef enum decoder_step_kind {
  DECODER_REPLACE,
  DECODER_STRIP,         /* one character, some times, at both ends */
  DECODER_BYTE_FALLBACK, /* <0x0A> is a byte */
  DECODER_BYTE_LEVEL,    /* stand-ins become bytes */
  DECODER_METASPACE,     /* one character is a space; in a text's first token it may be nothing */
} decoder_step_kind;

typedef struct decoder_step {
  decoder_step_kind kind;
  normalizer_step replace;
  byte_buffer stripped; /* the character */
  size_t start, stop;   /* max times, at the beginning and at the end */
  bool first_drops;     /* DECODER_METASPACE */
} decoder_step;

enum { DECODER_STEPS = 16 };

typedef struct decoder {
  decoder_kind kind;
  decoder_step steps[DECODER_STEPS]; /* for each token */
  size_t count;
  byte_buffer stripped; /* a character that the whole text loses at its beginning, */
  size_t start;         /* max times                                               */
} decoder;

/* Fills in what every token of the vocabulary decodes to. */
clm_status decoder_prepare(clm_context *context, const decoder *d, pattern_scratch *scratch, vocabulary *v);
void decoder_free(decoder *d);

/* The pieces of a text as they come. Begins with the decoder set and the rest zeroed. */
typedef struct decoder_stream {
  const decoder *decoder;
  byte_buffer held; /* bytes that the next token may complete */
  byte_buffer text; /* what is complete; the caller takes it and sets bytes to 0 */
  size_t stripped;  /* characters that were stripped at the beginning */
  bool began, strip_done;
} decoder_stream;

bool decoder_push(decoder_stream *stream, byte_string token, bool is_byte); /* false when out of memory */
bool decoder_finish(decoder_stream *stream);                                /* then it is as new        */
void decoder_stream_free(decoder_stream *stream);

#endif
