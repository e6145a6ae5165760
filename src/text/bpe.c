#include "text/bpe.h"
#include "core/context.h"
#include "core/try.h"
#include "text/utf8.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define NO_SYMBOL UINT32_MAX

typedef struct bpe_symbol {
  int32_t id; /* -1: merged into the one before it */
  uint32_t previous, next;
} bpe_symbol;

/* ---- The model ---- */

/* Open addressing by hand: encoding spends most of its time here, and with uthash's chains it took 1.6 times as long.
 */
static size_t find_merge(const bpe_model *m, uint64_t pair) {
  size_t mask = m->merge_slots - 1, slot = (size_t)((pair * 0x9e3779b97f4a7c15u) >> 32) & mask;
  while (m->merges[slot].pair != pair && m->merges[slot].pair != BPE_NO_PAIR) slot = (slot + 1) & mask;
  return slot;
}

static const bpe_merge *merge_of(const bpe_model *m, int32_t left, int32_t right) {
  const bpe_merge *merge = &m->merges[find_merge(m, (uint64_t)(uint32_t)left << 32 | (uint32_t)right)];
  return merge->pair == BPE_NO_PAIR ? NULL : merge;
}

bool bpe_prepare(bpe_model *m, const vocabulary *v, size_t merges) {
  m->vocabulary = v;
  for (m->merge_slots = 16; m->merge_slots < 2 * merges; m->merge_slots *= 2) {
  }
  m->merges = malloc(m->merge_slots * sizeof *m->merges);
  if (!m->merges) return false;
  for (size_t i = 0; i < m->merge_slots; i++) m->merges[i].pair = BPE_NO_PAIR;
  for (uint32_t code = 0; code < BYTE_LEVEL_END; code++) {
    char text[UTF8_MAX];
    m->codes[code] = vocabulary_find_model(v, (byte_string){text, utf8_encode(code, text)});
  }
  for (unsigned byte = 0; byte < 256; byte++) {
    char name[8];
    m->bytes[byte] =
        vocabulary_find_model(v, (byte_string){name, (size_t)snprintf(name, sizeof name, "<0x%02X>", byte)});
  }
  return true;
}

void bpe_add_merge(bpe_model *m, int32_t left, int32_t right, uint32_t rank, int32_t token) {
  uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
  m->merges[find_merge(m, pair)] = (bpe_merge){pair, rank, token};
}

void bpe_free(bpe_model *m) {
  free(m->merges);
  m->merges = NULL;
}

/* ---- The pairs of a word that can be merged, the first to merge on top ---- */

static bool heap_push(bpe_scratch *s, uint64_t entry) {
  if (s->heap_count == s->heap_capacity) {
    size_t capacity = s->heap_capacity ? 2 * s->heap_capacity : 256;
    uint64_t *larger = realloc(s->heap, capacity * sizeof *larger);
    if (!larger) return false;
    s->heap = larger;
    s->heap_capacity = capacity;
  }
  size_t at = s->heap_count++;
  for (; at > 0 && s->heap[(at - 1) / 2] > entry; at = (at - 1) / 2) s->heap[at] = s->heap[(at - 1) / 2];
  s->heap[at] = entry;
  return true;
}

static uint64_t heap_pop(bpe_scratch *s) {
  uint64_t top = s->heap[0], last = s->heap[--s->heap_count];
  size_t at = 0, child;
  while ((child = 2 * at + 1) < s->heap_count) {
    if (child + 1 < s->heap_count && s->heap[child + 1] < s->heap[child]) child++;
    if (last <= s->heap[child]) break;
    s->heap[at] = s->heap[child];
    at = child;
  }
  s->heap[at] = last;
  return top;
}

/* The pair that begins at `left`, if it can be merged. */
static bool offer(const bpe_model *m, bpe_scratch *s, uint32_t left) {
  uint32_t right = left == NO_SYMBOL ? NO_SYMBOL : s->symbols[left].next;
  if (right == NO_SYMBOL) return true;
  const bpe_merge *merge = merge_of(m, s->symbols[left].id, s->symbols[right].id);
  return !merge || heap_push(s, (uint64_t)merge->rank << 32 | left);
}

/* An entry is stale where its symbols have merged with others since: a pair has one rank. */
static bool merge_all(const bpe_model *m, bpe_scratch *s, size_t count) {
  s->heap_count = 0;
  for (size_t i = 0; i + 1 < count; i++)
    if (!offer(m, s, (uint32_t)i)) return false;
  while (s->heap_count) {
    uint64_t top = heap_pop(s);
    uint32_t at = (uint32_t)top;
    bpe_symbol *left = &s->symbols[at];
    if (left->id < 0 || left->next == NO_SYMBOL) continue;
    bpe_symbol *right = &s->symbols[left->next];
    const bpe_merge *merge = merge_of(m, left->id, right->id);
    if (!merge || merge->rank != top >> 32) continue;
    left->id = merge->token;
    left->next = right->next;
    right->id = -1;
    if (right->next != NO_SYMBOL) s->symbols[right->next].previous = at;
    if (!offer(m, s, left->previous) || !offer(m, s, at)) return false;
  }
  return true;
}

/* ---- A word ---- */

static bool reserve_symbols(bpe_scratch *s, size_t count) {
  if (count <= s->symbol_capacity) return true;
  size_t capacity = s->symbol_capacity ? s->symbol_capacity : 64;
  while (capacity < count) capacity *= 2;
  bpe_symbol *larger = realloc(s->symbols, capacity * sizeof *larger);
  if (!larger) return false;
  s->symbols = larger;
  s->symbol_capacity = capacity;
  return true;
}

static void add_symbol(bpe_scratch *s, size_t *count, int32_t id) {
  uint32_t at = (uint32_t)(*count)++;
  s->symbols[at] = (bpe_symbol){.id = id, .previous = at ? at - 1 : NO_SYMBOL, .next = at + 1};
}

/* False if the character has to be an unknown one. */
static bool add_bytes(const bpe_model *m, bpe_scratch *s, size_t *count, byte_string character) {
  if (!m->byte_fallback) return false;
  for (size_t i = 0; i < character.bytes; i++)
    if (m->bytes[(unsigned char)character.text[i]] < 0) return false;
  for (size_t i = 0; i < character.bytes; i++) add_symbol(s, count, m->bytes[(unsigned char)character.text[i]]);
  return true;
}

/* A run of unknown characters is one token under fuse_unk. It is put once a known one follows (bytes do not count).
 */
static clm_status split_characters(clm_context *ctx, const bpe_model *m, bpe_scratch *s, byte_string word,
                                   size_t *count) {
  bool unknown = false;
  for (size_t at = 0, length; at < word.bytes; at += length) {
    uint32_t code = 0;
    length = utf8_decode(word.text + at, word.bytes - at, &code);
    byte_string character = {word.text + at, length};
    int32_t id = code < BYTE_LEVEL_END ? m->codes[code] : vocabulary_find_model(m->vocabulary, character);
    if (id >= 0) {
      if (unknown) add_symbol(s, count, m->unk);
      unknown = false;
      add_symbol(s, count, id);
    } else if (!add_bytes(m, s, count, character) && m->unk != BPE_UNK_NONE) {
      if (m->unk == BPE_UNK_MISSING)
        return context_fail(ctx, CLM_BAD_FORMAT,
                            "the text has U+%04X, which is not in the vocabulary, and neither is its unk_token",
                            (unsigned)code);
      if (unknown && !m->fuse_unk) add_symbol(s, count, m->unk);
      unknown = true;
    }
  }
  if (unknown) add_symbol(s, count, m->unk);
  if (*count) s->symbols[*count - 1].next = NO_SYMBOL;
  return CLM_OK;
}

static clm_status encode_word(clm_context *ctx, const bpe_model *m, bpe_scratch *s, byte_string word,
                              token_sink *sink) {
  int32_t whole = m->ignore_merges ? vocabulary_find_model(m->vocabulary, word) : -1;
  if (whole >= 0) {
    sink_put(sink, whole);
    return CLM_OK;
  }
  size_t count = 0;
  if (word.bytes >= NO_SYMBOL)
    return context_fail(ctx, CLM_UNSUPPORTED, "tokenizer: a word of %zu bytes", word.bytes);
  if (!reserve_symbols(s, word.bytes)) return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  TRY(split_characters(ctx, m, s, word, &count));
  if (!merge_all(m, s, count)) return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  for (size_t i = 0; i < count; i++)
    if (s->symbols[i].id >= 0) sink_put(sink, s->symbols[i].id);
  return CLM_OK;
}

/* ---- Words that come again: a table in which a word has one place, by its hash ---- */

enum { CACHE_WORDS = 1 << 14, CACHE_KEY = 48, CACHE_IDS = 10 };

typedef struct bpe_word {
  uint8_t bytes, count; /* bytes 0: an empty place */
  char key[CACHE_KEY];
  int32_t ids[CACHE_IDS];
} bpe_word;

clm_status bpe_encode(clm_context *ctx, const bpe_model *m, bpe_scratch *s, byte_string word, token_sink *sink) {
  if (word.bytes > CACHE_KEY) return encode_word(ctx, m, s, word, sink);
  if (!s->cache) s->cache = calloc(CACHE_WORDS, sizeof *s->cache);
  if (!s->cache) return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  bpe_word *place = &s->cache[XXH3_64bits(word.text, word.bytes) % CACHE_WORDS];
  if (place->bytes != word.bytes || memcmp(place->key, word.text, word.bytes) != 0) {
    int32_t ids[CACHE_KEY];
    token_sink found = {ids, CACHE_KEY, 0}; /* never more than there are bytes */
    TRY(encode_word(ctx, m, s, word, &found));
    if (found.count > CACHE_IDS) {
      for (size_t i = 0; i < found.count; i++) sink_put(sink, ids[i]);
      return CLM_OK;
    }
    place->bytes = (uint8_t)word.bytes;
    place->count = (uint8_t)found.count;
    memcpy(place->key, word.text, word.bytes);
    memcpy(place->ids, ids, found.count * sizeof *ids);
  }
  for (unsigned i = 0; i < place->count; i++) sink_put(sink, place->ids[i]);
  return CLM_OK;
}

void bpe_scratch_free(bpe_scratch *s) {
  free(s->symbols);
  free(s->heap);
  free(s->cache);
  *s = (bpe_scratch){0};
}
