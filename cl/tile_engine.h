/* tile.h's products on a matrix engine: the same names, so that a kernel has both forms from one source. A work-group
 * of 256 work-items owns TILE x TILE results; the elements of an operand's slice of DEPTH numbers of k go into panels
 * in local memory, each number as some bf16 planes (pack.cl): as many as hold a stored X_TYPE without loss
 * (PLANES_STORED), or a float nearly so (PLANES_COMPUTED). All products of planes that count are added in fp32.
 * ENGINE_<name> chooses the engine. */
#define TILE         64
#define TILE_M       TILE
#define TILE_N       TILE
#define SLICE_PANELS 2
#define DEPTH        (SLICE_PANELS * 16)

#include "engine_fragments.h"

#define planes_bf16     1
#define planes_f16      2
#define planes_f32      3
#define PLANES_OF(type) STORAGE_PASTE(planes_, type)
#define PLANES_STORED   PLANES_OF(X_TYPE)
#ifndef PLANES_COMPUTED
#define PLANES_COMPUTED (PLANES_STORED < 2 ? 2 : PLANES_STORED)
#endif

#define PLANE_BYTES        (SLICE_PANELS * TILE * PANEL_BYTES)
#define OPERAND_BYTES      (PLANES_COMPUTED * PLANE_BYTES)

#define TILE_ITEMS         ENGINE_ITEMS
#define TILE_RESULTS       ACCUMULATORS
#define TILE_MEMORY(m)     local uchar m[2 * OPERAND_BYTES + EXCHANGE_BYTES] __attribute__((aligned(128)))
#define FOR_PAIRS(e)       UNROLL for (int e = item; e < TILE * DEPTH / 2; e += TILE_ITEMS)
#define FOR_RESULTS(e)     UNROLL for (int e = 0; e < TILE_RESULTS; e++)
#define PAIR_ALONG_K(e)    const int kk = e % (DEPTH / 2) * 2, i = e / (DEPTH / 2)
#define PAIR_ALONG_ROWS(e) const int kk = e / TILE * 2, i = e % TILE

#ifdef ENGINE_ATTRIBUTES
#define TILE_GROUP ENGINE_ATTRIBUTES __attribute__((reqd_work_group_size(ENGINE_ITEMS, 1, 1)))
#else
#define TILE_GROUP __attribute__((reqd_work_group_size(ENGINE_ITEMS, 1, 1)))
#endif

typedef local uchar *tile_memory;

typedef struct tile {
  float v[TILE_RESULTS];
} tile;

static inline int tile_item(void) { return (int)get_local_id(0); }
#define tile_row(item, e)    result_row(item, e)
#define tile_column(item, e) result_column(item, e)
#define tile_result(t, e)    ((t)->v[e])

INLINE void tile_clear(tile *t) { FOR_RESULTS(e) t->v[e] = 0.0f; }

/* Takes the bf16 nearest to *x, in bits, and leaves the rest there: nothing of what is not finite. */
INLINE uint take_plane(float *x) {
  const ushort bits = finite_bf16_bits(*x);
  *x = isfinite(*x) ? *x - value_bf16(bits) : 0.0f;
  return bits;
}

/* Numbers k and k + 1 of a row, plane by plane. */
INLINE void put_planes(tile_memory operand, int planes, int row, int k, float x, float next) {
  const int word = ((k >> 4) * TILE + row) * (PANEL_BYTES / 4) + ((k >> 3 & 1) ^ (row >> 2 & 1)) * 4 + (k >> 1 & 3);
  local uint *at = (local uint *)operand + word; /* panels.h */
  if (planes == 1) {
    *at = (uint)bf16_bits(x) | (uint)bf16_bits(next) << 16;
    return;
  }
  UNROLL
  for (int plane = 0; plane < planes; plane++) {
    const uint low = take_plane(&x), high = take_plane(&next);
    at[plane * (PLANE_BYTES / 4)] = low | high << 16;
  }
}
INLINE void put_a(tile_memory m, int planes, int row, int k, float x, float next) {
  put_planes(m, planes, row, k, x, next);
}
INLINE void put_b(tile_memory m, int planes, int row, int k, float x, float next) {
  put_planes(m + OPERAND_BYTES, planes, row, k, x, next);
}

/* The same of eight numbers from k on, and of numbers k and k + 1 of eight rows. */
INLINE void put_eight(tile_memory operand, int planes, int row, int k, float8 x) {
  float v[8] = {x.s0, x.s1, x.s2, x.s3, x.s4, x.s5, x.s6, x.s7};
  local uint4 *at = (local uint4 *)operand + ((k >> 4) * TILE + row) * 2 + ((k >> 3 & 1) ^ (row >> 2 & 1));
  UNROLL
  for (int plane = 0; plane < planes; plane++) {
    uint words[4];
    UNROLL
    for (int i = 0; i < 4; i++) {
      const uint low = take_plane(v + 2 * i), high = take_plane(v + 2 * i + 1);
      words[i] = low | high << 16;
    }
    at[plane * (PLANE_BYTES / 16)] = (uint4)(words[0], words[1], words[2], words[3]);
  }
}
INLINE void put_eight_rows(tile_memory operand, int planes, int row, int k, float8 x, float8 next) {
  const float v[8] = {x.s0, x.s1, x.s2, x.s3, x.s4, x.s5, x.s6, x.s7},
              n[8] = {next.s0, next.s1, next.s2, next.s3, next.s4, next.s5, next.s6, next.s7};
  UNROLL
  for (int i = 0; i < 8; i++) put_planes(operand, planes, row + i, k, v[i], n[i]);
}
/* Adds the products of the slices in local memory, the smallest first. */
INLINE void tile_add(tile *t, tile_memory m, int a_planes, int b_planes) {
  const int item = tile_item();
  UNROLL
  for (int panel = 0; panel < SLICE_PANELS; panel++) UNROLL
  for (int below = PLANES_COMPUTED - 1; below >= 0; below--) UNROLL
  for (int i = 0; i <= below; i++) {
    const int j = below - i;
    if (i >= a_planes || j >= b_planes) continue;
    local const uchar *a = m + panel * (TILE * PANEL_BYTES);
    multiply_panels(t->v, a + i * PLANE_BYTES, a + OPERAND_BYTES + j * PLANE_BYTES, m + 2 * OPERAND_BYTES, item);
  }
}
