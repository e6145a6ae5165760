/* How a tokenizer splits a normalized text into the words that its model sees: a list of stages, each of which works
 * on every piece of the one before. All kinds that a tokenizer.json names come down to four. */
#ifndef CLM_TEXT_PRETOKENIZER_H
#define CLM_TEXT_PRETOKENIZER_H

#include "text/pattern.h"

typedef enum pretokenizer_kind {
  PRETOKENIZER_SPLIT,
  PRETOKENIZER_PREFIX,     /* a space before a piece that begins with none */
  PRETOKENIZER_BYTE_LEVEL, /* bytes by their stand-ins */
  PRETOKENIZER_METASPACE,  /* a character for every space, and one before a piece that begins with none */
} pretokenizer_kind;

/* What becomes of the parts that match. */
typedef enum split_behaviour {
  SPLIT_REMOVED,
  SPLIT_ISOLATED,
  SPLIT_MERGED_WITH_PREVIOUS,
  SPLIT_MERGED_WITH_NEXT,
  SPLIT_CONTIGUOUS, /* neighbours that match become one piece */
} split_behaviour;

/* Which pieces get one: all, the one that begins the text, none. */
typedef enum metaspace_prepend { METASPACE_ALWAYS, METASPACE_FIRST, METASPACE_NEVER } metaspace_prepend;

typedef struct metaspace {
  char replacement[8]; /* one character, zero-terminated */
  metaspace_prepend prepend;
} metaspace;

typedef struct pretokenizer_stage {
  pretokenizer_kind kind;
  pcre2_code *pattern;
  split_behaviour behaviour;
  bool invert; /* what the pattern does not match is what matches */
  metaspace metaspace;
} pretokenizer_stage;

enum { PRETOKENIZER_STAGES = 32 };

typedef struct pretokenizer {
  pretokenizer_stage stages[PRETOKENIZER_STAGES];
  size_t count;
} pretokenizer;

typedef struct pretokenizer_run {
  clm_context *context;
  const pretokenizer *pretokenizer;
  pattern_scratch *scratch;
  byte_buffer buffers[PRETOKENIZER_STAGES];
  bool at_start; /* the piece in work begins where the text does */
  clm_status (*word)(void *user, byte_string word);
  void *user;
} pretokenizer_run;

/* Calls `word` for every word of `text`, in order; none is empty. `at_start`: it begins where the whole text does. */
clm_status pretokenizer_apply(pretokenizer_run *run, byte_string text, bool at_start);
void pretokenizer_run_free(pretokenizer_run *run);
void pretokenizer_free(pretokenizer *p);

#endif
