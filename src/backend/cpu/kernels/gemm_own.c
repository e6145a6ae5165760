/* The product without a library. b is copied, DEPTH rows at a time, into panels of PANEL vectors side by side;
 * against each panel run tiles of ROWS rows of a, read where they are unless they are stored by columns, with ROWS x
 * PANEL vectors of sums in registers. A narrow last panel has fewer vectors. Few rows against a b that is stored by
 * columns, the products of generation, are dot products and copy nothing. */
#include "gemm.h"
#include "transpose.h"

#if SIMD_LANES == 16
#define ROWS  6
#define PANEL 4
#elif SIMD_LANES == 8
#define ROWS  6
#define PANEL 2
#elif defined(__aarch64__)
#define ROWS  6
#define PANEL 4
#else
#define ROWS  4
#define PANEL 2
#endif
#define DEPTH GEMM_DEPTH
#define WIDTH (PANEL * LANES)

typedef struct panel_product {
  const float *a, *b; /* b packed: `vectors` vectors for each k */
  int64_t a_row, a_column, depth, out_row, columns;
  float alpha, beta;
  float *out;
} panel_product;

/* out = alpha a b + beta out for `rows` rows and `vectors` vectors of columns, the last of them perhaps not whole. */
INLINE void tile(int rows, int vectors, const panel_product *p, const float *a, float *out) {
  vec sum[ROWS][PANEL];
  UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < vectors; j++) sum[i][j] = vec_set(0);
  const float *b = p->b;
  for (int64_t k = 0; k < p->depth; k++, a += p->a_column, b += vectors * LANES) {
    vec bk[PANEL];
    UNROLL for (int j = 0; j < vectors; j++) bk[j] = vec_load(b + j * LANES);
    UNROLL for (int i = 0; i < rows; i++) {
      vec ai = vec_set(a[i * p->a_row]);
      UNROLL for (int j = 0; j < vectors; j++) sum[i][j] = ai * bk[j] + sum[i][j];
    }
  }
  for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < vectors; j++) {
      float *o = out + i * p->out_row + j * LANES;
      int64_t left = p->columns - j * LANES;
      vec v = vec_set(p->alpha) * sum[i][j];
      if (p->beta != 0) v = vec_set(p->beta) * vec_load_part(o, left) + v;
      vec_store_part(o, v, left);
    }
}

INLINE void panel_rows(int vectors, const panel_product *p, int64_t m) {
  int64_t i = 0;
  for (; i + ROWS <= m; i += ROWS) tile(ROWS, vectors, p, p->a + i * p->a_row, p->out + i * p->out_row);
  if (ROWS > 4 && i + 4 <= m) {
    tile(4, vectors, p, p->a + i * p->a_row, p->out + i * p->out_row);
    i += 4;
  }
  if (i + 2 <= m) {
    tile(2, vectors, p, p->a + i * p->a_row, p->out + i * p->out_row);
    i += 2;
  }
  for (; i < m; i++) tile(1, vectors, p, p->a + i * p->a_row, p->out + i * p->out_row);
}

static void run_panel(int64_t vectors, const panel_product *p, int64_t m) {
  switch (vectors) {
  case 1: panel_rows(1, p, m); break;
  case 2: panel_rows(2, p, m); break;
#if PANEL > 2
  case 3: panel_rows(3, p, m); break;
  case 4: panel_rows(4, p, m); break;
#endif
  default: break;
  }
}

/* Rows [0, depth) and `columns` columns of b into vectors of each row; lanes past the last column are 0. */
static void pack_panel(matrix b, int64_t depth, int64_t columns, int64_t vectors, float *out) {
  int64_t width = vectors * LANES;
  if (b.column == 1) {
    for (int64_t k = 0; k < depth; k++)
      for (int64_t j = 0; j < width; j += LANES)
        vec_store(out + k * width + j, j < columns ? vec_load_part(b.data + k * b.row + j, columns - j) : vec_set(0));
    return;
  }
  for (int64_t j = 0; j < width; j += LANES)
    for (int64_t k = 0; k < depth; k += LANES)
      transpose_block(b.data + j * b.column + k, b.column, max_of(0, min_of(LANES, columns - j)),
                      min_of(LANES, depth - k), out + k * width + j, width);
}

/* `rows` dot products with each of `columns` columns of b, all stored along k. */
INLINE void dots(int rows, int columns, int64_t k, const float *a, int64_t a_row, const float *b, int64_t b_column,
                 float sums[ROWS][4]) {
  vec sum[ROWS][4];
  UNROLL for (int i = 0; i < rows; i++) UNROLL for (int j = 0; j < columns; j++) sum[i][j] = vec_set(0);
  for (int64_t n = 0; n < k; n += LANES) {
    vec bk[4];
    UNROLL for (int j = 0; j < columns; j++) bk[j] = vec_load_part(b + j * b_column + n, k - n);
    UNROLL for (int i = 0; i < rows; i++) {
      vec ai = vec_load_part(a + i * a_row + n, k - n);
      UNROLL for (int j = 0; j < columns; j++) sum[i][j] = ai * bk[j] + sum[i][j];
    }
  }
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++) sums[i][j] = vec_sum(sum[i][j]);
}

static void few_rows(gemm_size size, float alpha, matrix a, matrix b, float beta, matrix out) {
  const int64_t m = size.m, n = size.n, k = size.k;
  for (int64_t j = 0; j < n; j += 4)
    for (int64_t i = 0; i < m; i++) {
      float sums[ROWS][4];
      int columns = (int)min_of(4, n - j);
      const float *ai = a.data + i * a.row, *bj = b.data + j * b.column;
      if (columns == 4) dots(1, 4, k, ai, a.row, bj, b.column, sums);
      else
        for (int c = 0; c < columns; c++) {
          float one[ROWS][4];
          dots(1, 1, k, ai, a.row, bj + c * b.column, b.column, one);
          sums[0][c] = one[0][0];
        }
      for (int c = 0; c < columns; c++) {
        float *o = out.data + i * out.row + j + c;
        *o = alpha * sums[0][c] + (beta == 0 ? 0 : beta * *o);
      }
    }
}

void gemm_own(gemm_size size, float alpha, matrix a, matrix b, float beta, matrix out, float *scratch) {
  const int64_t m = size.m, n = size.n, k = size.k;
  if (m <= 4 && a.column == 1 && b.column != 1) {
    few_rows(size, alpha, a, b, beta, out);
    return;
  }
  float *packed_a = scratch + DEPTH * WIDTH;
  for (int64_t k0 = 0; k0 < k; k0 += DEPTH) {
    int64_t depth = min_of(DEPTH, k - k0);
    matrix ak = {a.data + k0 * a.column, a.row, a.column};
    if (a.column != 1) { /* the steps of k would lie in lines of their own, all in a few sets of the cache */
      for (int64_t i = 0; i < depth; i++)
        memcpy(packed_a + i * GEMM_ROWS, ak.data + i * a.column, (size_t)m * sizeof(float));
      ak = (matrix){packed_a, 1, GEMM_ROWS};
    }
    for (int64_t j = 0; j < n; j += WIDTH) {
      int64_t columns = min_of(WIDTH, n - j), vectors = div_up(columns, LANES);
      pack_panel((matrix){b.data + k0 * b.row + j * b.column, b.row, b.column}, depth, columns, vectors, scratch);
      panel_product p = {.a = ak.data,
                         .b = scratch,
                         .a_row = ak.row,
                         .a_column = ak.column,
                         .depth = depth,
                         .out_row = out.row,
                         .columns = columns,
                         .alpha = alpha,
                         .beta = k0 == 0 ? beta : 1,
                         .out = out.data + j};
      run_panel(vectors, &p, m);
    }
  }
}
