/* Pieces of eight numbers of an operand, for kernels that take few rows times a weight that is contiguous along k.
 * ALIGNED_A, ALIGNED_B: every piece is aligned to its size (16 bytes of 16-bit numbers), and can be read in one go. */
#define piece_f32(v)   (v)
#define piece_bf16(v)  as_float8(convert_uint8(v) << (uint8)(16))
#define piece_i8(v)    convert_float8(v)
#define piece_f16(v)   (float8)(value_f16(v.s0), value_f16(v.s1), value_f16(v.s2), value_f16(v.s3), \
                                value_f16(v.s4), value_f16(v.s5), value_f16(v.s6), value_f16(v.s7))
#define stored8_f32    float8
#define stored8_bf16   ushort8
#define stored8_f16    ushort8
#define stored8_i8     char8
#define BY(what, type) STORAGE_PASTE(what, type)
typedef BY(stored8_, A_TYPE) a_piece;
typedef BY(stored8_, B_TYPE) b_piece;

/* `column`: elements from one number of a row of a to the next. */
static inline a_piece stored_a(__global const a_t *a, long at, long column) {
#ifdef ALIGNED_A
  return *(__global const a_piece *)(a + at);
#else
  return (a_piece)(a[at], a[at + column], a[at + 2 * column], a[at + 3 * column], a[at + 4 * column],
                   a[at + 5 * column], a[at + 6 * column], a[at + 7 * column]);
#endif
}

static inline b_piece stored_b(__global const b_t *b, long at) {
#ifdef ALIGNED_B
  return *(__global const b_piece *)(b + at);
#else
  return vload8(0, b + at);
#endif
}

static inline float8 numbers_a(a_piece v) { return BY(piece_, A_TYPE)(v); }
static inline float8 numbers_b(b_piece v) { return BY(piece_, B_TYPE)(v); }

static inline float add_products(float sum, float8 u, float8 w) {
  sum = fma(u.s0, w.s0, sum);
  sum = fma(u.s1, w.s1, sum);
  sum = fma(u.s2, w.s2, sum);
  sum = fma(u.s3, w.s3, sum);
  sum = fma(u.s4, w.s4, sum);
  sum = fma(u.s5, w.s5, sum);
  sum = fma(u.s6, w.s6, sum);
  return fma(u.s7, w.s7, sum);
}
