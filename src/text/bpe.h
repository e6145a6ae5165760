/* Byte-pair encoding (Sennrich et al. 2016): the characters of a word as tokens, then again and again the pair of
 * neighbours that was learnt first becomes one token, the leftmost such pair before the others. */
#ifndef CLM_TEXT_BPE_H
#define CLM_TEXT_BPE_H

#include "text/byte_level.h"
#include "text/vocabulary.h"

typedef struct bpe_merge {
  uint64_t pair; /* left << 32 | right; BPE_NO_PAIR: an empty slot */
  uint32_t rank;
  int32_t token;
} bpe_merge;

#define BPE_NO_PAIR UINT64_MAX

enum { BPE_UNK_NONE = -1, BPE_UNK_MISSING = -2 };

typedef struct bpe_model {
  const vocabulary *vocabulary;
  bpe_merge *merges; /* a hash table */
  size_t merge_slots;
  int32_t codes[BYTE_LEVEL_END]; /* tokens of the first code points, -1: none */
  int32_t bytes[256];            /* <0x00> to <0xFF>, -1: none                */
  int32_t unk;                   /* or one of the enum above: named, but missing is an error once it is needed */
  bool ignore_merges;            /* a word that is a token is that token */
  bool byte_fallback, fuse_unk;
} bpe_model;

/* Room for `merges` merges; the vocabulary must be complete. Then each with its rank; of a pair twice the last
 * counts. */
bool bpe_prepare(bpe_model *model, const vocabulary *v, size_t merges);
void bpe_add_merge(bpe_model *model, int32_t left, int32_t right, uint32_t rank, int32_t token);
void bpe_free(bpe_model *model);

typedef struct token_sink {
  int32_t *ids;
  size_t capacity, count; /* what is past the capacity is only counted */
} token_sink;

static inline void sink_put(token_sink *sink, int32_t id) {
  if (sink->count < sink->capacity) sink->ids[sink->count] = id;
  sink->count++;
}

/* What encoding needs besides, among it the words that were encoded last. Begins zeroed. */
typedef struct bpe_scratch {
  struct bpe_symbol *symbols;
  size_t symbol_capacity;
  uint64_t *heap; /* rank << 32 | position of the left symbol */
  size_t heap_capacity, heap_count;
  struct bpe_word *cache;
} bpe_scratch;

clm_status bpe_encode(clm_context *context, const bpe_model *model, bpe_scratch *scratch, byte_string word,
                      token_sink *sink);
void bpe_scratch_free(bpe_scratch *scratch);

#endif
