#include "text/vocabulary.h"
#include <stdlib.h>
#include <string.h>

static token_entry *find(const vocabulary *v, byte_string key) {
  token_entry *entry;
  HASH_FIND(hh, v->by_key, key.text, key.bytes, entry);
  return entry;
}

static bool grow_entries(vocabulary *v, int64_t token) {
  if (token < v->capacity) return true;
  int64_t capacity = v->capacity ? v->capacity : 1024;
  while (capacity <= token) capacity *= 2;
  token_entry **larger = realloc(v->entries, (size_t)capacity * sizeof *larger);
  if (!larger) return false;
  memset(larger + v->capacity, 0, (size_t)(capacity - v->capacity) * sizeof *larger);
  v->entries = larger;
  v->capacity = capacity;
  return true;
}

vocabulary_answer vocabulary_add(vocabulary *v, int64_t token, byte_string key) {
  if (token < 0 || token >= VOCABULARY_LIMIT) return VOCABULARY_OUT_OF_RANGE;
  if (vocabulary_entry(v, token)) return VOCABULARY_TOKEN_TWICE;
  if (find(v, key)) return VOCABULARY_SPELLING_TWICE;
  if (key.bytes >= UINT32_MAX || !grow_entries(v, token)) return VOCABULARY_NO_MEMORY;
  token_entry *entry = calloc(1, sizeof *entry + key.bytes + 1);
  if (!entry) return VOCABULARY_NO_MEMORY;
  entry->token = (int32_t)token;
  entry->key_bytes = (uint32_t)key.bytes;
  memcpy(entry->key, key.text, key.bytes);
  HASH_ADD(hh, v->by_key, key, key.bytes, entry);
  if (!entry->hh.tbl) {
    free(entry);
    return VOCABULARY_NO_MEMORY;
  }
  v->entries[token] = entry;
  if (token >= v->size) v->size = token + 1;
  return VOCABULARY_ADDED;
}

bool vocabulary_respell(vocabulary *v, int32_t token, byte_string spelling) {
  char *copy = calloc(1, spelling.bytes + 1);
  if (!copy) return false;
  memcpy(copy, spelling.text, spelling.bytes);
  token_entry *entry = v->entries[token];
  free(entry->respelled);
  entry->respelled = copy;
  entry->respelled_bytes = (uint32_t)spelling.bytes;
  return true;
}

int32_t vocabulary_find(const vocabulary *v, byte_string spelling) {
  const token_entry *entry = find(v, spelling);
  return entry ? entry->token : -1;
}

int32_t vocabulary_find_model(const vocabulary *v, byte_string spelling) {
  const token_entry *entry = find(v, spelling);
  return entry && entry->in_model ? entry->token : -1;
}

const token_entry *vocabulary_entry(const vocabulary *v, int64_t token) {
  return token >= 0 && token < v->size ? v->entries[token] : NULL;
}

byte_string vocabulary_spelling(const token_entry *e) {
  return e->respelled ? (byte_string){e->respelled, e->respelled_bytes} : (byte_string){e->key, e->key_bytes};
}

byte_string vocabulary_text(const vocabulary *v, const token_entry *e) {
  return (byte_string){v->texts.data + e->text, e->text_bytes};
}

byte_string vocabulary_first_text(const vocabulary *v, const token_entry *e) {
  return e->has_first ? (byte_string){v->texts.data + e->first, e->first_bytes} : vocabulary_text(v, e);
}

void vocabulary_free(vocabulary *v) {
  HASH_CLEAR(hh, v->by_key);
  for (int64_t token = 0; token < v->size; token++)
    if (v->entries[token]) {
      free(v->entries[token]->respelled);
      free(v->entries[token]);
    }
  free(v->entries);
  bytes_free(&v->texts);
  *v = (vocabulary){0};
}
