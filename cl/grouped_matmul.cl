/* Products of experts' rows with their matrices, and the gradient of the matrices. Rows of one expert lie together,
 * between its offset and the next one's; those after the last expert's are of none, and become 0.
 *
 * grouped_matmul: a work-group for each tile of results (tile.h). Which expert's a tile is it finds by counting tiles
 * up to its own; there are as many work-groups as there can be tiles, and those past the last do nothing.
 * grouped_weights: a work-group for each tile of each expert's gradient, which sums over the expert's rows. */
#include "inline.h"
#include "matmul.h"
#include "moe_args.h"

#ifndef GROUPED_SIDE
#define GROUPED_SIDE 8
#endif
#define SIDE GROUPED_SIDE
#include "tile.h"

/* The rows of expert e, whatever the offsets are; of e = experts those of none. */
INLINE void rows_of(const grouped_args *g, global const int *offsets, int e, int *begin, int *end) {
  const int last = g->experts, of = min(e, last - 1);
  const int first = clamp(offsets[view_at(&g->offsets, of, 0, 0, 0)], 0, g->rows);
  const int past = clamp(offsets[view_at(&g->offsets, of + 1, 0, 0, 0)], first, g->rows);
  *begin = e < last ? first : past;
  *end = e < last ? past : g->rows;
}

/* Where a product's operands lie: results (i, j) are sums over k of a[i][k] b[k][j]. */
typedef struct operands {
  long a, a_row, a_k, b, b_column, b_k; /* element 0 of the tile, and strides */
  int m, n, k;                          /* of what is left from there on      */
} operands;

INLINE void multiply(const operands *p, global const a_t *a, global const b_t *b, local float (*a_tile)[TILE + 1],
                     local float (*b_tile)[TILE + 1], tile *sum) {
  WORK_ITEM;
  for (int k0 = 0; k0 < p->k; k0 += DEPTH) {
    local_barrier();
    FOR_SLICE(e) {
      int kk = p->a_k == 1 ? e % DEPTH : e / TILE, i = p->a_k == 1 ? e / DEPTH : e % TILE;
      a_tile[kk][i] =
          i < p->m && k0 + kk < p->k ? LOAD(A_TYPE, a, p->a + i * p->a_row + (k0 + kk) * p->a_k) : 0.0f;
      kk = p->b_k == 1 ? e % DEPTH : e / TILE;
      i = p->b_k == 1 ? e / DEPTH : e % TILE;
      b_tile[kk][i] =
          i < p->n && k0 + kk < p->k ? LOAD(B_TYPE, b, p->b + i * p->b_column + (k0 + kk) * p->b_k) : 0.0f;
    }
    local_barrier();
    tile_multiply(sum, a_tile, b_tile, x, y);
  }
  ANCHOR
}

__kernel TILE_GROUP void grouped_matmul(const grouped_args g, __global const a_t *a, __global const b_t *b,
                                        __global const int *offsets, __global const float *scale,
                                        __global out_t *out) {
  __local float a_tile[DEPTH][TILE + 1], b_tile[DEPTH][TILE + 1];
  WORK_ITEM;
  int left = (int)get_group_id(1), expert = 0, begin = 0, end = 0;
  for (; expert <= g.experts; expert++) {
    rows_of(&g, offsets, expert, &begin, &end);
    const int tiles = (end - begin + TILE - 1) / TILE;
    if (left < tiles) break;
    left -= tiles;
  }
  const int row = begin + left * TILE, column = (int)get_group_id(0) * TILE;
  const int rows = expert <= g.experts ? end - row : 0, none = expert >= g.experts;
  const operands p = {.a = g.a.offset + row * g.a.stride[0],
                      .a_row = g.a.stride[0],
                      .a_k = g.a.stride[1],
                      .b = g.b.offset + expert * g.b.stride[0] + column * g.b.stride[1],
                      .b_column = g.b.stride[1],
                      .b_k = g.b.stride[2],
                      .m = rows,
                      .n = g.n - column,
                      .k = none ? 0 : g.k};
  tile sum = tile_zero();
  multiply(&p, a, b, a_tile, b_tile, &sum);
  for (int r = 0; r < 4; r++)
    for (int c = 0; c < 4; c++) {
      const int i = y + r * SIDE, j = x + c * SIDE;
      if (i >= p.m || j >= p.n) continue;
      float value = sum.v[r][c];
      if (SCALED(B_TYPE) && !none) value *= scale[view_at(&g.scale, expert, column + j, 0, 0)];
      STORE(OUT_TYPE, out, view_at(&g.out, row + i, column + j, 0, 0), value);
    }
}

__kernel TILE_GROUP void grouped_weights(const grouped_args g, __global const a_t *a, __global const b_t *b,
                                         __global const int *offsets, __global out_t *out) {
  __local float a_tile[DEPTH][TILE + 1], b_tile[DEPTH][TILE + 1];
  WORK_ITEM;
  const int expert = (int)get_group_id(2), row = (int)get_group_id(1) * TILE, column = (int)get_group_id(0) * TILE;
  int begin, end;
  rows_of(&g, offsets, expert, &begin, &end);
  const operands p = {.a = g.a.offset + begin * g.a.stride[0] + row * g.a.stride[1],
                      .a_row = g.a.stride[1],
                      .a_k = g.a.stride[0],
                      .b = g.b.offset + begin * g.b.stride[0] + column * g.b.stride[1],
                      .b_column = g.b.stride[1],
                      .b_k = g.b.stride[0],
                      .m = g.n - row,
                      .n = g.k - column,
                      .k = end - begin};
  tile sum = tile_zero();
  multiply(&p, a, b, a_tile, b_tile, &sum);
  for (int r = 0; r < 4; r++)
    for (int c = 0; c < 4; c++) {
      const int i = y + r * SIDE, j = x + c * SIDE;
      if (i < p.m && j < p.n) STORE(OUT_TYPE, out, view_at(&g.out, expert, row + i, column + j, 0), sum.v[r][c]);
    }
}
