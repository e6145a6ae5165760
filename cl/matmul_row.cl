/* Product of one to four rows with a matrix whose columns lie along memory (a weight of (n, k), transposed): what a
 * decoding step does. A work-group of (lanes, columns) reads one column of b per row of work-items; the lanes' sums are
 * added as a tree. b is read once, so the time is that of its bytes. MATMUL_ROWS: 1 to 4. */
#include "matmul.h"

#ifndef MATMUL_ROWS
#define MATMUL_ROWS 1
#endif

__kernel void matmul_row(__global const a_t *a, long a_offset, long a_row, long a_column, __global const b_t *b,
                         long b_offset, long b_column, int n, int k, __local float *scratch, EPILOGUE_PARAMETERS) {
  int x = (int)get_local_id(0), lanes = (int)get_local_size(0), line = (int)get_local_id(1) * lanes;
  int j = (int)get_global_id(1);
  float sum[MATMUL_ROWS];
#pragma unroll
  for (int r = 0; r < MATMUL_ROWS; r++) sum[r] = 0.0f;
  a += a_offset;
  if (j < n) {
    b += b_offset + j * b_column;
#pragma unroll 4
    for (int kk = x; kk < k; kk += lanes) {
      float value = LOAD(B_TYPE, b, kk);
#pragma unroll
      for (int r = 0; r < MATMUL_ROWS; r++) sum[r] = fma(LOAD(A_TYPE, a, r * a_row + kk * a_column), value, sum[r]);
    }
  }
  for (int r = 0; r < MATMUL_ROWS; r++) {
    local_barrier();
    scratch[line + x] = sum[r];
    for (int step = lanes / 2; step > 0; step /= 2) {
      local_barrier();
      if (x < step) scratch[line + x] += scratch[line + x + step];
    }
    ANCHOR
    if (x == 0 && j < n) EPILOGUE(scratch[line], r, j); /* this work-item wrote scratch[line] itself */
  }
}
