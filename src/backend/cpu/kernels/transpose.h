/* A block of up to LANES x LANES floats with rows and columns exchanged, in registers where it is whole. */
#ifndef CLM_CPU_TRANSPOSE_H
#define CLM_CPU_TRANSPOSE_H

#include "simd.h"

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE __builtin_shufflevector
#if SIMD_LANES == 16
#define LOW(a, b, w)                                                                                                 \
  ((w) == 1   ? SHUFFLE(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30)                             \
   : (w) == 2 ? SHUFFLE(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)                              \
   : (w) == 4 ? SHUFFLE(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)                              \
              : SHUFFLE(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23))
#define HIGH(a, b, w)                                                                                                \
  ((w) == 1   ? SHUFFLE(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31)                             \
   : (w) == 2 ? SHUFFLE(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)                            \
   : (w) == 4 ? SHUFFLE(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31)                            \
              : SHUFFLE(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
#define EVENS(a, b) SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define ODDS(a, b)  SHUFFLE(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
#elif SIMD_LANES == 8
#define EVENS(a, b) SHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define ODDS(a, b)  SHUFFLE(a, b, 1, 3, 5, 7, 9, 11, 13, 15)
#define LOW(a, b, w)                                                                                                 \
  ((w) == 1   ? SHUFFLE(a, b, 0, 8, 2, 10, 4, 12, 6, 14)                                                             \
   : (w) == 2 ? SHUFFLE(a, b, 0, 1, 8, 9, 4, 5, 12, 13)                                                              \
              : SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11))
#define HIGH(a, b, w)                                                                                                \
  ((w) == 1   ? SHUFFLE(a, b, 1, 9, 3, 11, 5, 13, 7, 15)                                                             \
   : (w) == 2 ? SHUFFLE(a, b, 2, 3, 10, 11, 6, 7, 14, 15)                                                            \
              : SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15))
#else
#define EVENS(a, b)   SHUFFLE(a, b, 0, 2, 4, 6)
#define ODDS(a, b)    SHUFFLE(a, b, 1, 3, 5, 7)
#define LOW(a, b, w)  ((w) == 1 ? SHUFFLE(a, b, 0, 4, 2, 6) : SHUFFLE(a, b, 0, 1, 4, 5))
#define HIGH(a, b, w) ((w) == 1 ? SHUFFLE(a, b, 1, 5, 3, 7) : SHUFFLE(a, b, 2, 3, 6, 7))
#endif

/* Exchanges the off-diagonal quarters of blocks of 2, 4, 8, ... */
INLINE void transpose_whole(const float *in, int64_t in_row, float *out, int64_t out_row) {
  vec r[LANES];
  UNROLL for (int i = 0; i < LANES; i++) r[i] = vec_load(in + i * in_row);
#define STAGE(w)                                                                                                     \
  UNROLL for (int i = 0; i < LANES; i++) if (!(i & (w))) {                                                           \
    vec a = r[i], b = r[i + (w)];                                                                                    \
    r[i] = LOW(a, b, w);                                                                                             \
    r[i + (w)] = HIGH(a, b, w);                                                                                      \
  }
  STAGE(1)
  STAGE(2)
#if SIMD_LANES >= 8
  STAGE(4)
#endif
#if SIMD_LANES >= 16
  STAGE(8)
#endif
#undef STAGE
  UNROLL for (int i = 0; i < LANES; i++) vec_store(out + i * out_row, r[i]);
}
#endif

/* out[i] = sum over the lanes of x[i], for LANES vectors: a transpose that adds as it goes. */
INLINE void sum_lanes(const vec *x, float *out) {
#ifdef SHUFFLE
  vec r[LANES];
  UNROLL for (int i = 0; i < LANES; i++) r[i] = x[i];
#define STAGE(w)                                                                                                     \
  UNROLL for (int i = 0; i < LANES; i += 2 * (w)) r[i] = LOW(r[i], r[i + (w)], w) + HIGH(r[i], r[i + (w)], w);
  STAGE(1)
  STAGE(2)
#if SIMD_LANES >= 8
  STAGE(4)
#endif
#if SIMD_LANES >= 16
  STAGE(8)
#endif
#undef STAGE
  vec_store(out, r[0]);
#else
  for (int i = 0; i < LANES; i++) out[i] = vec_sum(x[i]);
#endif
}

/* out[j][i] = in[i][j] for `rows` rows and `columns` columns of `in`; out's lanes beyond `rows` are 0. */
static inline void transpose_block(const float *in, int64_t in_row, int64_t rows, int64_t columns, float *out,
                                   int64_t out_row) {
#ifdef SHUFFLE
  if (rows == LANES && columns == LANES) {
    transpose_whole(in, in_row, out, out_row);
    return;
  }
#endif
  for (int64_t j = 0; j < columns; j++)
    for (int64_t i = 0; i < LANES; i++) out[j * out_row + i] = i < rows ? in[i * in_row + j] : 0;
}

#endif
