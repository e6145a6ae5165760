/* Fragments of NVIDIA's mma.sync (sm_80 and newer): 16 x 8 results, 32 bytes of k, 32 lanes. Lane 4 g + t holds the
 * words t of rows g and g + 8 (PTX ISA, "Matrix Fragments for mma.m16n8k16"); tf32 has one number where the 16-bit
 * types have two, in the same places. */
#define LANES        32
#define GRID_N       4
#define BLOCK_M      16
#define BLOCK_N      8
#define BLOCK_K      16
#define INSTRUCTIONS 1
#define A_WORDS      4
#define B_WORDS      2

INLINE int block_row(int lane, int e) { return lane / 4 + e / 2 * 8; }
INLINE int block_column(int lane, int e) { return lane % 4 * 2 + e % 2; }

#define A_HOLDER(i, k) ((((i) % 8) * 4 + (k) % 8 / 2) * 8 + ((i) / 8 + (k) / 8 * 2) * 2 + (k) % 2)
#define B_HOLDER(j, k) (((j)*4 + (k) % 8 / 2) * 4 + (k) / 8 * 2 + (k) % 2)

#ifdef ENGINE_EMULATED
INLINE void load_a(uint *f, __local const uchar *panel, int row, int instruction, int lane) {
  for (int w = 0; w < 4; w++) f[w] = panel_word(panel, row + lane / 4 + w % 2 * 8, lane % 4 + w / 2 * 4);
}
INLINE void load_b(uint *f, __local const uchar *panel, int row, int instruction, int lane) {
  for (int w = 0; w < 2; w++) f[w] = panel_word(panel, row + lane / 4, lane % 4 + w * 4);
}
#else
/* ldmatrix: each lane names a row's chunk, and gets its words of eight rows. */
INLINE uint local_address(__local const void *p) {
  uint address;
  __asm__("{ .reg .u64 t; cvta.to.shared.u64 t, %1; cvt.u32.u64 %0, t; }" : "=r"(address) : "l"(p));
  return address;
}
INLINE uint chunk_address(__local const uchar *panel, int row, int chunk) {
  return local_address(panel) + (uint)panel_chunk(0, row, chunk) * 16;
}
INLINE void load_a(uint *f, __local const uchar *panel, int row, int instruction, int lane) {
  __asm__ volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3])
                   : "r"(chunk_address(panel, row + lane % 16, lane / 16))
                   : "memory");
}
INLINE void load_b(uint *f, __local const uchar *panel, int row, int instruction, int lane) {
  __asm__ volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                   : "=r"(f[0]), "=r"(f[1])
                   : "r"(chunk_address(panel, row + lane % 8, lane / 8 % 2))
                   : "memory");
}

/* Copies that pass registers by: 16 bytes, of which the first `bytes` are read and the others are 0. */
INLINE void copy_chunk(uint to, __global const uchar *from, int bytes) {
  __asm__ volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

#ifdef ENGINE_TF32
#define MMA "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
#elif defined(ENGINE_F16)
#define MMA "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
#else
#define MMA "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
#endif
INLINE void multiply(float *c, const uint *a, const uint *b, __local uchar *exchange, int item) {
  __asm__(MMA " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif
