/* Fragments of AMD's MFMA (CDNA 2 and newer): 32 x 32 results, 8 numbers of k, 64 lanes. Lane l holds numbers
 * 4 (l / 32) to 4 (l / 32) + 3 of row l % 32 (AMD matrix instruction calculator, v_mfma_f32_32x32x8_bf16_1k and
 * _f16). */
#define LANES        64
#define GRID_N       2
#define BLOCK_M      32
#define BLOCK_N      32
#define BLOCK_K      8
#define INSTRUCTIONS 2
#define A_WORDS      2
#define B_WORDS      2

INLINE int block_row(int lane, int e) { return e / 4 * 8 + lane / 32 * 4 + e % 4; }
INLINE int block_column(int lane, int e) { return lane % 32; }

#define A_HOLDER(i, k) (((i) + (k) / 4 * 32) * 4 + (k) % 4)
#define B_HOLDER(j, k) A_HOLDER(j, k)

INLINE void load_a(uint *f, __local const uchar *panel, int row, int instruction, int lane) {
  UNROLL
  for (int w = 0; w < 2; w++) f[w] = panel_word(panel, row + lane % 32, instruction * 4 + lane / 32 * 2 + w);
}
#define load_b(f, panel, row, instruction, lane) load_a(f, panel, row, instruction, lane)

#ifndef ENGINE_EMULATED
typedef float mfma_sums __attribute__((ext_vector_type(16)));
#ifdef ENGINE_F16
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
typedef half mfma_numbers __attribute__((ext_vector_type(4)));
#define MFMA __builtin_amdgcn_mfma_f32_32x32x8f16
#else
typedef short mfma_numbers __attribute__((ext_vector_type(4)));
#define MFMA __builtin_amdgcn_mfma_f32_32x32x8bf16_1k
#endif
INLINE void multiply(float *c, const uint *a, const uint *b, __local uchar *exchange, int item) {
  const uint2 aw = (uint2)(a[0], a[1]), bw = (uint2)(b[0], b[1]);
  mfma_sums x;
  UNROLL
  for (int e = 0; e < 16; e++) x[e] = c[e];
  x = MFMA(__builtin_astype(aw, mfma_numbers), __builtin_astype(bw, mfma_numbers), x, 0, 0, 0);
  UNROLL
  for (int e = 0; e < 16; e++) c[e] = x[e];
}
#endif
