/* Products by tiles of TILE x TILE results, one for each work-group of SIDE x SIDE work-items, 4 x 4 results for each
 * of them; operands come through local memory in slices of DEPTH. Who includes this defines SIDE, and MULTIPLY where
 * a product is more than a product. */
#define TILE       (4 * SIDE)
#define DEPTH      16
#define TILE_GROUP __attribute__((reqd_work_group_size(SIDE, SIDE, 1)))

#ifndef MULTIPLY
#define MULTIPLY(sum, a, b) fma(a, b, sum)
#endif

#include "view.h"

typedef struct tile {
  float v[4][4]; /* rows y + SIDE r, columns x + SIDE c */
} tile;

static inline tile tile_zero(void) {
  tile t;
  for (int r = 0; r < 4; r++)
    for (int c = 0; c < 4; c++) t.v[r][c] = 0.0f;
  return t;
}

/* Adds the product of a slice: a has [k][row], b has [k][column]. */
static inline void tile_multiply(tile *t, local const float (*a)[TILE + 1], local const float (*b)[TILE + 1], int x,
                                 int y) {
  for (int k = 0; k < DEPTH; k++) {
    float av[4], bv[4];
#pragma unroll
    for (int r = 0; r < 4; r++) av[r] = a[k][y + r * SIDE];
#pragma unroll
    for (int c = 0; c < 4; c++) bv[c] = b[k][x + c * SIDE];
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
      for (int c = 0; c < 4; c++) t->v[r][c] = MULTIPLY(t->v[r][c], av[r], bv[c]);
  }
}

/* For loops over a slice's elements: neighbours walk along k, or along the rows. */
#define FOR_SLICE(e)  for (int e = ITEM; e < TILE * DEPTH; e += SIDE * SIDE)
#define ALONG_K(e)    const int kk = e % DEPTH, i = e / DEPTH
#define ALONG_ROWS(e) const int kk = e / TILE, i = e % TILE
/* The same for pairs of neighbours along k. */
#define PAIR_ALONG_K(e)    const int kk = e % (DEPTH / 2) * 2, i = e / (DEPTH / 2)
#define PAIR_ALONG_ROWS(e) const int kk = e / TILE * 2, i = e % TILE
#define WORK_ITEM     const int x = (int)get_local_id(0), y = (int)get_local_id(1)
#define ITEM          (y * SIDE + x)

/* ---- For kernels that also have a form on matrix engines: the same names as in tile_engine.h ---- */

#define TILE_ITEMS      (SIDE * SIDE)
#define TILE_RESULTS    16
#define TILE_MEMORY(m)  local float m[2 * DEPTH * (TILE + 1)]
#define PLANES_STORED   1 /* a number is kept whole */
#ifndef PLANES_COMPUTED
#define PLANES_COMPUTED 1
#endif
#define FOR_PAIRS(e)    for (int e = item; e < TILE * DEPTH / 2; e += TILE_ITEMS)
#define FOR_RESULTS(e)  for (int e = 0; e < TILE_RESULTS; e++)

typedef local float *tile_memory;

static inline int tile_item(void) { return (int)get_local_id(1) * SIDE + (int)get_local_id(0); }
static inline int tile_row(int item, int e) { return item / SIDE + e / 4 * SIDE; }
static inline int tile_column(int item, int e) { return item % SIDE + e % 4 * SIDE; }
#define tile_result(t, e) ((t)->v[(e) / 4][(e) % 4])

static inline void tile_clear(tile *t) { *t = tile_zero(); }

/* Numbers k and k + 1 of a row. */
static inline void put_a(tile_memory m, int planes, int row, int k, float x, float next) {
  m[k * (TILE + 1) + row] = x;
  m[(k + 1) * (TILE + 1) + row] = next;
}
static inline void put_b(tile_memory m, int planes, int row, int k, float x, float next) {
  put_a(m + DEPTH * (TILE + 1), planes, row, k, x, next);
}

static inline void tile_add(tile *t, tile_memory m, int a_planes, int b_planes) {
  tile_multiply(t, (local const float(*)[TILE + 1]) m, (local const float(*)[TILE + 1])(m + DEPTH * (TILE + 1)),
                (int)get_local_id(0), (int)get_local_id(1));
}
