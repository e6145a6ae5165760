/* Tokens and their spellings, both ways.
 *
 * A token is found by its key; its spelling, which it also decodes from, is the same unless a normalizer changes an
 * added token: then it is what that makes of it, as in `tokenizers`. */
#ifndef CLM_TEXT_VOCABULARY_H
#define CLM_TEXT_VOCABULARY_H

#include "core/hash_table.h"
#include "text/bytes.h"
#include <clmamba/context.h>

/* Numbers at and past this are refused: a table of all of them must fit. */
#define VOCABULARY_LIMIT ((int64_t)1 << 21)

typedef struct token_entry {
  UT_hash_handle hh; /* by key */
  int32_t token;
  char *respelled; /* the spelling where it is not the key */
  /* Where they begin in `texts`, zero-terminated there: the token's text, and the one it has at a text's start. */
  size_t text, first;
  uint32_t key_bytes, respelled_bytes, text_bytes, first_bytes;
  bool has_first; /* where that differs */
  bool special, added;
  bool in_model; /* else added with the model, which does not see it    */
  bool is_byte;  /* decodes as one byte of a character: <0x0A> and such */
  char key[];    /* zero-terminated */
} token_entry;

typedef struct vocabulary {
  token_entry **entries;  /* by token; NULL: no such token */
  int64_t size, capacity; /* one more than the largest token */
  byte_buffer texts;      /* what tokens decode to: the decoder fills it in */
  token_entry *by_key;    /* hash table */
} vocabulary;

typedef enum vocabulary_answer {
  VOCABULARY_ADDED,
  VOCABULARY_SPELLING_TWICE,
  VOCABULARY_TOKEN_TWICE,
  VOCABULARY_OUT_OF_RANGE,
  VOCABULARY_NO_MEMORY
} vocabulary_answer;

vocabulary_answer vocabulary_add(vocabulary *v, int64_t token, byte_string spelling);
int32_t vocabulary_find(const vocabulary *v, byte_string spelling);       /* -1: none */
int32_t vocabulary_find_model(const vocabulary *v, byte_string spelling); /* the same for the model's tokens alone */

bool vocabulary_respell(vocabulary *v, int32_t token, byte_string spelling);

/* NULL outside of the vocabulary. */
const token_entry *vocabulary_entry(const vocabulary *v, int64_t token);
byte_string vocabulary_spelling(const token_entry *entry);
byte_string vocabulary_text(const vocabulary *v, const token_entry *entry);
byte_string vocabulary_first_text(const vocabulary *v, const token_entry *entry);
void vocabulary_free(vocabulary *v);

#endif
