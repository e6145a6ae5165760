/* Tokens that are found in a text before the model sees it: special ones, and words that were added later. */
#ifndef CLM_TEXT_ADDED_TOKENS_H
#define CLM_TEXT_ADDED_TOKENS_H

#include "text/pattern.h"

typedef struct added_token {
  int32_t id;
  bool single_word;    /* only where no word character is next to it  */
  bool lstrip, rstrip; /* takes the white space next to it along        */
  bool special;
} added_token;

/* A trie of their spellings. Node 0 is the root; children of a node are a list. */
typedef struct added_node {
  uint32_t child, next; /* 0: none */
  int32_t token;        /* index into tokens, -1: none ends here */
  unsigned char byte;
} added_node;

typedef struct added_set {
  added_token *tokens;
  size_t count, capacity;
  added_node *nodes;
  size_t node_count, node_capacity;
  uint32_t first[256]; /* children of the root by their byte               */
  pcre2_code *word;    /* a word character; needed where a token is single_word */
} added_set;

#define ADDED_TOKEN_BYTES 4096

/* `spelling` is not empty. Of two that are spelled alike the first is found. False when out of memory. */
bool added_set_add(added_set *set, byte_string spelling, added_token token);
void added_set_free(added_set *set);

/* Walks over a text from left to right: tokens and what lies between them. Begin with the rest zeroed. */
typedef struct added_search {
  const added_set *set;
  pattern_scratch *scratch;
  byte_string text;
  bool plain_special; /* special tokens are not found */
  size_t at, done;    /* where the search is, where the last piece ended  */
  size_t space_end;   /* up to here there is white space after some token */
  byte_string waiting;
  int32_t waiting_id;
  bool is_waiting;
} added_search;

/* The next piece, with its token or -1; false at the end. The leftmost token is found, and of several at one place
 * the longest. */
bool added_next(added_search *search, byte_string *piece, int32_t *id);

/* What `word` is made of: \w of Rust's regular expressions. */
#define ADDED_TOKEN_WORD "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}]"

#endif
