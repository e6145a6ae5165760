/* Matrix product for OpenCL devices that are CPUs: no local memory and no barriers, which cost them more than they
 * gain; vectors of 16 instead, and caches do the rest. A work-item makes 4 rows by 16 columns (matmul_rows: b runs along
 * its rows) or 4 by 4 (matmul_dots: a and b both run along k). Dimension 0 walks over the rows, so that neighbours find
 * their columns of b in the cache. */
#include "matmul.h"

static inline float sum16(float16 v) {
  float8 a = v.lo + v.hi;
  float4 b = a.lo + a.hi;
  return (b.x + b.z) + (b.y + b.w);
}

__kernel void matmul_rows(__global const a_t *a, long a_offset, long a_row, long a_column, __global const b_t *b,
                          long b_offset, long b_row, int m, int n, int k, EPILOGUE_PARAMETERS) {
  int i = 4 * (int)get_global_id(0), j = 16 * (int)get_global_id(1);
  if (i >= m || j >= n) return;
  /* Rows past the end are the last row once more, and not written. */
  __global const a_t *a0 = a + a_offset + i * a_row, *a1 = a + a_offset + min(i + 1, m - 1) * a_row;
  __global const a_t *a2 = a + a_offset + min(i + 2, m - 1) * a_row, *a3 = a + a_offset + min(i + 3, m - 1) * a_row;
  float16 sum[4] = {(float16)(0.0f), (float16)(0.0f), (float16)(0.0f), (float16)(0.0f)};
  b += b_offset + j;
  if (j + 16 <= n) {
    for (int kk = 0; kk < k; kk++) {
      float16 v = LOAD16(B_TYPE, b, kk * b_row);
      sum[0] = fma((float16)(LOAD(A_TYPE, a0, kk * a_column)), v, sum[0]);
      sum[1] = fma((float16)(LOAD(A_TYPE, a1, kk * a_column)), v, sum[1]);
      sum[2] = fma((float16)(LOAD(A_TYPE, a2, kk * a_column)), v, sum[2]);
      sum[3] = fma((float16)(LOAD(A_TYPE, a3, kk * a_column)), v, sum[3]);
    }
  } else {
    float line[16];
    for (int c = 0; c < 16; c++) line[c] = 0.0f;
    for (int kk = 0; kk < k; kk++) {
      for (int c = 0; c < n - j; c++) line[c] = LOAD(B_TYPE, b, kk * b_row + c);
      float16 v = vload16(0, line);
      sum[0] = fma((float16)(LOAD(A_TYPE, a0, kk * a_column)), v, sum[0]);
      sum[1] = fma((float16)(LOAD(A_TYPE, a1, kk * a_column)), v, sum[1]);
      sum[2] = fma((float16)(LOAD(A_TYPE, a2, kk * a_column)), v, sum[2]);
      sum[3] = fma((float16)(LOAD(A_TYPE, a3, kk * a_column)), v, sum[3]);
    }
  }
  float line[16];
  for (int r = 0; r < 4 && i + r < m; r++) {
    vstore16(sum[r], 0, line);
    for (int c = 0; c < 16 && j + c < n; c++) EPILOGUE(line[c], i + r, j + c);
  }
}

__kernel void matmul_dots(__global const a_t *a, long a_offset, long a_row, __global const b_t *b, long b_offset,
                          long b_column, int m, int n, int k, EPILOGUE_PARAMETERS) {
  int i = 4 * (int)get_global_id(0), j = 4 * (int)get_global_id(1);
  if (i >= m || j >= n) return;
  __global const a_t *x[4];
  __global const b_t *y[4];
  float16 sum[4][4];
#pragma unroll
  for (int r = 0; r < 4; r++) {
    x[r] = a + a_offset + min(i + r, m - 1) * a_row;
    y[r] = b + b_offset + min(j + r, n - 1) * b_column;
#pragma unroll
    for (int c = 0; c < 4; c++) sum[r][c] = (float16)(0.0f);
  }
  int kk = 0;
  for (; kk + 16 <= k; kk += 16) {
    float16 u[4], v[4];
#pragma unroll
    for (int r = 0; r < 4; r++) {
      u[r] = LOAD16(A_TYPE, x[r], kk);
      v[r] = LOAD16(B_TYPE, y[r], kk);
    }
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
      for (int c = 0; c < 4; c++) sum[r][c] = fma(u[r], v[c], sum[r][c]);
  }
  float total[4][4];
#pragma unroll
  for (int r = 0; r < 4; r++)
#pragma unroll
    for (int c = 0; c < 4; c++) total[r][c] = sum16(sum[r][c]);
  for (int r = 0; r < 4 && i + r < m; r++)
    for (int c = 0; c < 4 && j + c < n; c++) {
      for (int rest = kk; rest < k; rest++) total[r][c] = fma(LOAD(A_TYPE, x[r], rest), LOAD(B_TYPE, y[c], rest), total[r][c]);
      EPILOGUE(total[r][c], i + r, j + c);
    }
}
