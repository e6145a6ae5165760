/* Product of one to eight rows with a matrix whose columns lie along memory (a weight of (n, k), transposed): what a
 * decoding step does. b is read once, so the time is that of its bytes.
 *
 * A row of `lanes` work-items takes COLUMNS columns of b: pieces of 8 numbers, one after the other, each multiplied
 * with that piece of every row of a; the lanes' sums are added as a tree, all at once.
 * MATMUL_ROWS: 1 to 8. */
#include "matmul.h"
#include "matmul_pieces.h"

#ifndef MATMUL_ROWS
#define MATMUL_ROWS 1
#endif
#define COLUMNS 2
#define SUMS    (MATMUL_ROWS * COLUMNS)

__kernel void matmul_row(__global const a_t *a, long a_offset, long a_row, long a_column, __global const b_t *b,
                         long b_offset, long b_column, int n, int k, __local float *scratch, EPILOGUE_PARAMETERS) {
  const int x = (int)get_local_id(0), lanes = (int)get_local_size(0), j0 = (int)get_global_id(1) * COLUMNS;
  __local float *mine = scratch + (int)get_local_id(1) * lanes * SUMS;
  float sum[MATMUL_ROWS][COLUMNS];
#pragma unroll
  for (int r = 0; r < MATMUL_ROWS; r++)
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) sum[r][c] = 0.0f;
  a += a_offset;
  b += b_offset;
  /* A column past the end is the last one once more, and not written. */
  const long column[COLUMNS] = {min(j0, n - 1) * b_column, min(j0 + 1, n - 1) * b_column};
#pragma unroll 4
  for (int kk = 8 * x; kk + 8 <= k; kk += 8 * lanes) {
    const float8 w0 = numbers_b(stored_b(b, column[0] + kk)), w1 = numbers_b(stored_b(b, column[1] + kk));
#pragma unroll
    for (int r = 0; r < MATMUL_ROWS; r++) {
      const float8 u = numbers_a(stored_a(a, r * a_row + kk * a_column, a_column));
      sum[r][0] = add_products(sum[r][0], u, w0);
      sum[r][1] = add_products(sum[r][1], u, w1);
    }
  }
  const int rest = k & ~7;
#pragma unroll
  for (int r = 0; r < MATMUL_ROWS; r++)
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
      float total = sum[r][c];
      if (x < k - rest)
        total = fma(LOAD(A_TYPE, a, r * a_row + (rest + x) * a_column), LOAD(B_TYPE, b, column[c] + rest + x), total);
      mine[(r * COLUMNS + c) * lanes + x] = total;
    }
  for (int step = lanes / 2; step > 0; step /= 2) {
    local_barrier();
    if (x < step)
      for (int s = 0; s < SUMS; s++) mine[s * lanes + x] += mine[s * lanes + x + step];
  }
  local_barrier();
  for (int s = x; s < SUMS; s += lanes) {
    const int r = s / COLUMNS, j = j0 + s % COLUMNS;
    if (j < n) EPILOGUE(mine[s * lanes], r, j);
  }
}
