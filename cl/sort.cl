/* Stable sort of (key, position) pairs by radix, 8 bits a pass: count digits per block, turn the counts into places
 * (all blocks of digit 0, then of digit 1, ...), move the pairs. Integer arithmetic only, the same result each time.
 * A block is as many pairs as a work-group has work-items, at most 256. */
#include "barrier.h"

#define DIGITS 256

static inline int digit_of(int key, int shift) { return (key >> shift) & (DIGITS - 1); }

/* keys[i] = ids[i], or `limit` where that is outside [0, limit); order[i] = i. ids: rows of `columns`, counted row by
 * row. */
__kernel void sort_keys(__global const int *ids, long ids_offset, long ids_row, long ids_column, int columns,
                        int count, int limit,
                        __global int *keys, long keys_offset, __global int *order, long order_offset) {
  int i = (int)get_global_id(0);
  if (i >= count) return;
  int id = ids[ids_offset + i / columns * ids_row + i % columns * ids_column];
  keys[keys_offset + i] = id >= 0 && id < limit ? id : limit;
  order[order_offset + i] = i;
}

/* counts[digit][block] */
__kernel void sort_count(__global const int *keys, long keys_offset, int count, int shift, int blocks,
                         __global int *counts, long counts_offset) {
  __local int own[DIGITS];
  int lid = (int)get_local_id(0), items = (int)get_local_size(0), i = (int)get_global_id(0);
  for (int d = lid; d < DIGITS; d += items) own[d] = 0;
  local_barrier();
  if (i < count) atomic_inc(&own[digit_of(keys[keys_offset + i], shift)]); /* a count is the same in any order */
  local_barrier();
  for (int d = lid; d < DIGITS; d += items) counts[counts_offset + (long)d * blocks + (int)get_group_id(0)] = own[d];
}

/* Exclusive sums of `total` counts in place, by one work-group: each work-item owns a run of them. */
__kernel void sort_places(__global int *counts, long counts_offset, int total, __local int *scratch) {
  int lid = (int)get_local_id(0), items = (int)get_local_size(0);
  int run = (total + items - 1) / items, begin = min(lid * run, total), end = min(begin + run, total), sum = 0;
  counts += counts_offset;
  for (int i = begin; i < end; i++) sum += counts[i];
  scratch[lid] = sum;
  for (int step = 1; step < items; step *= 2) {
    local_barrier();
    int before = lid >= step ? scratch[lid - step] : 0;
    local_barrier();
    scratch[lid] += before;
  }
  ANCHOR
  int place = scratch[lid] - sum;
  for (int i = begin; i < end; i++) {
    int n = counts[i];
    counts[i] = place;
    place += n;
  }
}

/* Moves each pair to its digit's place for this block plus the number of equal digits before it in the block. */
__kernel void sort_move(__global const int *keys, long keys_offset, __global const int *order, long order_offset,
                        int count, int shift, int blocks, __global const int *places, long places_offset,
                        __global int *new_keys, long new_keys_offset, __global int *new_order, long new_order_offset,
                        __local int *digits) {
  int lid = (int)get_local_id(0), i = (int)get_global_id(0);
  int key = i < count ? keys[keys_offset + i] : 0, digit = digit_of(key, shift), rank = 0;
  digits[lid] = digit;
  local_barrier();
  if (i >= count) return;
  for (int k = 0; k < lid; k++) rank += digits[k] == digit;
  int place = places[places_offset + (long)digit * blocks + (int)get_group_id(0)] + rank;
  new_keys[new_keys_offset + place] = key;
  new_order[new_order_offset + place] = order[order_offset + i];
}
