/* Matrix engines whose instruction multiplies fragments that the lanes of one sub-group hold in registers. A tile of
 * TILE_M x TILE_N (128 x 128, or less where who includes this says so) belongs to 256 work-items: sub-groups in a grid
 * of GRID_N columns, each with BLOCKS_M x BLOCKS_N blocks of BLOCK_M x BLOCK_N results. Operands are panels in local
 * memory (panels.h), of 32 bytes of k each.
 *
 * One header an engine says how its fragments lie: A_WORDS and B_WORDS registers of 32 bits for an instruction, of
 * which a step needs INSTRUCTIONS; load_a and load_b, which fill them from panels in local memory; block_row and
 * block_column, where result e of a lane lies; multiply, the instruction. With ENGINE_EMULATED, multiply is plain C:
 * lanes leave their registers in local memory, and A_HOLDER and B_HOLDER say, by the vendor's description of the
 * instruction and independently of load_a and load_b, which 16 bits are number k of a row. */
#include "inline.h"

#ifndef TILE_M
#define TILE_M 128
#define TILE_N 128
#endif
#ifndef ENGINE_ITEMS
#define ENGINE_ITEMS 256
#endif
#define ACCUMULATORS (TILE_M * TILE_N / ENGINE_ITEMS)

/* 32 bits of k, from word `word` of the panel's 8, of a row of a panel in local memory. */
INLINE uint panel_word(__local const uchar *panel, int row, int word) {
  return ((__local const uint *)panel)[panel_chunk(0, row, word >> 2) * 4 + (word & 3)];
}
#define panel_half(panel, row, k) ((ushort)(panel_word(panel, row, (k) / 2) >> 16 * ((k) & 1)))

#if defined(ENGINE_MMA)
#include "engine_mma.h"
#elif defined(ENGINE_MFMA)
#include "engine_mfma.h"
#elif defined(ENGINE_WMMA)
#include "engine_wmma.h"
#elif defined(ENGINE_DPAS)
#include "engine_dpas.h"
#endif

#define BLOCKS_M      (TILE_M * GRID_N * LANES / (ENGINE_ITEMS * BLOCK_M))
#define BLOCKS_N      (TILE_N / (GRID_N * BLOCK_N))
#define BLOCK_RESULTS (BLOCK_M * BLOCK_N / LANES)
#define SPAN_M        (BLOCKS_M * BLOCK_M) /* of a sub-group */
#define SPAN_N        (BLOCKS_N * BLOCK_N)
#if BLOCKS_M * BLOCKS_N * BLOCK_RESULTS != ACCUMULATORS
#error "the blocks of a sub-group are not its results"
#endif

INLINE int result_row(int item, int e) {
  return item / LANES / GRID_N * SPAN_M + e / BLOCK_RESULTS / BLOCKS_N * BLOCK_M +
         block_row(item % LANES, e % BLOCK_RESULTS);
}
INLINE int result_column(int item, int e) {
  return item / LANES % GRID_N * SPAN_N + e / BLOCK_RESULTS % BLOCKS_N * BLOCK_N +
         block_column(item % LANES, e % BLOCK_RESULTS);
}

#ifdef ENGINE_EMULATED
#define EXCHANGE_BYTES (ENGINE_ITEMS * (A_WORDS + B_WORDS) * 4)
#ifdef ENGINE_F16
#define EXCHANGED(p, i) vload_half(i, (__local const half *)(p))
#else
#define EXCHANGED(p, i) as_float((uint)(p)[i] << 16)
#endif

/* c += a b^T, where a sub-group's registers meet in local memory. */
INLINE void multiply(float *c, const uint *a, const uint *b, __local uchar *exchange, int item) {
  __local ushort *as = (__local ushort *)exchange + item / LANES * LANES * (A_WORDS + B_WORDS) * 2;
  __local ushort *bs = as + LANES * A_WORDS * 2;
  const int lane = item % LANES;
  local_barrier(); /* the registers of the multiplication before may still be read */
  for (int w = 0; w < A_WORDS; w++) vstore2((ushort2)((ushort)a[w], (ushort)(a[w] >> 16)), lane * A_WORDS + w, as);
  for (int w = 0; w < B_WORDS; w++) vstore2((ushort2)((ushort)b[w], (ushort)(b[w] >> 16)), lane * B_WORDS + w, bs);
  local_barrier();
  for (int e = 0; e < BLOCK_RESULTS; e++) {
    const int i = block_row(lane, e), j = block_column(lane, e);
    for (int k = 0; k < BLOCK_K; k++) c[e] = fma(EXCHANGED(as, A_HOLDER(i, k)), EXCHANGED(bs, B_HOLDER(j, k)), c[e]);
  }
}
#else
#define EXCHANGE_BYTES 0
#endif

/* Adds the products of a panel of `a` and one of `b` to x. */
INLINE void multiply_panels(float *x, __local const uchar *a, __local const uchar *b, __local uchar *exchange,
                            int item) {
  const int lane = item % LANES, m0 = item / LANES / GRID_N * SPAN_M, n0 = item / LANES % GRID_N * SPAN_N;
  UNROLL
  for (int in = 0; in < INSTRUCTIONS; in++) {
    uint fa[BLOCKS_M][A_WORDS], fb[BLOCKS_N][B_WORDS];
    UNROLL
    for (int m = 0; m < BLOCKS_M; m++) load_a(fa[m], a, m0 + m * BLOCK_M, in, lane);
    UNROLL
    for (int n = 0; n < BLOCKS_N; n++) load_b(fb[n], b, n0 + n * BLOCK_N, in, lane);
    UNROLL
    for (int m = 0; m < BLOCKS_M; m++)
      UNROLL
      for (int n = 0; n < BLOCKS_N; n++)
        multiply(x + (m * BLOCKS_N + n) * BLOCK_RESULTS, fa[m], fb[n], exchange, item);
  }
}
