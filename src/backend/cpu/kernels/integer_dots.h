/* Dot products of bytes by AVX-512 VNNI, for W in i8: a row x becomes integers of two bytes, hi and lo, times its
 * largest magnitude over 32512, so that it loses less than half of a 65024th of that, a hundredth of what W has lost.
 * The instruction takes one side unsigned: W with its sign bit turned over is W + 128, and the sums begin at what
 * that is too much. Sums of bytes are exact. */
#ifndef CLM_CPU_INTEGER_DOTS_H
#define CLM_CPU_INTEGER_DOTS_H

#include "storage.h"

#define INTEGER_MAX_K ((int64_t)1 << 19) /* for 32 bits to hold a lane's sum */

/* What stands in front of the bytes of a row: 64 of hi, 64 of lo, and so on. */
typedef struct integer_row {
  vec_i hi, lo; /* where the sums begin                            */
  float scale;  /* of the row: x is about scale (256 hi + lo)      */
  char bytes[];
} integer_row;
#define INTEGER_HEAD (sizeof(integer_row) / sizeof(float))

/* Of a row with a number that is not finite all results are not numbers; numbers below 1e-30 in all are 0. */
INLINE void integer_row_make(const float *x, int64_t k, integer_row *row) {
  const vec_i half = vec_set_int(128), bias = vec_set_int((int)0x80808080);
  vec most = vec_set(0);
  for (int64_t i = 0; i < k; i += LANES) {
    vec size = vec_abs(vec_load_part(x + i, k - i));
    most = (vec)_mm512_max_epi32((__m512i)most, (__m512i)size); /* as integers: what is not a number is largest */
  }
  uint32_t bits = (uint32_t)_mm512_reduce_max_epi32((__m512i)most);
  float largest;
  memcpy(&largest, &bits, sizeof largest);
  const bool finite = bits < 0x7f800000u, holds = finite && largest > 1e-30f;
  const vec inverse = vec_set(holds ? 32512 / largest : 0);
  vec_i hi_sum = {0}, lo_sum = {0};
  char *to = row->bytes;
  for (int64_t i = 0; i < k; i += 4 * LANES, to += 2 * VEC_BYTES) {
    for (int g = 0; g < 4; g++) {
      vec_i n = (vec_i)_mm512_cvtps_epi32(
          (__m512)(inverse * vec_load_part(x + i + g * LANES, max_of(0, k - i - g * LANES))));
      vec_i hi = (n + half) >> 8, lo = n - (hi << 8);
      _mm_storeu_si128((__m128i *)(void *)(to + g * LANES), _mm512_cvtepi32_epi8((__m512i)hi));
      _mm_storeu_si128((__m128i *)(void *)(to + VEC_BYTES + g * LANES), _mm512_cvtepi32_epi8((__m512i)lo));
    }
    hi_sum = (vec_i)_mm512_dpbusd_epi32((__m512i)hi_sum, (__m512i)bias, _mm512_loadu_si512(to));
    lo_sum = (vec_i)_mm512_dpbusd_epi32((__m512i)lo_sum, (__m512i)bias, _mm512_loadu_si512(to + VEC_BYTES));
  }
  row->hi = -hi_sum;
  row->lo = -lo_sum;
  row->scale = holds ? largest / 32512 : finite ? 0 : NAN;
}

typedef struct integer_sums {
  vec_i hi, lo;
} integer_sums;

INLINE void integer_step(integer_sums *sum, vec_u w, const char *bytes) {
  sum->hi = (vec_i)_mm512_dpbusd_epi32((__m512i)sum->hi, (__m512i)w, _mm512_loadu_si512(bytes));
  sum->lo = (vec_i)_mm512_dpbusd_epi32((__m512i)sum->lo, (__m512i)w, _mm512_loadu_si512(bytes + VEC_BYTES));
}

INLINE vec integer_total(const integer_row *row, integer_sums sum) {
  vec hi = __builtin_convertvector(sum.hi, vec), lo = __builtin_convertvector(sum.lo, vec);
  return vec_set(row->scale) * (vec_set(256) * hi + lo);
}

#endif
