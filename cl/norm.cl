/* RMSNorm and LayerNorm (-DNORM_LAYER), forward and backward: one work-group per row. -DNORM_ADD: of x + added, the
 * residual stream, which goes on as `sum` or whose gradient is dadded.
 *
 * With x^ = (x - mean) scale, scale = 1 / sqrt(mean((x - mean)^2) + epsilon) and g = dout weight:
 *   out = x^ weight + bias        dx = scale (g - x^ mean(g x^) - mean(g)) + residual
 * (RMSNorm: mean = 0 and no mean(g)). A row is read from memory once; later passes over it find it in the cache.
 * The gradients of weight and bias are sums over rows: columns.h. */
#include "columns.h"
#include "common.h"
#include "storage.h"

#ifndef X_TYPE /* of x and dx; parameters and sums are f32 */
#define X_TYPE f32
#endif
#ifndef OUT_TYPE /* of out and dout */
#define OUT_TYPE f32
#endif
#ifndef ADDED_TYPE /* of added and dadded */
#define ADDED_TYPE f32
#endif
#ifndef SUM_TYPE
#define SUM_TYPE f32
#endif
#ifndef RESIDUAL_TYPE
#define RESIDUAL_TYPE f32
#endif
typedef STORAGE(X_TYPE) x_t;
typedef STORAGE(OUT_TYPE) out_t;
typedef STORAGE(ADDED_TYPE) added_t;

/* What is normed, at column j of the row that the pointers are at. */
#ifdef NORM_ADD
#define ADDED_PARAMETERS                                                                                              \
  , __global const added_t *added, long added_offset, long added_row, long added_column, int has_added
#define ROW_PARAMETERS __global const x_t *x, long x_column, __global const added_t *added, long added_column
#define ROW            x, x_column, added, added_column
#define TO_ROW(row)                                                                                                   \
  x += x_offset + (row) * x_row;                                                                                      \
  added = has_added ? added + added_offset + (row) * added_row : 0
#define INPUT(j) (LOAD(X_TYPE, x, (j) * x_column) + (added ? LOAD(ADDED_TYPE, added, (j) * added_column) : 0.0f))
#else
#define ADDED_PARAMETERS
#define ROW_PARAMETERS __global const x_t *x, long x_column
#define ROW            x, x_column
#define TO_ROW(row)    x += x_offset + (row) * x_row
#define INPUT(j)       LOAD(X_TYPE, x, (j) * x_column)
#endif

/* Mean and scale of the row x, the same in every work-item. */
static inline float2 row_statistics(ROW_PARAMETERS, int dim, float epsilon, __local float *scratch) {
  int lid = (int)get_local_id(0), items = (int)get_local_size(0);
  float mean = 0.0f, squares = 0.0f;
#ifdef NORM_LAYER
  float sum = 0.0f;
  for (int j = lid; j < dim; j += items) sum += INPUT(j);
  mean = work_group_sum(sum, scratch) / (float)dim;
#endif
  for (int j = lid; j < dim; j += items) {
    float centred = INPUT(j) - mean;
    squares += centred * centred;
  }
  squares = work_group_sum(squares, scratch);
  return (float2)(mean, 1.0f / sqrt(squares / (float)dim + epsilon));
}

__kernel void norm(__global const x_t *x, long x_offset, long x_row, long x_column, __global const float *weight,
                   long weight_offset, long weight_stride, int has_weight, __global const float *bias, long bias_offset,
                   long bias_stride, int has_bias, __global out_t *out, long out_offset, long out_row, long out_column,
                   int dim, float epsilon, __local float *scratch ADDED_PARAMETERS
#ifdef NORM_ADD
                   , __global STORAGE(SUM_TYPE) *sum, long sum_offset, long sum_row, long sum_column, int has_sum
#endif
) {
  long row = (long)get_group_id(0);
  TO_ROW(row);
  out += out_offset + row * out_row;
  float2 s = row_statistics(ROW, dim, epsilon, scratch);
  for (int j = (int)get_local_id(0); j < dim; j += (int)get_local_size(0)) {
    const float input = INPUT(j);
    float value = (input - s.x) * s.y;
    if (has_weight) value *= weight[weight_offset + j * weight_stride];
    if (has_bias) value += bias[bias_offset + j * bias_stride];
    STORE(OUT_TYPE, out, j * out_column, value);
#ifdef NORM_ADD /* here, as sum may be x or added */
    if (has_sum) STORE(SUM_TYPE, sum, sum_offset + row * sum_row + j * sum_column, input);
#endif
  }
}

/* dx, and the row's mean and scale for the second kernel (statistics: (rows, 2)). */
__kernel void norm_backward(__global const x_t *x, long x_offset, long x_row, long x_column,
                            __global const float *weight, long weight_offset, long weight_stride, int has_weight,
                            __global const out_t *dout, long dout_offset, long dout_row, long dout_column,
                            __global const STORAGE(RESIDUAL_TYPE) *residual, long residual_offset, long residual_row,
                            long residual_column, int has_residual, __global x_t *dx, long dx_offset, long dx_row,
                            long dx_column, int has_dx, __global float *statistics, long statistics_offset, int dim,
                            float epsilon, __local float *scratch ADDED_PARAMETERS
#ifdef NORM_ADD
                            , __global added_t *dadded, long dadded_offset, long dadded_row, long dadded_column,
                            int has_dadded
#endif
) {
#ifndef NORM_ADD
  const int has_dadded = 0;
#endif
  long row = (long)get_group_id(0);
  int lid = (int)get_local_id(0), items = (int)get_local_size(0);
  TO_ROW(row);
  dout += dout_offset + row * dout_row;
  float2 s = row_statistics(ROW, dim, epsilon, scratch);
  if (lid == 0) {
    statistics[statistics_offset + 2 * row] = s.x;
    statistics[statistics_offset + 2 * row + 1] = s.y;
  }
  if (!has_dx && !has_dadded) dim = 0; /* no early return: every barrier below is met on every path */
  float along = 0.0f, level = 0.0f;
  for (int j = lid; j < dim; j += items) {
    float g = LOAD(OUT_TYPE, dout, j * dout_column);
    if (has_weight) g *= weight[weight_offset + j * weight_stride];
    along += g * (INPUT(j) - s.x) * s.y;
    level += g;
  }
  along = work_group_sum(along, scratch) / (float)dim;
#ifdef NORM_LAYER
  level = work_group_sum(level, scratch) / (float)dim;
#else
  level = 0.0f;
#endif
  for (int j = lid; j < dim; j += items) {
    float g = LOAD(OUT_TYPE, dout, j * dout_column);
    if (has_weight) g *= weight[weight_offset + j * weight_stride];
    float value = s.y * (g - (INPUT(j) - s.x) * s.y * along - level);
    if (has_residual)
      value += LOAD(RESIDUAL_TYPE, residual, residual_offset + row * residual_row + j * residual_column);
    if (has_dx) STORE(X_TYPE, dx, dx_offset + row * dx_row + j * dx_column, value);
#ifdef NORM_ADD
    if (has_dadded) STORE(ADDED_TYPE, dadded, dadded_offset + row * dadded_row + j * dadded_column, value);
#endif
  }
}

/* partial[chunk][0][column] of dweight and partial[chunk][1][column] of dbias. Groups: (column tiles, chunks). */
__kernel void norm_columns(__global const x_t *x, long x_offset, long x_row, long x_column,
                           __global const out_t *dout, long dout_offset, long dout_row, long dout_column,
                           __global const float *statistics, long statistics_offset, int rows, int dim, int chunk_rows,
                           __global float *partial, long partial_offset, __local float *scratch ADDED_PARAMETERS) {
  int column = (int)get_global_id(0), chunk = (int)get_group_id(1);
  int begin = chunk * chunk_rows + (int)get_local_id(1), end = min((chunk + 1) * chunk_rows, rows);
  float dweight = 0.0f, dbias = 0.0f;
  statistics += statistics_offset;
  if (column < dim) {
    x += x_offset + column * x_column;
    dout += dout_offset + column * dout_column;
#pragma unroll 4
    for (int i = begin; i < end; i += (int)get_local_size(1)) {
      float g = LOAD(OUT_TYPE, dout, i * dout_row), input = LOAD(X_TYPE, x, i * x_row);
#ifdef NORM_ADD
      if (has_added) input += LOAD(ADDED_TYPE, added, added_offset + i * added_row + column * added_column);
#endif
      dweight += g * ((input - statistics[2 * i]) * statistics[2 * i + 1]);
      dbias += g;
    }
  }
  dweight = lane_sum(dweight, scratch);
  dbias = lane_sum(dbias, scratch);
  if (get_local_id(1) == 0 && column < dim) {
    partial += partial_offset + (long)chunk * 2 * dim;
    partial[column] = dweight;
    partial[dim + column] = dbias;
  }
}
