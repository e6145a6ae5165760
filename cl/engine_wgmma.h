/* Matrix engine: NVIDIA's wgmma (sm_90a, by late assembly). A work-group is two groups of 128 consumers, each 64 rows
 * of the tile, and one producer warp, of which one work-item asks for the operands by bulk copies. They lie in a ring
 * of slots, each of which a pair of barriers in local memory guards. The producer runs ahead into the next tile while
 * consumers write the last one.
 *
 * One plane of each operand: a slot is a stage, 32 bytes of k of all rows of a and b. PLANES_A and PLANES_B of them: a
 * slot is one plane of one operand, so that each is fetched once for all products that need it, in the order b2, a2,
 * b1, a1, b0, a0; products go from the smallest, (0, 2), to (0, 0) and let go of slots in that order. */
#include "late.h"

#define TILE_M       128
#define TILE_N       128
#define ENGINE_ITEMS (2 * 128 + 32)
#define CONSUMERS    256
#define ACCUMULATORS 64
#define PLANE_BYTES  (TILE_M * PANEL_BYTES)
#ifdef PLANES_A
#define SLOTS      11
#define SLOT_BYTES PLANE_BYTES
#else
#define SLOTS      5
#define SLOT_BYTES (2 * PLANE_BYTES)
#endif
#define ENGINE_LOCAL (SLOTS * SLOT_BYTES + 2 * SLOTS * 8)

/* Registers of a warpgroup's 64 x 128 results: columns in steps of 8, rows 0 and 8 apart, two neighbours. */
INLINE int result_row(int item, int e) { return item / 128 * 64 + item / 32 % 4 * 16 + item % 32 / 4 + (e / 2 % 2) * 8; }
INLINE int result_column(int item, int e) { return e / 4 * 8 + item % 4 * 2 + e % 2; }

typedef struct engine_state {
  uint full, empty; /* addresses of the barriers of slot 0 */
  uint ring;        /* address of slot 0                   */
  int slot, phase;
} engine_state;

INLINE uint local_address(__local const void *p) {
  uint address;
  __asm__ volatile("{ .reg .u64 t; cvta.to.shared.u64 t, %1; cvt.u32.u64 %0, t; }" : "=r"(address) : "l"(p));
  return address;
}

INLINE int try_wait(uint barrier, int phase) {
  int done;
  __asm__ volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.b32 %0, 1, 0, p; }"
                   : "=r"(done)
                   : "r"(barrier), "r"(phase)
                   : "memory");
  return done;
}

INLINE void wait_for(uint barrier, int phase) {
#ifdef WAIT_LIMIT /* a probe must end on any driver */
  for (int i = 0; i < WAIT_LIMIT && !try_wait(barrier, phase); i++) {
  }
#else
  while (!try_wait(barrier, phase)) {
  }
#endif
}

/* The place of the slot `ahead` slots on, and how its barriers' phase differs. */
INLINE int slot_at(const engine_state *s, int ahead) {
  return s->slot + ahead < SLOTS ? s->slot + ahead : s->slot + ahead - SLOTS;
}
INLINE int phase_at(const engine_state *s, int ahead) { return s->phase ^ (s->slot + ahead >= SLOTS); }

INLINE void advance(engine_state *s, int slots) {
  s->phase = phase_at(s, slots);
  s->slot = slot_at(s, slots);
}

INLINE void engine_begin(engine_state *s, __local uchar *memory, int item) {
  s->ring = local_address(memory);
  s->full = s->ring + SLOTS * SLOT_BYTES;
  s->empty = s->full + 8 * SLOTS;
  s->slot = 0;
  s->phase = item >= CONSUMERS; /* the producer finds every slot empty at first */
  if (item == 0) {
    for (int i = 0; i < SLOTS; i++) {
      __asm__ volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(s->full + 8 * i) : "memory");
      __asm__ volatile("mbarrier.init.shared::cta.b64 [%0], 8;" ::"r"(s->empty + 8 * i) : "memory"); /* warps */
    }
    __asm__ volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  local_barrier();
}

INLINE void bulk_copy(uint to, __global const uchar *from, int bytes, uint barrier) {
  __asm__ volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from),
      "r"(bytes), "r"(barrier)
      : "memory");
}

INLINE void expect(uint barrier, int bytes) {
  __asm__ volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

/* The producer's share of one unit. */
INLINE void engine_produce(engine_state *s, const tile_unit *t, __global const uchar *a, __global const uchar *b,
                           const matmul_engine_args *g) {
  const int a_bytes = min(TILE_M, g->m - t->m0) * PANEL_BYTES, b_bytes = min(TILE_N, g->n - t->n0) * PANEL_BYTES;
  step_walk w;
  walk_begin(&w, g, t, a, b);
  for (int i = t->first; i < t->last; i++) {
#ifdef PLANES_A
    UNROLL
    for (int o = 0; o < 6; o++) {
      const int plane = 2 - o / 2, is_b = o % 2 == 0; /* b2, a2, b1, a1, b0, a0 */
      if (plane >= (is_b ? PLANES_B : PLANES_A)) continue;
      const uint full = s->full + 8 * s->slot;
      const int bytes = is_b ? b_bytes : a_bytes;
      wait_for(s->empty + 8 * s->slot, s->phase);
      expect(full, bytes);
      bulk_copy(s->ring + s->slot * SLOT_BYTES, is_b ? w.b + plane * g->b_plane : w.a + plane * g->a_plane, bytes,
                full);
      advance(s, 1);
    }
#else
    const uint full = s->full + 8 * s->slot, to = s->ring + s->slot * SLOT_BYTES;
    wait_for(s->empty + 8 * s->slot, s->phase);
    expect(full, a_bytes + b_bytes);
    bulk_copy(to, w.a, a_bytes, full);
    bulk_copy(to + PLANE_BYTES, w.b, b_bytes, full);
    advance(s, 1);
#endif
    walk_next(&w, g, t, a, b);
  }
}

#define R8(a, b, c, d, e, f, g, h) "%" #a ", %" #b ", %" #c ", %" #d ", %" #e ", %" #f ", %" #g ", %" #h
#define R64                                                                                                          \
  "{" R8(0, 1, 2, 3, 4, 5, 6, 7) ", " R8(8, 9, 10, 11, 12, 13, 14, 15) ", " R8(16, 17, 18, 19, 20, 21, 22, 23) ", "  \
  R8(24, 25, 26, 27, 28, 29, 30, 31) ", " R8(32, 33, 34, 35, 36, 37, 38, 39) ", "                                    \
  R8(40, 41, 42, 43, 44, 45, 46, 47) ", " R8(48, 49, 50, 51, 52, 53, 54, 55) ", "                                    \
  R8(56, 57, 58, 59, 60, 61, 62, 63) "}"
#define O8(x, i)                                                                                                     \
  "+f"(x[i]), "+f"(x[i + 1]), "+f"(x[i + 2]), "+f"(x[i + 3]), "+f"(x[i + 4]), "+f"(x[i + 5]), "+f"(x[i + 6]),        \
      "+f"(x[i + 7])
#define O64(x) O8(x, 0), O8(x, 8), O8(x, 16), O8(x, 24), O8(x, 32), O8(x, 40), O8(x, 48), O8(x, 56)

#ifdef ENGINE_TF32
#define WGMMA "wgmma.mma_async.sync.aligned.m64n128k8.f32.tf32.tf32 " R64 ", %64, %65, p, 1, 1; }"
#elif defined(ENGINE_F16)
#define WGMMA "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 " R64 ", %64, %65, p, 1, 1, 0, 0; }"
#else
#define WGMMA "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " R64 ", %64, %65, p, 1, 1, 0, 0; }"
#endif

/* K-major, 32-byte swizzle, 256 bytes from 8 rows to the next 8. */
INLINE ulong descriptor(uint address) {
  return (ulong)3 << 62 | (ulong)(256 >> 4) << 32 | (ulong)1 << 16 | (ulong)(address >> 4);
}

INLINE void release(const engine_state *s, int slot, int item) {
  if (item % 32 == 0)
    __asm__ volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(s->empty + 8 * slot) : "memory");
}

/* Begins x = keep x + a b^T of 64 rows; `wait` leaves so many of these under way. */
INLINE void begin_product(float *x, uint a, uint b, int keep) {
  __asm__ volatile(LATE("wgmma.fence.sync.aligned;") : O64(x)::"memory");
  __asm__ volatile(LATE("{ .reg .pred p; setp.ne.b32 p, %66, 0; " WGMMA)
                   : O64(x)
                   : "l"(descriptor(a)), "l"(descriptor(b)), "r"(keep)
                   : "memory");
  __asm__ volatile(LATE("wgmma.commit_group.sync.aligned;")::: "memory");
}
#define WAIT(x, left) __asm__ volatile(LATE("wgmma.wait_group.sync.aligned " #left ";") : O64(x)::"memory")

#ifdef PLANES_A
/* Places of a panel's slots: how many come before plane `plane` of a or b. */
#define PAIR_OF(plane) (((plane) < PLANES_B) + ((plane) < PLANES_A))
#define B_PLACE(plane) (((plane) < 2) * PAIR_OF(2) + ((plane) < 1) * PAIR_OF(1))
#define A_PLACE(plane) (B_PLACE(plane) + ((plane) < PLANES_B))
#define PANEL_SLOTS    (PLANES_A + PLANES_B)
/* Those that go before the panel's last product: b2 after (0, 2), a2 after (2, 0), b1 after (0, 1). */
#define B2_EARLY       ((PLANES_B > 2) & (PLANES_A > 2))
#define A2_EARLY       ((PLANES_A > 2) & (PLANES_B > 1))
#define B1_EARLY       ((PLANES_B > 1) & (PLANES_A > 1))
#define EARLY          (B2_EARLY << B_PLACE(2) | A2_EARLY << A_PLACE(2) | B1_EARLY << B_PLACE(1))

/* Lets go of what is left of the panel whose first slot this is. */
INLINE void release_panel(const engine_state *s, int slot, int item) {
  UNROLL
  for (int o = 0; o < PANEL_SLOTS; o++)
    if (!(EARLY >> o & 1)) release(s, slot + o < SLOTS ? slot + o : slot + o - SLOTS, item);
}

/* The sums of one unit. Those of SUM_EVERY panels are added to `sum` in fp32: the engine's own sums lose low bits (they
 * are cut, not rounded), and those of many would lose more than f32 may. */
INLINE void engine_consume(engine_state *s, const tile_unit *t, __global const uchar *a_panels,
                           __global const uchar *b_panels, const matmul_engine_args *g, float *sum, int item) {
  const uint a_rows = (uint)(item / 128 * 64 * PANEL_BYTES);
  const int last = t->last - t->first - 1;
  int turn = item / 128 * (SUM_EVERY / 2); /* one group multiplies while the other adds */
  float x[ACCUMULATORS];
  UNROLL
  for (int e = 0; e < ACCUMULATORS; e++) sum[e] = x[e] = 0.0f;
  int keep = 0, previous = 0;
  for (int i = 0; i <= last; i++) {
    UNROLL
    for (int o = 0; o < PANEL_SLOTS; o++) wait_for(s->full + 8 * slot_at(s, o), phase_at(s, o));
    int first = keep; /* the last product of the panel before is under way */
    UNROLL
    for (int p = 0; p < 6; p++) { /* (0, 2), (2, 0), (1, 1), (0, 1), (1, 0), (0, 0) */
      const int pa = p == 1 ? 2 : p == 2 || p == 4, pb = p == 0 ? 2 : p == 2 || p == 3;
      if (pa >= PLANES_A || pb >= PLANES_B) continue;
      begin_product(x, s->ring + slot_at(s, A_PLACE(pa)) * SLOT_BYTES + a_rows,
                    s->ring + slot_at(s, B_PLACE(pb)) * SLOT_BYTES, keep);
      keep = 1;
      WAIT(x, 1); /* the product before has ended */
      if (first) release_panel(s, previous, item);
      first = 0;
      if (B2_EARLY & (p == 1)) release(s, slot_at(s, B_PLACE(2)), item);
      if (A2_EARLY & (p == 2)) release(s, slot_at(s, A_PLACE(2)), item);
      if (B1_EARLY & (p == 4)) release(s, slot_at(s, B_PLACE(1)), item);
    }
    previous = s->slot;
    advance(s, PANEL_SLOTS);
    if (++turn == SUM_EVERY || i == last) {
      WAIT(x, 0);
      release_panel(s, previous, item);
      UNROLL
      for (int e = 0; e < ACCUMULATORS; e++) sum[e] += x[e];
      turn = keep = 0;
    }
  }
}
#else
/* The sums of one unit. */
INLINE void engine_consume(engine_state *s, const tile_unit *t, __global const uchar *a_panels,
                           __global const uchar *b_panels, const matmul_engine_args *g, float *x, int item) {
  const uint a_rows = (uint)(item / 128 * 64 * PANEL_BYTES);
  int previous = 0;
  UNROLL
  for (int e = 0; e < ACCUMULATORS; e++) x[e] = 0.0f;
  for (int i = 0; i < t->last - t->first; i++) {
    wait_for(s->full + 8 * s->slot, s->phase);
    const uint at = s->ring + s->slot * SLOT_BYTES;
    begin_product(x, at + a_rows, at + PLANE_BYTES, i > 0);
    WAIT(x, 1);
    if (i > 0) release(s, previous, item);
    previous = s->slot;
    advance(s, 1);
  }
  WAIT(x, 0);
  release(s, previous, item);
}
#endif
