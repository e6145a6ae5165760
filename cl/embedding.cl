/* Embedding: rows of a table by number, and the sum of rows by number that is its gradient.
 *
 * The gradient first sorts the positions by id (stable, cl/sort.cl), so that the rows of one id lie together in order of
 * position; then a work-group of (columns, lanes) sums the rows of one id. No atomics, so the same bits each time. */
#include "columns.h"
#include "sorted.h"
#include "storage.h"

#ifndef X_TYPE /* of the table, or of dout */
#define X_TYPE f32
#endif
#ifndef OUT_TYPE
#define OUT_TYPE f32
#endif

/* Groups: count x tiles of columns, in one dimension (others may be limited to 65535 groups). */
__kernel void embedding(__global const int *ids, long ids_offset, long ids_stride, __global const STORAGE(X_TYPE) *table,
                        long table_offset, long table_row, long table_column, __global const float *scale,
                        long scale_offset, long scale_stride, __global STORAGE(OUT_TYPE) *out, long out_offset,
                        long out_row, long out_column, int vocab, int dim, int tiles) {
  long group = (long)get_group_id(0), i = group / tiles;
  int j = (int)(group % tiles) * (int)get_local_size(0) + (int)get_local_id(0);
  if (j >= dim) return;
  int id = ids[ids_offset + i * ids_stride];
  float value = id >= 0 && id < vocab ? LOAD(X_TYPE, table, table_offset + id * table_row + j * table_column) : 0.0f;
  if (SCALED(X_TYPE) && id >= 0 && id < vocab) value *= scale[scale_offset + id * scale_stride];
  STORE(OUT_TYPE, out, out_offset + i * out_row + j * out_column, value);
}

/* first[v] = how many sorted keys are below v, for v in [0, vocab]. */
__kernel void embedding_first(__global const int *keys, long keys_offset, int count, int vocab, __global int *first,
                              long first_offset) {
  int v = (int)get_global_id(0);
  if (v <= vocab) first[first_offset + v] = sorted_below(keys + keys_offset, count, v);
}

/* dtable[v] (+)= sum of dout[order[p]] over p in [first[v], first[v + 1]). Groups: vocab x tiles of columns. */
__kernel void embedding_backward(__global const int *first, long first_offset, __global const int *order,
                                 long order_offset, __global const STORAGE(X_TYPE) *dout, long dout_offset, long dout_row,
                                 long dout_column, __global float *dtable, long dtable_offset, long dtable_row,
                                 long dtable_column, int dim, int tiles, int accumulate, __local float *scratch) {
  long group = (long)get_group_id(0), v = group / tiles;
  int j = (int)(group % tiles) * (int)get_local_size(0) + (int)get_local_id(0);
  int begin = first[first_offset + v], end = first[first_offset + v + 1], lanes = (int)get_local_size(1);
  float sum = 0.0f;
  if (j < dim) {
    dout += dout_offset + j * dout_column;
    int p = begin + (int)get_local_id(1);
    for (; p + 3 * lanes < end; p += 4 * lanes) { /* four rows in flight */
      float a = LOAD(X_TYPE, dout, order[order_offset + p] * dout_row);
      float b = LOAD(X_TYPE, dout, order[order_offset + p + lanes] * dout_row);
      float c = LOAD(X_TYPE, dout, order[order_offset + p + 2 * lanes] * dout_row);
      float d = LOAD(X_TYPE, dout, order[order_offset + p + 3 * lanes] * dout_row);
      sum += (a + b) + (c + d);
    }
    for (; p < end; p += lanes) sum += LOAD(X_TYPE, dout, order[order_offset + p] * dout_row);
  }
  if (lanes > 1) sum = lane_sum(sum, scratch);
  if (get_local_id(1) != 0 || j >= dim || (accumulate && begin == end)) return;
  __global float *out = dtable + dtable_offset + v * dtable_row + j * dtable_column;
  *out = accumulate ? *out + sum : sum;
}
