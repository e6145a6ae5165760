/* Fragments of Intel's DPAS by cl_intel_subgroup_matrix_multiply_accumulate, sub-groups of 16: 8 x 16 results, 16
 * numbers of k. Of a, lane l holds number l of each of the 8 rows; of b, lane l holds row l whole (its numbers in
 * pairs); result e is row e, column l. */
#ifndef ENGINE_EMULATED
#define ENGINE_ATTRIBUTES __attribute__((intel_reqd_sub_group_size(16)))
#endif
#define LANES        16
#define GRID_N       4
#define BLOCK_M      8
#define BLOCK_N      16
#define BLOCK_K      16
#define INSTRUCTIONS 1
#define A_WORDS      4
#define B_WORDS      8

INLINE int block_row(int lane, int e) { return e; }
INLINE int block_column(int lane, int e) { return lane; }

#define A_HOLDER(i, k) ((k)*8 + (i))
#define B_HOLDER(j, k) ((j)*16 + (k))

INLINE void load_a(uint *f, __local const uchar *panel, int row, int instruction, int lane) {
  UNROLL
  for (int w = 0; w < 4; w++)
    f[w] = (uint)panel_half(panel, row + 2 * w, lane) | (uint)panel_half(panel, row + 2 * w + 1, lane) << 16;
}
INLINE void load_b(uint *f, __local const uchar *panel, int row, int instruction, int lane) {
  UNROLL
  for (int w = 0; w < 8; w++) f[w] = panel_word(panel, row + lane, w);
}

#ifndef ENGINE_EMULATED
#ifdef ENGINE_F16
#define DPAS intel_sub_group_f16_f16_matrix_mad_k16
#else
#define DPAS intel_sub_group_bf16_bf16_matrix_mad_k16
#endif
INLINE void multiply(float *c, const uint *a, const uint *b, __local uchar *exchange, int item) {
  const short8 aw = as_short8((uint4)(a[0], a[1], a[2], a[3]));
  const int8 bw = (int8)((int)b[0], (int)b[1], (int)b[2], (int)b[3], (int)b[4], (int)b[5], (int)b[6], (int)b[7]);
  float8 x = (float8)(c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]);
  x = DPAS(aw, bw, x);
  c[0] = x.s0, c[1] = x.s1, c[2] = x.s2, c[3] = x.s3, c[4] = x.s4, c[5] = x.s5, c[6] = x.s6, c[7] = x.s7;
}
#endif
