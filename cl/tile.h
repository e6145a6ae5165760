/* Products by tiles of TILE x TILE results, one for each work-group of SIDE x SIDE work-items, 4 x 4 results for each
 * of them; operands come through local memory in slices of DEPTH. Who includes this defines SIDE, and MULTIPLY where
 * a product is more than a product. */
#define TILE       (4 * SIDE)
#define DEPTH      16
#define TILE_GROUP __attribute__((reqd_work_group_size(SIDE, SIDE, 1)))

#ifndef MULTIPLY
#define MULTIPLY(sum, a, b) fma(a, b, sum)
#endif

/* An element of a view (kernel_args.h). */
static inline long view_at(const kernel_view *v, long i, long j, long k, long l) {
  return v->offset + i * v->stride[0] + j * v->stride[1] + k * v->stride[2] + l * v->stride[3];
}

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

/* Adds up what the SIDE work-items of a row of the tile hold, for all rows: scratch has [row][item]. */
static inline float row_sum(local const float (*scratch)[SIDE + 1], int row) {
  float sum = 0.0f;
  for (int i = 0; i < SIDE; i++) sum += scratch[row][i];
  return sum;
}

/* For loops over a slice's elements: neighbours walk along k, or along the rows. */
#define FOR_SLICE(e)  for (int e = ITEM; e < TILE * DEPTH; e += SIDE * SIDE)
#define ALONG_K(e)    const int kk = e % DEPTH, i = e / DEPTH
#define ALONG_ROWS(e) const int kk = e / TILE, i = e % TILE
#define WORK_ITEM     const int x = (int)get_local_id(0), y = (int)get_local_id(1)
#define ITEM          (y * SIDE + x)
