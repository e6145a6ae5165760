/* Caches of keys and values: a work-item for each number of a key and its value.
 *   bytes per element: read once, written once */
#include "common.h"
#include "kv_cache_args.h"
#include "sequence_row.h"
#include "storage.h"
#include "view.h"

#ifndef X_TYPE /* of k and v */
#define X_TYPE f32
#endif
#ifndef CACHE_TYPE
#define CACHE_TYPE f32
#endif
typedef STORAGE(X_TYPE) x_t;
typedef STORAGE(CACHE_TYPE) cache_t;

kernel void kv_append(const kv_args a, global const x_t *k, global const x_t *v, global const int *offsets,
                      global const int *ends, global cache_t *k_cache, global cache_t *v_cache) {
  const long i = (long)get_global_id(0), p = i % a.head_dim, head = i / a.head_dim % a.heads;
  const long step = i / a.head_dim / a.heads % a.length, batch = i / a.head_dim / a.heads / a.length;
  if (batch >= a.batch) return;
  const sequence_row r =
      sequence_row_of(a.flags & KV_IS_PACKED ? ends : 0, &a.ends, a.length, a.sequences, batch, step);
  if (r.row < 0) return;
  const long place = (long)offsets[a.offsets.offset + r.row * a.offsets.stride[0]] + step - r.begin;
  if (place < 0 || place >= a.keys) return;
  STORE(CACHE_TYPE, k_cache, view_at(&a.k_cache, r.row, place, head, p),
        LOAD(X_TYPE, k, view_at(&a.k, batch, step, head, p)));
  STORE(CACHE_TYPE, v_cache, view_at(&a.v_cache, r.row, place, head, p),
        LOAD(X_TYPE, v, view_at(&a.v, batch, step, head, p)));
}

/* offsets[i] += steps, or the length of sequence i. */
kernel void kv_advance(global int *offsets, long offsets_offset, long offsets_stride, global const int *ends,
                       long ends_offset, long ends_stride, int has_ends, long steps, long sequences) {
  const long i = (long)get_global_id(0);
  if (i >= sequences) return;
  const long more =
      has_ends ? (long)ends[ends_offset + (i + 1) * ends_stride] - ends[ends_offset + i * ends_stride] : steps;
  global int *at = offsets + offsets_offset + i * offsets_stride;
  *at = (int)(uint)((ulong)*at + (ulong)more);
}
