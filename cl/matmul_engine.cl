/* Matrix product on the device's matrix engine: out = activation(scale a b^T + bias) + residual, a (m, k) and b (n, k)
 * in panels (panels.h; pack.cl makes them), sums in fp32.
 *
 * Persistent work-groups walk over units. A unit is a tile of TILE_M x TILE_N results, or, of the tiles that would
 * not fill a last round of all work-groups, one of `parts` pieces of its k: such sums go to `partial`, and
 * matmul_engine_finish adds them in order, so that the bits never depend on timing. Tiles follow each other down
 * bands of tile rows, so that what runs together shares operands in the second cache.
 *
 * A step is 32 bytes of k of one product of planes, or of all of them where the engine takes them together. A split
 * f32 operand (pack.cl) has three bf16 planes: six products of planes, the smallest first, are all that count in fp32;
 * the rest is below its last bit.
 *
 * Dimension 1 counts the products of a batch: each has work-groups of its own, and the buffers begin at it.
 *
 * ENGINE_<name> chooses the engine: a header that gives TILE_M, TILE_N, ENGINE_ITEMS, CONSUMERS, ACCUMULATORS, where
 * an accumulator's result lies in the tile, and how a unit's sums are made. */
#include "matmul_engine_args.h"
#include "common.h"
#include "storage.h"
#include "panels.h"
#include "inline.h"

#ifndef OUT_TYPE /* of residual and out */
#define OUT_TYPE f32
#endif
typedef STORAGE(OUT_TYPE) out_t;

#ifndef ACTIVATION
#define ACTIVATION 0
#endif
typedef struct tile_unit {
  int tile, part; /* part -1: the whole tile, whose sums are final */
  int m0, n0;     /* first row and column                          */
  int first, last; /* steps                                        */
} tile_unit;

/* Tile `tile` in the order of bands. */
INLINE void place_tile(const matmul_engine_args *g, int tile, int tile_m, int tile_n, tile_unit *t) {
  const int band = g->band * g->tiles_n, first = tile / band * g->band, rows = min(g->tiles_m - first, g->band);
  t->tile = tile;
  t->m0 = (first + tile % band % rows) * tile_m;
  t->n0 = tile % band / rows * tile_n;
}

/* A unit's way along k: where the operands of a step lie. Pointers that advance, since whoever asks for operands is
 * one work-item, and has no time for multiplications in 64 bits. */
typedef struct step_walk {
  __global const uchar *a, *b;
  long a_panel, b_panel; /* bytes from one panel to the next          */
  int product, left;     /* of planes; its panels that are still to do */
} step_walk;

INLINE void walk_product(step_walk *w, const matmul_engine_args *g, const tile_unit *t, __global const uchar *a,
                         __global const uchar *b, int panel) {
  const int a_plane = g->a_planes >> 4 * w->product & 15, b_plane = g->b_planes >> 4 * w->product & 15;
  w->a = a + g->a_offset + a_plane * g->a_plane + ((long)panel * g->m + t->m0) * PANEL_BYTES;
  w->b = b + g->b_offset + b_plane * g->b_plane + ((long)panel * g->n + t->n0) * PANEL_BYTES;
  w->left = g->panels - panel;
}

INLINE void walk_begin(step_walk *w, const matmul_engine_args *g, const tile_unit *t, __global const uchar *a,
                       __global const uchar *b) {
  w->a_panel = (long)g->m * PANEL_BYTES;
  w->b_panel = (long)g->n * PANEL_BYTES;
  w->product = t->first / g->panels;
  walk_product(w, g, t, a, b, t->first - w->product * g->panels);
}

INLINE void walk_next(step_walk *w, const matmul_engine_args *g, const tile_unit *t, __global const uchar *a,
                      __global const uchar *b) {
  w->a += w->a_panel;
  w->b += w->b_panel;
  if (--w->left == 0) {
    w->product++;
    walk_product(w, g, t, a, b, 0);
  }
}

#ifdef ENGINE_WGMMA
#include "engine_wgmma.h"
#else
#include "engine_fragments.h"
#include "engine_stages.h"
#endif

INLINE void unit_at(tile_unit *t, const matmul_engine_args *g, int unit) {
  const int steps = g->products * g->panels, split = unit - g->whole;
  if (split < 0) {
    place_tile(g, unit, TILE_M, TILE_N, t);
    t->part = -1;
    t->first = 0;
    t->last = steps;
  } else {
    place_tile(g, g->whole + split / g->parts, TILE_M, TILE_N, t);
    t->part = split % g->parts;
    t->first = (int)((long)steps * t->part / g->parts);
    t->last = (int)((long)steps * (t->part + 1) / g->parts);
  }
}

/* ---- Results ---- */

typedef struct result_buffers {
  __global const float *bias, *b_scale;
  __global const out_t *residual;
  __global out_t *out;
} result_buffers;

/* ACTIVATION counts like clm_activation. What an epilogue has are defines: all of it, once for each accumulator, takes
 * seconds to compile. */
INLINE float activated(float x) {
#if ACTIVATION == 1
  return silu(x);
#elif ACTIVATION == 2
  return softplus(x);
#else
  return x;
#endif
}

/* `residual` and `old` are what lies there, where they count. */
INLINE float result_of(float sum, const matmul_engine_args *g, const result_buffers *p, int i, int j, float residual,
                       float old) {
  float x = g->scale * sum;
#ifdef HAS_SCALE
  x *= p->b_scale[g->scale_offset + i * g->scale_row + j * g->scale_column];
#endif
#ifdef HAS_BIAS
  x += p->bias[g->bias_offset + i * g->bias_row + j * g->bias_column];
#endif
  return activated(x) + residual + old;
}

/* Stores results `first` to `first` + `count` of a work-item. */
#ifdef OUT_VECTORS
#include "quad_rows.h"

INLINE void store_results(const float *sum, int first, int count, const tile_unit *t, const matmul_engine_args *g,
                          const result_buffers *p, int item) {
  const int q = item % 4;
  UNROLL
  for (int s = 0; s < count; s += 16)
    UNROLL
    for (int h = 0; h < 2; h++) {
      const int e = first + s;
      float x[8];
      quad_row(sum + s + 2 * h, x, q);
      const int i = t->m0 + result_row(item, e + 2 * h), j = t->n0 + result_column(item - q, e) + 8 * q;
      if (i < g->m && j < g->n) {
        const long at = g->out_offset + i * g->out_row + j;
#ifdef HAS_RESIDUAL
        const out_pieces residual = load_pieces(p->residual, g->residual_offset + i * g->residual_row + j);
#endif
#ifdef ACCUMULATE
        const out_pieces old = load_pieces(p->out, at);
#endif
        UNROLL
        for (int c = 0; c < 8; c++) {
          float r = 0.0f, o = 0.0f;
#ifdef HAS_RESIDUAL
          r = piece_value(&residual, c);
#endif
#ifdef ACCUMULATE
          o = piece_value(&old, c);
#endif
          x[c] = result_of(x[c], g, p, i, j + c, r, o);
        }
        store_pieces(p->out, at, x);
      }
    }
}
#else
INLINE void store_results(const float *sum, int first, int count, const tile_unit *t, const matmul_engine_args *g,
                          const result_buffers *p, int item) {
  UNROLL
  for (int s = 0; s < count; s++) {
    const int e = first + s;
    const int i = t->m0 + result_row(item, e), j = t->n0 + result_column(item, e);
    if (i < g->m && j < g->n) {
      const long at = g->out_offset + i * g->out_row + j * g->out_column;
      float r = 0.0f, o = 0.0f;
#ifdef HAS_RESIDUAL
      r = LOAD(OUT_TYPE, p->residual, g->residual_offset + i * g->residual_row + j * g->residual_column);
#endif
#ifdef ACCUMULATE
      o = LOAD(OUT_TYPE, p->out, at);
#endif
      STORE(OUT_TYPE, p->out, at, result_of(sum[s], g, p, i, j, r, o));
    }
  }
}
#endif

/* Where a work-item's sums of one part lie: neighbours side by side. */
INLINE long partial_at(const matmul_engine_args *g, int tile, int part, int item) {
  return g->partial_offset + ((long)(tile - g->whole) * g->parts + part) * (ACCUMULATORS * CONSUMERS) + item;
}

#ifndef ENGINE_ATTRIBUTES
#define ENGINE_ATTRIBUTES
#endif
__kernel ENGINE_ATTRIBUTES __attribute__((reqd_work_group_size(ENGINE_ITEMS, 1, 1))) void
matmul_engine(__global const uchar *a, __global const uchar *b, __global const float *bias,
              __global const float *b_scale, __global const out_t *residual, __global out_t *out,
              __global float *partial, const matmul_engine_args args) {
  __local uchar memory[ENGINE_LOCAL] __attribute__((aligned(1024)));
  const matmul_engine_args *g = &args;
  const int item = (int)get_local_id(0), groups = (int)get_num_groups(0);
  const long product = (long)get_group_id(1);
  a += product * g->a_next;
  b += product * g->b_next;
  residual += product * g->residual_next;
  out += product * g->out_next;
  partial += product * g->partial_next;
  engine_state state;
  engine_begin(&state, memory, item);
  if (item < CONSUMERS) {
    const result_buffers p = {bias, b_scale, residual, out};
    for (int unit = (int)get_group_id(0); unit < g->units; unit += groups) {
      tile_unit t;
      unit_at(&t, g, unit);
      float sum[ACCUMULATORS];
      engine_consume(&state, &t, a, b, g, sum, item);
      if (t.part < 0) {
        store_results(sum, 0, ACCUMULATORS, &t, g, &p, item);
      } else {
        const long at = partial_at(g, t.tile, t.part, item);
        UNROLL
        for (int e = 0; e < ACCUMULATORS; e++) partial[at + e * CONSUMERS] = sum[e];
      }
    }
  }
#if CONSUMERS < ENGINE_ITEMS
  else if (item == CONSUMERS) {
    for (int unit = (int)get_group_id(0); unit < g->units; unit += groups) {
      tile_unit t;
      unit_at(&t, g, unit);
      engine_produce(&state, &t, a, b, g);
    }
  }
#endif
}

/* A work-group for each quarter of a tile that was cut: its parts in order, then the same end. */
#define SLICE (ACCUMULATORS / 4)
__kernel __attribute__((reqd_work_group_size(CONSUMERS, 1, 1))) void
matmul_engine_finish(__global const float *bias, __global const float *b_scale, __global const out_t *residual,
                     __global out_t *out, __global const float *partial, const matmul_engine_args args) {
  const matmul_engine_args *g = &args;
  const int item = (int)get_local_id(0), group = (int)get_group_id(0), first = group % 4 * SLICE;
  const long product = (long)get_group_id(1);
  residual += product * g->residual_next;
  out += product * g->out_next;
  partial += product * g->partial_next;
  const result_buffers p = {bias, b_scale, residual, out};
  tile_unit t;
  place_tile(g, g->whole + group / 4, TILE_M, TILE_N, &t);
  float sum[SLICE];
  UNROLL
  for (int e = 0; e < SLICE; e++) sum[e] = 0.0f;
  for (int part = 0; part < g->parts; part++) {
    const long at = partial_at(g, t.tile, part, item) + first * CONSUMERS;
    UNROLL
    for (int e = 0; e < SLICE; e++) sum[e] += partial[at + e * CONSUMERS];
  }
  store_results(sum, first, SLICE, &t, g, &p, item);
}
