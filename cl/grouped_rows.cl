/* Few rows of experts against matrices that are contiguous along k, as in generation: only the matrices of experts
 * with rows are read, so the time is that of their bytes. A row of `lanes` work-items takes COLUMNS columns of one row
 * of a, as in matmul_row.cl. */
#include "matmul.h"
#include "matmul_pieces.h"
#include "moe_args.h"
#include "view.h"

#define COLUMNS 2

/* The expert of a row, whatever the offsets are; g.experts: none. */
static inline int expert_of(const grouped_args *g, __global const int *offsets, int row) {
  int low = 0, high = g->experts; /* the first expert whose rows end past this one */
  while (low < high) {
    const int middle = (low + high) / 2;
    if (offsets[view_at(&g->offsets, middle + 1, 0, 0, 0)] <= row)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

__kernel void grouped_rows(const grouped_args g, __global const a_t *a, __global const b_t *b,
                           __global const int *offsets, __global const float *scale, __global out_t *out,
                           __local float *scratch) {
  const int lane = (int)get_local_id(0), lanes = (int)get_local_size(0), j0 = (int)get_global_id(1) * COLUMNS;
  const int row = (int)get_global_id(2), expert = expert_of(&g, offsets, row), k = expert < g.experts ? g.k : 0;
  __local float *mine = scratch + (int)get_local_id(1) * lanes * COLUMNS;
  const long a_at = g.a.offset + row * g.a.stride[0], a_column = g.a.stride[1];
  /* A column past the end is the last one once more, and not written. */
  const long matrix = g.b.offset + min(expert, g.experts - 1) * g.b.stride[0];
  const long column[COLUMNS] = {matrix + min(j0, g.n - 1) * g.b.stride[1], matrix + min(j0 + 1, g.n - 1) * g.b.stride[1]};
  float sum[COLUMNS] = {0.0f, 0.0f};
#pragma unroll 4
  for (int kk = 8 * lane; kk + 8 <= k; kk += 8 * lanes) {
    const float8 u = numbers_a(stored_a(a, a_at + kk * a_column, a_column));
    sum[0] = add_products(sum[0], u, numbers_b(stored_b(b, column[0] + kk)));
    sum[1] = add_products(sum[1], u, numbers_b(stored_b(b, column[1] + kk)));
  }
  const int rest = k & ~7;
#pragma unroll
  for (int c = 0; c < COLUMNS; c++) {
    if (lane < k - rest)
      sum[c] = fma(LOAD(A_TYPE, a, a_at + (rest + lane) * a_column), LOAD(B_TYPE, b, column[c] + rest + lane), sum[c]);
    mine[c * lanes + lane] = sum[c];
  }
  for (int step = lanes / 2; step > 0; step /= 2) {
    local_barrier();
    if (lane < step)
      for (int c = 0; c < COLUMNS; c++) mine[c * lanes + lane] += mine[c * lanes + lane + step];
  }
  local_barrier();
  if (lane < COLUMNS && j0 + lane < g.n) {
    float value = mine[lane * lanes];
    if (SCALED(B_TYPE) && k > 0) value *= scale[view_at(&g.scale, expert, j0 + lane, 0, 0)];
    STORE(OUT_TYPE, out, view_at(&g.out, row, j0 + lane, 0, 0), value);
  }
}
