/* The main loop of matmul_engine.cl over fragments: a step's 32 bytes of k of all rows go to local memory, in which one
 * stage is filled while others are read. */
#define CONSUMERS   ENGINE_ITEMS
#define STAGE_BYTES ((TILE_M + TILE_N) * PANEL_BYTES)

#if defined(ENGINE_MMA) && !defined(ENGINE_EMULATED)
#include "engine_mma_copies.h"
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
    {
      __local const uchar *a_panel = s->memory + stage * STAGE_BYTES;
      multiply_panels(x, a_panel, a_panel + TILE_M * PANEL_BYTES, exchange, item);
    }
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
