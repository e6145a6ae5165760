/* Results that leave in whole 16-byte pieces. NVIDIA's matrix instructions give a lane two neighbours of each 8
 * columns; four lanes hold a row's 8. Here the four exchange them over 32 columns, so that each gets 8 neighbours.
 * PTX only: whoever chooses it (OUT_VECTORS) has checked that lines of out and residual are such pieces. */

INLINE float exchange(float x, int lanes) {
  float other;
  __asm__ volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=f"(other) : "f"(x), "r"(lanes));
  return other;
}

/* sum[4 g + c], g = 0 to 3, c = 0, 1: columns 8 g + 2 q + c of lane q of four -> x: columns 8 q to 8 q + 7. */
INLINE void quad_row(const float *sum, float *x, int q) {
  const int odd = q & 1, upper = q & 2;
  UNROLL
  for (int c = 0; c < 2; c++) {
    const float p0 = sum[c], p1 = sum[4 + c], p2 = sum[8 + c], p3 = sum[12 + c];
    const float a = exchange(odd ? p0 : p1, 1), b = exchange(odd ? p2 : p3, 1);
    const float a0 = odd ? a : p0, a1 = odd ? p1 : a; /* columns of group q % 2, of the even and the odd lane */
    const float b0 = odd ? b : p2, b1 = odd ? p3 : b; /* the same of group q % 2 + 2                          */
    const float r0 = exchange(upper ? a0 : b0, 2), r1 = exchange(upper ? a1 : b1, 2);
    x[c] = upper ? r0 : a0;
    x[2 + c] = upper ? r1 : a1;
    x[4 + c] = upper ? b0 : r0;
    x[6 + c] = upper ? b1 : r1;
  }
}

/* Eight neighbours in storage, and as numbers. */
#ifdef OUT_IS_F32
#define PIECES 2
#else
#define PIECES 1
#endif
typedef struct out_pieces {
  uint4 p[PIECES];
} out_pieces;

INLINE out_pieces load_pieces(__global const out_t *from, long at) {
  out_pieces v;
  UNROLL
  for (int i = 0; i < PIECES; i++) v.p[i] = ((__global const uint4 *)(from + at))[i];
  return v;
}

#define pair_bf16 "cvt.rn.bf16x2.f32 %0, %1, %2;"
#define pair_f16  "cvt.rn.f16x2.f32 %0, %1, %2;"
#define PAIR(type) STORAGE_PASTE(pair_, type)
INLINE uint pair_of(float low, float high) {
#ifdef OUT_IS_F32
  return 0;
#else
  uint bits;
  __asm__(PAIR(OUT_TYPE) : "=r"(bits) : "f"(high), "f"(low));
  return bits;
#endif
}

INLINE void store_pieces(__global out_t *to, long at, const float *x) {
#ifdef OUT_IS_F32
  ((__global float4 *)(to + at))[0] = (float4)(x[0], x[1], x[2], x[3]);
  ((__global float4 *)(to + at))[1] = (float4)(x[4], x[5], x[6], x[7]);
#else
  *(__global uint4 *)(to + at) =
      (uint4)(pair_of(x[0], x[1]), pair_of(x[2], x[3]), pair_of(x[4], x[5]), pair_of(x[6], x[7]));
#endif
}

INLINE float piece_value(const out_pieces *v, int c) {
#ifdef OUT_IS_F32
  const uint4 p = v->p[c / 4];
  return as_float(c % 4 == 0 ? p.x : c % 4 == 1 ? p.y : c % 4 == 2 ? p.z : p.w);
#else
  const uint w = c / 2 == 0 ? v->p[0].x : c / 2 == 1 ? v->p[0].y : c / 2 == 2 ? v->p[0].z : v->p[0].w;
  return VALUE(OUT_TYPE, (ushort)(c % 2 ? w >> 16 : w));
#endif
}
