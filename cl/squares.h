/* What mma's fragments (engine_mma.h) are made of where operands lie in local memory as they lie in memory: rows of
 * CHUNKS chunks of 16 bytes, in places that keep 8 rows of one chunk in different banks. A square is 8 rows of one
 * chunk; a fragment takes four. */

INLINE int swizzled(int row, int chunk, int chunks) {
  return row * chunks + (chunk ^ (chunks % 8 == 0 ? row & 7 : chunks % 4 == 0 ? row >> 1 & 3 : row >> 2 & 1));
}

/* Four squares from a row and an even chunk on: two rows of two, or (by_rows) the two below each other first. Lane 4 g
 * + t gets the numbers 2 t, 2 t + 1 of row g of each; `turned`: of column g. */
#ifdef ENGINE_EMULATED
INLINE void load_squares(uint *f, __local const uchar *m, int chunks, int row, int chunk, int by_rows, int turned,
                         int lane) {
  __local const ushort *halves = (__local const ushort *)m;
  for (int i = 0; i < 4; i++) {
    const int r = row + 8 * (by_rows ? i % 2 : i / 2), c = chunk + (by_rows ? i / 2 : i % 2), g = lane / 4,
              t = lane % 4 * 2;
    const int low = turned ? swizzled(r + t, c, chunks) * 8 + g : swizzled(r + g, c, chunks) * 8 + t;
    const int high = turned ? swizzled(r + t + 1, c, chunks) * 8 + g : low + 1;
    f[i] = (uint)halves[low] | (uint)halves[high] << 16;
  }
}
INLINE uint pack_bf16(float low, float high) { return (uint)bf16_bits(low) | (uint)bf16_bits(high) << 16; }
INLINE void bring_chunk(__local uchar *to, __global const void *from, int there) {
  *(__local uint4 *)to = there ? *(__global const uint4 *)from : (uint4)(0u);
}
INLINE void await_chunks(void) {}
INLINE void lanes_barrier(void) { local_barrier(); }
INLINE float power_of_2(float x) { return exp2(x); }
#else
INLINE void load_squares(uint *f, __local const uchar *m, int chunks, int row, int chunk, int by_rows, int turned,
                         int lane) {
  const int below = by_rows ? lane / 8 % 2 : lane / 16, beside = by_rows ? lane / 16 : lane / 8 % 2;
  const uint at = local_address(m) + (uint)swizzled(row + lane % 8 + 8 * below, chunk + beside, chunks) * 16;
  if (turned)
    __asm__ volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3])
                     : "r"(at)
                     : "memory");
  else
    __asm__ volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3])
                     : "r"(at)
                     : "memory");
}
INLINE uint pack_bf16(float low, float high) {
  uint both;
  __asm__("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}
INLINE void bring_chunk(__local uchar *to, __global const void *from, int there) {
  copy_chunk(local_address(to), (__global const uchar *)from, there ? 16 : 0);
}
INLINE void await_chunks(void) { __asm__ volatile("cp.async.wait_all;" ::: "memory"); }
INLINE void lanes_barrier(void) { __asm__ volatile("bar.warp.sync 0xffffffff;" ::: "memory"); }
INLINE float power_of_2(float x) {
  float r;
  __asm__("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
#endif

INLINE float low_bf16(uint both) { return as_float(both << 16); }
INLINE float high_bf16(uint both) { return as_float(both & 0xffff0000u); }

/* The bf16 nearest to two numbers, whose rest is left there. */
INLINE uint take_pair(float *low, float *high) {
  const uint both = pack_bf16(*low, *high);
  *low -= low_bf16(both);
  *high -= high_bf16(both);
  return both;
}
