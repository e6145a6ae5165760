#include "text/vocabulary.h"
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static size_t find_slot(const vocabulary *v, byte_string key) {
  size_t mask = v->slot_count - 1, slot = (size_t)XXH3_64bits(key.text, key.bytes) & mask;
  while (v->slots[slot]) {
    const token_entry *e = &v->entries[v->slots[slot] - 1];
    if (e->key_bytes == key.bytes && memcmp(v->spellings.data + e->key, key.text, key.bytes) == 0) break;
    slot = (slot + 1) & mask;
  }
  return slot;
}

static bool grow_slots(vocabulary *v) {
  if (2 * (v->used + 1) <= v->slot_count) return true;
  vocabulary larger = *v;
  larger.slot_count = v->slot_count ? 4 * v->slot_count : 1024;
  larger.slots = calloc(larger.slot_count, sizeof *larger.slots);
  if (!larger.slots) return false;
  for (size_t i = 0; i < v->slot_count; i++)
    if (v->slots[i]) {
      const token_entry *e = &v->entries[v->slots[i] - 1];
      larger.slots[find_slot(&larger, (byte_string){v->spellings.data + e->key, e->key_bytes})] = v->slots[i];
    }
  free(v->slots);
  *v = larger;
  return true;
}

static bool grow_entries(vocabulary *v, int64_t token) {
  if (token < v->capacity) return true;
  int64_t capacity = v->capacity ? v->capacity : 1024;
  while (capacity <= token) capacity *= 2;
  token_entry *larger = realloc(v->entries, (size_t)capacity * sizeof *larger);
  if (!larger) return false;
  memset(larger + v->capacity, 0, (size_t)(capacity - v->capacity) * sizeof *larger);
  v->entries = larger;
  v->capacity = capacity;
  return true;
}

vocabulary_answer vocabulary_add(vocabulary *v, int64_t token, byte_string spelling) {
  if (token < 0 || token >= VOCABULARY_LIMIT) return VOCABULARY_OUT_OF_RANGE;
  if (token < v->size && v->entries[token].present) return VOCABULARY_TOKEN_TWICE;
  if (spelling.bytes >= UINT32_MAX || !grow_slots(v) || !grow_entries(v, token)) return VOCABULARY_NO_MEMORY;
  size_t slot = find_slot(v, spelling);
  if (v->slots[slot]) return VOCABULARY_SPELLING_TWICE;
  size_t begin = v->spellings.bytes;
  if (!bytes_append(&v->spellings, spelling.text, spelling.bytes) || !bytes_append(&v->spellings, "", 1))
    return VOCABULARY_NO_MEMORY;
  uint32_t bytes = (uint32_t)spelling.bytes;
  v->entries[token] =
      (token_entry){.key = begin, .key_bytes = bytes, .spelling = begin, .spelling_bytes = bytes, .present = true};
  v->slots[slot] = (int32_t)token + 1;
  v->used++;
  if (token >= v->size) v->size = token + 1;
  return VOCABULARY_ADDED;
}

bool vocabulary_respell(vocabulary *v, int32_t token, byte_string spelling) {
  size_t begin = v->spellings.bytes;
  if (!bytes_append(&v->spellings, spelling.text, spelling.bytes) || !bytes_append(&v->spellings, "", 1))
    return false;
  v->entries[token].spelling = begin;
  v->entries[token].spelling_bytes = (uint32_t)spelling.bytes;
  return true;
}

int32_t vocabulary_find(const vocabulary *v, byte_string spelling) {
  return v->slot_count ? v->slots[find_slot(v, spelling)] - 1 : -1;
}

int32_t vocabulary_find_model(const vocabulary *v, byte_string spelling) {
  int32_t token = vocabulary_find(v, spelling);
  return token >= 0 && v->entries[token].in_model ? token : -1;
}

const token_entry *vocabulary_entry(const vocabulary *v, int64_t token) {
  return token >= 0 && token < v->size && v->entries[token].present ? &v->entries[token] : NULL;
}

byte_string vocabulary_spelling(const vocabulary *v, const token_entry *e) {
  return (byte_string){v->spellings.data + e->spelling, e->spelling_bytes};
}

byte_string vocabulary_text(const vocabulary *v, const token_entry *e) {
  return (byte_string){v->texts.data + e->text, e->text_bytes};
}

byte_string vocabulary_first_text(const vocabulary *v, const token_entry *e) {
  return e->has_first ? (byte_string){v->texts.data + e->first, e->first_bytes} : vocabulary_text(v, e);
}

void vocabulary_free(vocabulary *v) {
  free(v->entries);
  free(v->slots);
  bytes_free(&v->spellings);
  bytes_free(&v->texts);
  *v = (vocabulary){0};
}
