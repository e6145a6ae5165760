/* Matrix product for any strides: out = activation(scale (a b) + bias) + residual.
 *
 * A work-group of SIDE x SIDE work-items owns a tile of 4 SIDE x 4 SIDE results; each work-item keeps 4 x 4 of them in
 * registers, SIDE apart, so that neighbours read neighbouring words of local memory and write neighbouring results.
 * a and b pass through local memory in slices of DEPTH; which index neighbours load along is chosen at run time by
 * which stride is 1. Where the results are too few to fill the device, k is cut into parts (dimension 2 of the
 * grid): each part leaves its sums in `partial`, and matmul_finish adds them in order.
 * MATMUL_SIDE: 16 (256 work-items), or 8 for small products and devices with small work-groups.
 * MATMUL_ROLLED: keep the loop over a slice. */
#include "matmul.h"

#ifndef MATMUL_SIDE
#define MATMUL_SIDE 16
#endif
#define SIDE  MATMUL_SIDE
#define TILE  (4 * SIDE)
#define DEPTH 16

__kernel __attribute__((reqd_work_group_size(SIDE, SIDE, 1))) void
matmul(__global const a_t *a, long a_offset, long a_row, long a_column, __global const b_t *b, long b_offset,
       long b_row, long b_column, int m, int n, int k, int part, __global float *partial, long partial_offset,
       int has_partial, EPILOGUE_PARAMETERS) {
  __local float a_tile[DEPTH][TILE + 1], b_tile[DEPTH][TILE + 1];
  int x = (int)get_local_id(0), y = (int)get_local_id(1), item = y * SIDE + x;
  int i0 = (int)get_group_id(1) * TILE, j0 = (int)get_group_id(0) * TILE;
  int begin = (int)get_group_id(2) * part, end = min(begin + part, k);
  a += a_offset;
  b += b_offset;
  float sum[4][4];
#pragma unroll
  for (int r = 0; r < 4; r++)
#pragma unroll
    for (int c = 0; c < 4; c++) sum[r][c] = 0.0f;

  for (int k0 = begin; k0 < end; k0 += DEPTH) {
    local_barrier();
#pragma unroll
    for (int e = 0; e < TILE * DEPTH / (SIDE * SIDE); e++) {
      int at = e * SIDE * SIDE + item;
      int kk = a_column == 1 ? at % DEPTH : at / TILE, i = a_column == 1 ? at / DEPTH : at % TILE;
      a_tile[kk][i] = i0 + i < m && k0 + kk < end ? LOAD(A_TYPE, a, (i0 + i) * a_row + (k0 + kk) * a_column) : 0.0f;
      kk = b_row == 1 ? at % DEPTH : at / TILE;
      int j = b_row == 1 ? at / DEPTH : at % TILE;
      b_tile[kk][j] = j0 + j < n && k0 + kk < end ? LOAD(B_TYPE, b, (k0 + kk) * b_row + (j0 + j) * b_column) : 0.0f;
    }
    local_barrier();
#ifndef MATMUL_ROLLED /* CPU compilers take seconds over the unrolled loop and gain nothing */
#pragma unroll
#endif
    for (int kk = 0; kk < DEPTH; kk++) {
      float av[4], bv[4];
#pragma unroll
      for (int r = 0; r < 4; r++) av[r] = a_tile[kk][y + r * SIDE];
#pragma unroll
      for (int c = 0; c < 4; c++) bv[c] = b_tile[kk][x + c * SIDE];
#pragma unroll
      for (int r = 0; r < 4; r++)
#pragma unroll
        for (int c = 0; c < 4; c++) sum[r][c] = fma(av[r], bv[c], sum[r][c]);
    }
  }
  ANCHOR
#pragma unroll
  for (int r = 0; r < 4; r++)
#pragma unroll
    for (int c = 0; c < 4; c++) {
      int i = i0 + y + r * SIDE, j = j0 + x + c * SIDE;
      if (i < m && j < n) {
        if (has_partial)
          partial[partial_offset + ((long)get_group_id(2) * m + i) * n + j] = sum[r][c];
        else
          EPILOGUE(sum[r][c], i, j);
      }
    }
}

/* Adds the parts in order, then the epilogue. `partial` may be `out` itself (one part, CLBlast's plain product). */
__kernel void matmul_finish(__global const float *partial, long partial_offset, long partial_part, long partial_row,
                            long partial_column, int parts, int m, int n, EPILOGUE_PARAMETERS) {
  int j = (int)get_global_id(0), i = (int)get_global_id(1);
  if (i >= m || j >= n) return;
  float sum = 0.0f;
  for (int p = 0; p < parts; p++)
    sum += partial[partial_offset + p * partial_part + i * partial_row + j * partial_column];
  EPILOGUE(sum, i, j);
}
