#include "schedule/plan_cache.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

typedef struct entry {
  uint64_t hash, used; /* used 0: empty */
  size_t key_bytes;
  unsigned char key[PLAN_KEY_BYTES];
  union {
    unsigned char bytes[PLAN_BYTES];
    max_align_t align;
  } plan;
} entry;

struct plan_cache {
  size_t capacity;
  uint64_t clock;
  entry *last;
  entry entries[];
};

plan_cache *plan_cache_create(size_t capacity) {
  plan_cache *c = calloc(1, sizeof *c + capacity * sizeof c->entries[0]);
  if (c) c->capacity = capacity;
  return c;
}

void plan_cache_destroy(plan_cache *c) { free(c); }

void *plan_cache_get(plan_cache *c, const void *key, size_t key_bytes, bool *found) {
  uint64_t hash = XXH3_64bits(key, key_bytes);
  entry *oldest = &c->entries[0];
  for (size_t i = 0; i < c->capacity; i++) {
    entry *e = &c->entries[i];
    *found = e->used && e->hash == hash && e->key_bytes == key_bytes && memcmp(e->key, key, key_bytes) == 0;
    if (*found) {
      e->used = ++c->clock;
      c->last = e;
      return e->plan.bytes;
    }
    if (e->used < oldest->used) oldest = e;
  }
  memset(oldest, 0, sizeof *oldest);
  oldest->hash = hash;
  oldest->used = ++c->clock;
  oldest->key_bytes = key_bytes;
  memcpy(oldest->key, key, key_bytes);
  c->last = oldest;
  return oldest->plan.bytes;
}

void plan_cache_forget(plan_cache *c) {
  if (c->last) c->last->used = 0;
}
