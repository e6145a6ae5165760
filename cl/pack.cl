/* Writes a matrix of any strides and type as panels (panels.h), converting on the way.
 *
 * A work-group owns ROWS rows by CHUNKS 16-byte chunks of k. It reads them along whichever dimension neighbours lie
 * in memory, through local memory, and writes whole chunks. Bytes: one read, one write for each plane.
 * Dimension 2 counts the matrices of a batch.
 * FROM_TYPE: f32, f16, bf16, i8. TO_TYPE: f16, bf16 or tf32 (f32 rounded to 10 bits of fraction).
 * Planes (bf16 only): x = x1 + x2 + x3 to the last bit of an f32, each the bf16 nearest to what is left. A number so
 * large that the nearest is infinity is cut instead; what is not finite is all in the first plane. */
#include "matmul_engine_args.h"
#include "panels.h"
#include "storage.h"
#include "barrier.h"

#ifndef FROM_TYPE
#define FROM_TYPE f32
#endif
#ifndef TO_TYPE
#define TO_TYPE bf16
#endif
typedef STORAGE(FROM_TYPE) from_t;

#define ROWS  64  /* of a work-group's piece */
#define DEPTH 32  /* numbers along k of it   */
#define ITEMS 128

/* The engine's formats: bits of a chunk's elements, their number, and a number as its bits. */
static inline ushort f16_bits(float x) {
  ushort bits[1];
  vstore_half_rte(x, 0, (__private half *)bits);
  return bits[0];
}
static inline uint tf32_bits(float x) { /* nearest, ties away; what is not finite stays */
  const uint bits = as_uint(x);
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
}
#define bits_bf16(x)  finite_bf16_bits(x)
#define bits_f16(x)   f16_bits(x)
#define bits_tf32(x)  tf32_bits(x)
#define BITS_BY(type) STORAGE_PASTE(bits_, type)
#define BITS          BITS_BY(TO_TYPE)
#ifndef CHUNK /* numbers in 16 bytes: 8, or 4 for tf32 */
#define CHUNK 8
#endif

/* Eight 16-bit or four 32-bit patterns as one chunk. */
static inline uint4 chunk_of(const float *x) {
#if CHUNK == 4
  return (uint4)(BITS(x[0]), BITS(x[1]), BITS(x[2]), BITS(x[3]));
#else
  uint w[4];
#pragma unroll
  for (int i = 0; i < 4; i++)
    w[i] = (uint)BITS(x[2 * i]) | (uint)BITS(x[2 * i + 1]) << 16;
  return (uint4)(w[0], w[1], w[2], w[3]);
#endif
}

/* What bf16 leaves of x; nothing of what is not finite. */
static inline float left_of(float x) {
  return isfinite(x) ? x - as_float((uint)finite_bf16_bits(x) << 16) : 0.0f;
}

__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void pack(__global const from_t *from,
                                                                      __global uint4 *to, pack_args g) {
  __local float tile[ROWS][DEPTH + 1];
  const int item = (int)get_local_id(0), row0 = (int)get_group_id(1) * ROWS, k0 = (int)get_group_id(0) * DEPTH;
  const int along_k = g.from_k == 1;
  from += g.from_offset + get_group_id(2) * g.from_next;
  to += (g.to_offset + get_group_id(2) * g.to_next) / 16;
#pragma unroll
  for (int e = 0; e < ROWS * DEPTH / ITEMS; e++) { /* unrolled: many loads under way at once */
    const int at = e * ITEMS + item;
    const int r = along_k ? at / DEPTH : at % ROWS, d = along_k ? at % DEPTH : at / ROWS;
    const int row = row0 + r, k = k0 + d;
    tile[r][d] = row < g.rows && k < g.k ? LOAD(FROM_TYPE, from, row * g.from_row + k * g.from_k) : 0.0f;
  }
  local_barrier();
#pragma unroll
  for (int e = 0; e < ROWS * DEPTH / CHUNK / ITEMS; e++) { /* neighbours: both chunks of a panel, then rows */
    const int at = e * ITEMS + item;
    const int c = at % 2 + at / (2 * ROWS) * 2, r = at / 2 % ROWS, row = row0 + r, chunk = k0 / CHUNK + c;
    if (row >= g.rows || chunk >= 2 * g.panels) continue;
    float x[CHUNK];
#pragma unroll
    for (int i = 0; i < CHUNK; i++) x[i] = tile[r][c * CHUNK + i];
    for (int p = 0; p < g.planes; p++) {
      to[p * g.to_plane / 16 + panel_chunk(g.rows, row, chunk)] = chunk_of(x);
#pragma unroll
      for (int i = 0; i < CHUNK; i++) x[i] = left_of(x[i]);
    }
  }
}

/* The same where the matrix holds the engine's own 16-bit type with 16-byte rows along k, and k is whole chunks:
 * nothing to convert. One chunk a work-item; eight neighbours read 128 bytes of a row, four rows are 128 bytes of each
 * of four panels. */
__kernel void pack_copy(__global const uint4 *from, __global uint4 *to, pack_args g) {
  const int c = (int)get_global_id(0), row = (int)get_global_id(1);
  if (row >= g.rows || c >= 2 * g.panels) return;
  const uint4 none = (uint4)(0u);
  from += (g.from_offset + get_global_id(2) * g.from_next) / 8;
  to += (g.to_offset + get_global_id(2) * g.to_next) / 16;
  const uint4 x = c * 8 < g.k ? from[row * (g.from_row / 8) + c] : none;
  to[panel_chunk(g.rows, row, c)] = x;
}
