/* Product of up to 64 rows with a matrix whose columns lie along memory (a weight of (n, k), transposed) on the matrix
 * engine: what a step of many sequences does. b goes from memory into the registers of fragments, once; there are no
 * panels, and one launch does it all.
 *
 * A work-group takes COLUMN_BLOCKS x BLOCK_M columns of b; its sub-groups take turns along k, and their sums are added
 * as a tree. The instruction does not care which number of k stands where, if it is the same one in both operands: a
 * lane takes eight neighbours along k, whose words serve two instructions.
 *
 * a is of 16 bits, b the same or i8. ROW_BLOCKS: of BLOCK_N rows. ENGINE_MMA: the fragments are those of engine_mma.h. */
#include "matmul.h"
#include "matmul_pieces.h"
#include "panels.h"
#include "engine_fragments.h"

#define GROUPS      (ENGINE_ITEMS / LANES) /* sub-groups                          */
#define PIECE       8
#define LINE        (PIECE * 4)            /* numbers of k that a sub-group takes */
#define COLUMNS     (COLUMN_BLOCKS * BLOCK_M)
#define ROWS        (ROW_BLOCKS * BLOCK_N)
#define RESULTS     (COLUMN_BLOCKS * ROW_BLOCKS * BLOCK_RESULTS)
#define SHARE_BYTES (GROUPS / 2 * RESULTS * LANES * 4)

/* The words of a piece: integers are numbers that both 16-bit types hold. */
#ifdef INTEGERS
INLINE uint4 words_b(b_piece v) {
  const float8 x = numbers_b(v);
#ifdef ENGINE_F16
  ushort8 bits;
  vstore_half8(x, 0, (__private half *)&bits);
  return as_uint4(bits);
#else
  return as_uint4(convert_ushort8(as_uint8(x) >> (uint8)(16)));
#endif
}
#else
#define words_b(v) as_uint4(v)
#endif

/* A piece of which `left` numbers lie before the end of k; the others are 0. */
INLINE a_piece last_a(__global const a_t *a, long at, long column, int left) {
  a_t v[PIECE];
  for (int i = 0; i < PIECE; i++) v[i] = i < left ? a[at + i * column] : 0;
  return (a_piece)(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
}
INLINE b_piece last_b(__global const b_t *b, long at, int left) {
  b_t v[PIECE];
  for (int i = 0; i < PIECE; i++) v[i] = i < left ? b[at + i] : 0;
  return (b_piece)(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
}

/* sum += the products of 16 columns' words and 8 rows'. */
INLINE void multiply_words(float *sum, uint4 low, uint4 high, uint4 row, __local uchar *exchange, int item) {
  const uint b0[4] = {low.x, high.x, low.y, high.y}, a0[2] = {row.x, row.y};
  const uint b1[4] = {low.z, high.z, low.w, high.w}, a1[2] = {row.z, row.w};
  multiply(sum, b0, a0, exchange, item);
  multiply(sum, b1, a1, exchange, item);
}

/* Multiplies the words of b by those of every row r, whose piece `piece_of_row` gives. */
#define MULTIPLY_ROWS(piece_of_row)                                                                                  \
  UNROLL                                                                                                             \
  for (int r = 0; r < ROW_BLOCKS; r++) {                                                                             \
    const uint4 words_a = as_uint4(piece_of_row);                                                                    \
    UNROLL                                                                                                           \
    for (int c = 0; c < COLUMN_BLOCKS; c++)                                                                          \
      multiply_words(sum[c][r], words[2 * c], words[2 * c + 1], words_a, exchange, item);                            \
  }

__kernel __attribute__((reqd_work_group_size(ENGINE_ITEMS, 1, 1))) void
matmul_few(__global const a_t *a, long a_offset, long a_row, long a_column, __global const b_t *b, long b_offset,
           long b_column, int m, int n, int k, EPILOGUE_PARAMETERS) {
  __local uchar memory[SHARE_BYTES + EXCHANGE_BYTES] __attribute__((aligned(16)));
  __local float *share = (__local float *)memory;
  __local uchar *exchange = memory + SHARE_BYTES;
  const int item = (int)get_local_id(0), lane = item % LANES, group = item / LANES;
  const int j0 = (int)get_group_id(0) * COLUMNS;
  float sum[COLUMN_BLOCKS][ROW_BLOCKS][BLOCK_RESULTS];
  UNROLL
  for (int c = 0; c < COLUMN_BLOCKS; c++)
    UNROLL
    for (int r = 0; r < ROW_BLOCKS; r++)
      UNROLL
      for (int e = 0; e < BLOCK_RESULTS; e++) sum[c][r][e] = 0.0f;
  a += a_offset;
  b += b_offset;
  /* A row or column past the end is the last one once more, and not written. */
  long column[2 * COLUMN_BLOCKS];
  int row[ROW_BLOCKS];
  UNROLL
  for (int c = 0; c < 2 * COLUMN_BLOCKS; c++) column[c] = min(j0 + c * 8 + lane / 4, n - 1) * b_column;
  UNROLL
  for (int r = 0; r < ROW_BLOCKS; r++) row[r] = min(r * BLOCK_N + lane / 4, m - 1);
  const int turn = GROUPS * LINE, whole = k / turn, mine = group * LINE + lane % 4 * PIECE;
  b_piece next[2 * COLUMN_BLOCKS];
  if (whole > 0)
    UNROLL
    for (int c = 0; c < 2 * COLUMN_BLOCKS; c++) next[c] = stored_b(b, column[c] + mine);
#pragma unroll 1
  for (int t = 0; t < whole; t++) {
    const int at = t * turn + mine, then = min(t + 1, whole - 1) * turn + mine;
    uint4 words[2 * COLUMN_BLOCKS];
    UNROLL
    for (int c = 0; c < 2 * COLUMN_BLOCKS; c++) words[c] = words_b(next[c]);
    UNROLL
    for (int c = 0; c < 2 * COLUMN_BLOCKS; c++) next[c] = stored_b(b, column[c] + then);
    MULTIPLY_ROWS(stored_a(a, row[r] * a_row + at * a_column, a_column));
  }
  const int at = whole * turn + mine;
  if (whole * turn < k) {
    uint4 words[2 * COLUMN_BLOCKS];
    UNROLL
    for (int c = 0; c < 2 * COLUMN_BLOCKS; c++) words[c] = words_b(last_b(b, column[c] + at, k - at));
    MULTIPLY_ROWS(last_a(a, row[r] * a_row + at * a_column, a_column, k - at));
  }
  for (int apart = GROUPS / 2; apart > 0; apart /= 2) {
    __local float *kept = share + group % apart * RESULTS * LANES + lane;
    local_barrier();
    UNROLL
    for (int e = 0; e < RESULTS; e++)
      if (group / apart == 1) kept[e * LANES] = (&sum[0][0][0])[e];
    local_barrier();
    UNROLL
    for (int e = 0; e < RESULTS; e++)
      if (group < apart) (&sum[0][0][0])[e] += kept[e * LANES];
  }
  local_barrier();
  UNROLL
  for (int c = 0; c < COLUMN_BLOCKS; c++)
    UNROLL
    for (int r = 0; r < ROW_BLOCKS; r++)
      UNROLL
      for (int e = 0; e < BLOCK_RESULTS; e++)
        if (group == 0)
          share[(r * BLOCK_N + block_column(lane, e)) * COLUMNS + c * BLOCK_M + block_row(lane, e)] = sum[c][r][e];
  local_barrier();
  for (int s = item; s < ROWS * COLUMNS; s += ENGINE_ITEMS) {
    const int i = s / COLUMNS, j = j0 + s % COLUMNS;
    if (i < m && j < n) EPILOGUE(share[s], i, j);
  }
}
