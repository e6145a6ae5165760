/* Fragments of AMD's WMMA (RDNA 3, waves of 32): 16 x 16 results, 16 numbers of k. Lane l holds row l % 16 whole, the
 * upper lanes the same as the lower; result e is row 2 e + l / 16, column l % 16 (AMD GPUOpen, "How to accelerate AI
 * applications on RDNA 3 using WMMA"). */
#define LANES        32
#define GRID_N       4
#define BLOCK_M      16
#define BLOCK_N      16
#define BLOCK_K      16
#define INSTRUCTIONS 1
#define A_WORDS      8
#define B_WORDS      8

INLINE int block_row(int lane, int e) { return 2 * e + lane / 16; }
INLINE int block_column(int lane, int e) { return lane % 16; }

#define A_HOLDER(i, k) ((i)*16 + (k))
#define B_HOLDER(j, k) ((j)*16 + (k))

INLINE void load_a(uint *f, __local const uchar *panel, int row, int instruction, int lane) {
  UNROLL
  for (int w = 0; w < 8; w++) f[w] = panel_word(panel, row + lane % 16, w);
}
#define load_b(f, panel, row, instruction, lane) load_a(f, panel, row, instruction, lane)

#ifndef ENGINE_EMULATED
typedef float wmma_sums __attribute__((ext_vector_type(8)));
#ifdef ENGINE_F16
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
typedef half wmma_numbers __attribute__((ext_vector_type(16)));
#define WMMA __builtin_amdgcn_wmma_f32_16x16x16_f16_w32
#else
typedef short wmma_numbers __attribute__((ext_vector_type(16)));
#define WMMA __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32
#endif
INLINE void multiply(float *c, const uint *a, const uint *b, __local uchar *exchange, int item) {
  const uint8 aw = (uint8)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]);
  const uint8 bw = (uint8)(b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]);
  wmma_sums x;
  UNROLL
  for (int e = 0; e < 8; e++) x[e] = c[e];
  x = WMMA(__builtin_astype(aw, wmma_numbers), __builtin_astype(bw, wmma_numbers), x);
  UNROLL
  for (int e = 0; e < 8; e++) c[e] = x[e];
}
#endif
