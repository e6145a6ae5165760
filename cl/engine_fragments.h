/* Matrix engines whose instruction multiplies fragments that the lanes of one sub-group hold in registers. A tile of
 * 128 x 128 belongs to 256 work-items: sub-groups in a grid of GRID_N columns, each with BLOCKS_M x BLOCKS_N blocks of
 * BLOCK_M x BLOCK_N results. A step's 32 bytes of k of all rows go to local memory, in which one stage is filled while
 * another is read.
 *
 * One header an engine says how its fragments lie: A_WORDS and B_WORDS registers of 32 bits for an instruction, of
 * which a step needs INSTRUCTIONS; load_a and load_b, which fill them from panels in local memory; block_row and
 * block_column, where result e of a lane lies; multiply, the instruction. With ENGINE_EMULATED, multiply is plain C:
 * lanes leave their registers in local memory, and A_HOLDER and B_HOLDER say, by the vendor's description of the
 * instruction and independently of load_a and load_b, which 16 bits are number k of a row. */
#define TILE_M       128
#define TILE_N       128
#define ENGINE_ITEMS 256
#define CONSUMERS    ENGINE_ITEMS
#define ACCUMULATORS 64
#define STAGE_BYTES  ((TILE_M + TILE_N) * PANEL_BYTES)

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

#ifndef STAGES
#define STAGES 2
#endif
#define ENGINE_LOCAL (STAGES * STAGE_BYTES + EXCHANGE_BYTES)

typedef struct engine_state {
  __local uchar *memory;
} engine_state;

INLINE void engine_begin(engine_state *s, __local uchar *memory, int item) { s->memory = memory; }

/* A work-item brings one 16-byte chunk of each operand: chunk `item` of the tile's 128 rows; rows past the end are 0.
 * load_stage and end_stage begin it, ready_stage has the oldest in local memory; an engine that copies past registers
 * has its own. */
#ifndef ENGINE_COPIES
typedef struct fetched {
  uint4 a, b;
} fetched;

INLINE void load_stage(fetched *f, __local uchar *stage, const step_walk *w, int a_rows, int b_rows, int item) {
  const uint4 none = (uint4)(0u);
  f->a = item / 2 < a_rows ? ((__global const uint4 *)w->a)[item] : none;
  f->b = item / 2 < b_rows ? ((__global const uint4 *)w->b)[item] : none;
}
INLINE void end_stage(void) {}
INLINE void ready_stage(const fetched *f, __local uchar *stage, int item) {
  ((__local uint4 *)stage)[item] = f->a;
  ((__local uint4 *)(stage + TILE_M * PANEL_BYTES))[item] = f->b;
}
#endif

/* Adds a stage's products to x. */
INLINE void multiply_stage(float *x, __local const uchar *stage, __local uchar *exchange, int item) {
  const int lane = item % LANES, m0 = item / LANES / GRID_N * SPAN_M, n0 = item / LANES % GRID_N * SPAN_N;
  UNROLL
  for (int in = 0; in < INSTRUCTIONS; in++) {
    uint fa[BLOCKS_M][A_WORDS], fb[BLOCKS_N][B_WORDS];
    UNROLL
    for (int m = 0; m < BLOCKS_M; m++) load_a(fa[m], stage, m0 + m * BLOCK_M, in, lane);
    UNROLL
    for (int n = 0; n < BLOCKS_N; n++) load_b(fb[n], stage + TILE_M * PANEL_BYTES, n0 + n * BLOCK_N, in, lane);
    UNROLL
    for (int m = 0; m < BLOCKS_M; m++)
      UNROLL
      for (int n = 0; n < BLOCKS_N; n++)
        multiply(x + (m * BLOCKS_N + n) * BLOCK_RESULTS, fa[m], fb[n], exchange, item);
  }
}

/* The sums of one unit; with SUM_EVERY as in engine_wgmma.h. */
INLINE void engine_consume(engine_state *s, const tile_unit *t, __global const uchar *a, __global const uchar *b,
                           const matmul_engine_args *g, float *sum, int item) {
#ifdef SUM_EVERY
  float x[ACCUMULATORS];
  UNROLL
  for (int i = 0; i < ACCUMULATORS; i++) sum[i] = 0.0f;
#else
  float *x = sum;
#endif
  UNROLL
  for (int i = 0; i < ACCUMULATORS; i++) x[i] = 0.0f;
  step_walk w;
  walk_begin(&w, g, t, a, b);
  const int a_rows = g->m - t->m0, b_rows = g->n - t->n0, steps = t->last - t->first;
  __local uchar *exchange = s->memory + STAGES * STAGE_BYTES;
  fetched f;
  for (int i = 0; i < STAGES - 1; i++) { /* so many stages are under way */
    if (i < steps) {
      if (i > 0) walk_next(&w, g, t, a, b);
      load_stage(&f, s->memory + i * STAGE_BYTES, &w, a_rows, b_rows, item);
    }
    end_stage();
  }
  int stage = 0, next = STAGES - 1;
  for (int i = 0; i < steps; i++) {
    ready_stage(&f, s->memory + stage * STAGE_BYTES, item);
    local_barrier(); /* and every reader of stage `next` is past it */
    if (i + STAGES - 1 < steps) {
      walk_next(&w, g, t, a, b);
      load_stage(&f, s->memory + next * STAGE_BYTES, &w, a_rows, b_rows, item);
    }
    end_stage();
    multiply_stage(x, s->memory + stage * STAGE_BYTES, exchange, item);
    stage = stage + 1 == STAGES ? 0 : stage + 1;
    next = next + 1 == STAGES ? 0 : next + 1;
#ifdef SUM_EVERY
    if (i % SUM_EVERY == SUM_EVERY - 1 || i + 1 == steps) {
      UNROLL
      for (int e = 0; e < ACCUMULATORS; e++) {
        sum[e] += x[e];
        x[e] = 0.0f;
      }
    }
#endif
  }
  local_barrier(); /* the next unit begins with any stage */
}
