/* Sums in two stages and a fixed order: over the rows of a matrix, and of squares over a vector. */
#include "columns.h"
#include "common.h"
#include "storage.h"

#ifndef X_TYPE
#define X_TYPE f32
#endif

/* partial[chunk][column] = sum of x over the chunk's rows. Groups: (column tiles, chunks). */
__kernel void column_partial(__global const STORAGE(X_TYPE) *x, long x_offset, long x_row, long x_column, int rows, int dim,
                             int chunk_rows, __global float *partial, long partial_offset, __local float *scratch) {
  int column = (int)get_global_id(0), chunk = (int)get_group_id(1);
  int begin = chunk * chunk_rows + (int)get_local_id(1), end = min((chunk + 1) * chunk_rows, rows);
  float sum = 0.0f;
  if (column < dim) {
    __global const STORAGE(X_TYPE) *p = x + x_offset + column * x_column;
#pragma unroll 4
    for (int i = begin; i < end; i += (int)get_local_size(1)) sum += LOAD(X_TYPE, p, i * x_row);
  }
  sum = lane_sum(sum, scratch);
  if (get_local_id(1) == 0 && column < dim) partial[partial_offset + (long)chunk * dim + column] = sum;
}

/* out[column] = sum of the chunks' partial sums, in order; chunks lie partial_row apart. */
__kernel void column_finish(__global const float *partial, long partial_offset, long partial_row, int dim, int chunks,
                            __global float *out, long out_offset, long out_stride) {
  int column = (int)get_global_id(0);
  if (column >= dim) return;
  float sum = 0.0f;
#pragma unroll 8
  for (int chunk = 0; chunk < chunks; chunk++) sum += partial[partial_offset + chunk * partial_row + column];
  out[out_offset + column * out_stride] = sum;
}

/* partial[group] = sum of squares of the elements that the group visits; all groups walk the vector together. */
__kernel void square_partial(__global const STORAGE(X_TYPE) *x, long x_offset, long x_stride, long count,
                             __global float *partial, long partial_offset, __local float *scratch) {
  long step = (long)get_global_size(0);
  float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  long i = (long)get_global_id(0);
  for (; i + 3 * step < count; i += 4 * step)
#pragma unroll
    for (int k = 0; k < 4; k++) {
      float value = LOAD(X_TYPE, x, x_offset + (i + k * step) * x_stride);
      sum[k] += value * value;
    }
  for (; i < count; i += step) {
    float value = LOAD(X_TYPE, x, x_offset + i * x_stride);
    sum[0] += value * value;
  }
  float total = work_group_sum((sum[0] + sum[1]) + (sum[2] + sum[3]), scratch);
  if (get_local_id(0) == 0) partial[partial_offset + (long)get_group_id(0)] = total;
}

/* out = sum of `count` numbers, and of what it held, by one work-group. */
__kernel void sum_finish(__global const float *partial, long partial_offset, int count, __global float *out,
                         long out_offset, int accumulate, __local float *scratch) {
  float sum = 0.0f;
  for (int i = (int)get_local_id(0); i < count; i += (int)get_local_size(0)) sum += partial[partial_offset + i];
  sum = work_group_sum(sum, scratch);
  if (get_local_id(0) == 0) out[out_offset] = accumulate ? out[out_offset] + sum : sum;
}
