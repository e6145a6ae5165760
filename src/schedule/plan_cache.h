/* Plans by what they were made for; the least recently used one makes room. A hit allocates nothing.
 * Thread safety: as the context that it belongs to. */
#ifndef CLM_SCHEDULE_PLAN_CACHE_H
#define CLM_SCHEDULE_PLAN_CACHE_H

#include <stdbool.h>
#include <stddef.h>

enum { PLAN_KEY_BYTES = 256, PLAN_BYTES = 1536 };

typedef struct plan_cache plan_cache;

/* NULL if there is no memory. All memory is taken here. */
plan_cache *plan_cache_create(size_t capacity);
void plan_cache_destroy(plan_cache *);

/* The plan kept for `key` (*found), or room for one, zeroed, which takes the place of the least recently used.
 * At most PLAN_KEY_BYTES and PLAN_BYTES; structs as keys must have been cleared, padding and all. */
void *plan_cache_get(plan_cache *, const void *key, size_t key_bytes, bool *found);

/* Forgets the plan that plan_cache_get gave last, because it could not be made. */
void plan_cache_forget(plan_cache *);

#endif
