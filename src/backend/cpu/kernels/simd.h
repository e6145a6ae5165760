/* Vectors of SIMD_LANES floats over GCC's vector extensions, and the few functions on them that the kernels need.
 * Every file of this folder is compiled once per instruction set with SIMD_SUFFIX and SIMD_LANES set by meson.build;
 * only this header knows which one it is. */
#ifndef CLM_CPU_SIMD_H
#define CLM_CPU_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define SIMD_PASTE_(a, b) a##_##b
#define SIMD_PASTE(a, b)  SIMD_PASTE_(a, b)

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE    static inline __attribute__((always_inline))

#define LANES     SIMD_LANES
#define VEC_BYTES (4 * LANES)
typedef float vec __attribute__((vector_size(VEC_BYTES)));
typedef int32_t vec_i __attribute__((vector_size(VEC_BYTES)));
typedef uint32_t vec_u __attribute__((vector_size(VEC_BYTES)));
typedef float vec_anywhere __attribute__((vector_size(VEC_BYTES), aligned(4), may_alias));

INLINE vec vec_load(const float *p) { return *(const vec_anywhere *)p; }
INLINE void vec_store(float *p, vec x) { *(vec_anywhere *)p = x; }
INLINE vec vec_set(float x) { return x - (vec){0}; }
INLINE vec vec_choose(vec_i mask, vec a, vec b) { return (vec)((mask & (vec_i)a) | (~mask & (vec_i)b)); }

/* Writes a vector to memory, not to a cache; p is a multiple of VEC_BYTES. Between the last of them and another
 * thread's reading stands vec_stream_end. */
#if SIMD_LANES == 16
INLINE void vec_stream(float *p, vec x) { _mm512_stream_ps(p, (__m512)x); }
#elif SIMD_LANES == 8
INLINE void vec_stream(float *p, vec x) { _mm256_stream_ps(p, (__m256)x); }
#elif defined(__x86_64__)
INLINE void vec_stream(float *p, vec x) { _mm_stream_ps(p, (__m128)x); }
#else
INLINE void vec_stream(float *p, vec x) { vec_store(p, x); }
#endif
INLINE void vec_stream_end(void) {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

/* The first `count` floats (all LANES if there are more), `other` beyond; and x with zeros beyond. */
#if SIMD_LANES == 16
INLINE __mmask16 vec_mask(int64_t count) { return (__mmask16)((1u << count) - 1); }
INLINE vec vec_load_or(const float *p, int64_t count, float other) {
  return count >= LANES ? vec_load(p) : (vec)_mm512_mask_loadu_ps((__m512)vec_set(other), vec_mask(count), p);
}
INLINE void vec_store_part(float *p, vec x, int64_t count) {
  if (count >= LANES) vec_store(p, x);
  else _mm512_mask_storeu_ps(p, vec_mask(count), (__m512)x);
}
INLINE vec vec_keep(vec x, int64_t count) {
  return count >= LANES ? x : (vec)_mm512_maskz_mov_ps(vec_mask(count), (__m512)x);
}
#else
INLINE vec vec_load_or(const float *p, int64_t count, float other) {
  if (count >= LANES) return vec_load(p);
  float lane[LANES];
  for (int i = 0; i < LANES; i++) lane[i] = i < count ? p[i] : other;
  return vec_load(lane);
}
INLINE void vec_store_part(float *p, vec x, int64_t count) {
  if (count >= LANES) {
    vec_store(p, x);
    return;
  }
  float lane[LANES];
  vec_store(lane, x);
  for (int i = 0; i < LANES; i++)
    if (i < count) p[i] = lane[i];
}
INLINE vec vec_keep(vec x, int64_t count) {
  float lane[LANES];
  vec_store(lane, x);
  return vec_load_or(lane, count, 0);
}
#endif
INLINE vec vec_load_part(const float *p, int64_t count) { return vec_load_or(p, count, 0); }

#if SIMD_LANES == 16
INLINE vec vec_max(vec a, vec b) { return (vec)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vec vec_min(vec a, vec b) { return (vec)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vec vec_sqrt(vec x) { return (vec)_mm512_sqrt_ps((__m512)x); }
#elif SIMD_LANES == 8
INLINE vec vec_max(vec a, vec b) { return (vec)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vec vec_min(vec a, vec b) { return (vec)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE vec vec_sqrt(vec x) { return (vec)_mm256_sqrt_ps((__m256)x); }
#elif defined(__x86_64__)
INLINE vec vec_max(vec a, vec b) { return (vec)_mm_max_ps((__m128)a, (__m128)b); }
INLINE vec vec_min(vec a, vec b) { return (vec)_mm_min_ps((__m128)a, (__m128)b); }
INLINE vec vec_sqrt(vec x) { return (vec)_mm_sqrt_ps((__m128)x); }
#else
INLINE vec vec_max(vec a, vec b) { return vec_choose(a > b, a, b); } /* b where either is NaN, as on x86 */
INLINE vec vec_min(vec a, vec b) { return vec_choose(a < b, a, b); }
INLINE vec vec_sqrt(vec x) {
  for (int i = 0; i < LANES; i++) x[i] = sqrtf(x[i]);
  return x;
}
#endif

INLINE vec_i vec_set_int(int32_t x) { return x - (vec_i){0}; }
INLINE vec vec_abs(vec x) { return (vec)((vec_i)x & vec_set_int(0x7fffffff)); }

/* Sum over the lanes, halving: the order is fixed. */
INLINE float vec_sum(vec x) {
  float lane[LANES];
  vec_store(lane, x);
  for (int width = LANES / 2; width > 0; width /= 2)
    for (int i = 0; i < width; i++) lane[i] += lane[i + width];
  return lane[0];
}

INLINE float vec_largest(vec x) {
  float lane[LANES], most;
  vec_store(lane, x);
  most = lane[0];
  for (int i = 1; i < LANES; i++) most = lane[i] > most ? lane[i] : most;
  return most;
}

/* 1/x to the last bit or two; x not near overflow. */
INLINE vec vec_reciprocal(vec x) {
#if SIMD_LANES == 16
  vec r = (vec)_mm512_rcp14_ps((__m512)x);
  return r * (vec_set(2.0f) - x * r);
#else
  return vec_set(1.0f) / x;
#endif
}

#define MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits */
#define LOG2E 1.44269504088896341f

/* p * 2^(shifted - MAGIC) */
INLINE vec vec_scale_exponent(vec p, vec shifted) {
#if SIMD_LANES == 16
  return (vec)_mm512_scalef_ps((__m512)p, (__m512)(shifted - vec_set(MAGIC)));
#else
  return p * (vec)(((vec_u)shifted << 23) + 0x3f800000u); /* a product: NaN stays NaN */
#endif
}

/* (2^f - 1)/f for |f| <= 1/2. Minimax, degree 5. */
INLINE vec vec_exp2_slope(vec f) {
  vec p = vec_set(1.5353373e-4f) * f + vec_set(1.3398879e-3f);
  p = p * f + vec_set(9.618437e-3f);
  p = p * f + vec_set(5.5503324e-2f);
  p = p * f + vec_set(2.4022648e-1f);
  return p * f + vec_set(6.931472e-1f);
}

/* One rounding where the instruction set can. */
INLINE vec vec_fma(vec a, vec b, vec c) {
#if SIMD_LANES == 16
  return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif SIMD_LANES == 8
  return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

/* 2^x with x = f + (shifted - EXP2_MAGIC), which is rounded to 1/EXP2_PARTS: the powers of 2^(1/EXP2_PARTS) between 1
 * and 2 lie in one register, and what is left to a polynomial is so small that two terms less will do. Relative error
 * before rounding 5e-8, of 2^x - 1 near x = 0 1e-7 with 16 parts, 6e-7 with 8; exactly 1 at 0. Without an instruction
 * that looks floats up all is left to the polynomial: 1.6e-8. */
#if SIMD_LANES == 16
#define EXP2_PARTS 16
INLINE vec vec_exp2_sum(vec f, vec shifted) {
  const vec powers = {1.0f,        1.04427373f, 1.09050775f, 1.13878858f, 1.18920708f, 1.24185777f,
                      1.29683959f, 1.35425556f, 1.41421354f, 1.47682619f, 1.54221082f, 1.61049032f,
                      1.68179286f, 1.75625217f, 1.8340081f,  1.91520655f};
  vec power = (vec)_mm512_permutexvar_ps((__m512i)shifted, (__m512)powers);
  vec slope = (vec_set(0.0555057377f) * f + vec_set(0.240233555f)) * f + vec_set(0.693147182f);
  power = power * (slope * f) + power;
  return (vec)_mm512_scalef_ps((__m512)power, (__m512)(shifted - vec_set(MAGIC / EXP2_PARTS)));
}
#elif SIMD_LANES == 8
#define EXP2_PARTS 8
INLINE vec vec_exp2_sum(vec f, vec shifted) { /* the powers' bits less those that a part's number adds to them */
  const vec_i powers = {0x3f800000,
                        0x3f8b95c2 - (1 << 20),
                        0x3f9837f0 - (2 << 20),
                        0x3fa5fed7 - (3 << 20),
                        0x3fb504f3 - (4 << 20),
                        0x3fc5672a - (5 << 20),
                        0x3fd744fd - (6 << 20),
                        0x3feac0c7 - (7 << 20)};
  vec_u bits = (vec_u)_mm256_permutevar8x32_ps((__m256)powers, (__m256i)shifted) + ((vec_u)shifted << 20);
  vec slope = (vec_set(0.0555106178f) * f + vec_set(0.240254685f)) * f + vec_set(0.693147182f);
  return (vec)bits * (slope * f) + (vec)bits;
}
#else
#define EXP2_PARTS 1
INLINE vec vec_exp2_sum(vec f, vec shifted) {
  return vec_scale_exponent(vec_exp2_slope(f) * f + vec_set(1.0f), shifted);
}
#endif
#define EXP2_MAGIC (MAGIC / EXP2_PARTS)

/* 2^(a b), 0 where that is below 2^-127 and infinite where it overflows. Where a b is so large that it no longer has
 * a fraction, f is the rounding error of `shifted`, which may be of any size. */
INLINE vec vec_exp2_product(vec a, vec b) {
  vec shifted = vec_fma(a, b, vec_set(EXP2_MAGIC));
#if SIMD_LANES == 16
  /* Cut to the size that f has elsewhere, its sign kept; NaN stays NaN in `shifted`. (Without optimisation the
   * intrinsic is a macro that warns.) */
  vec f = vec_fma(a, b, -(shifted - vec_set(EXP2_MAGIC))), most = vec_set(0.5f / EXP2_PARTS);
  __asm__("vrangeps $2, %2, %1, %0" : "=v"(f) : "v"(f), "v"(most));
  return vec_exp2_sum(f, shifted);
#else /* the power stays in what an exponent holds; what is left above it makes the polynomial overflow */
  shifted = vec_min(vec_set(EXP2_MAGIC + 128 - 1.0f / EXP2_PARTS), vec_max(vec_set(EXP2_MAGIC - 127), shifted));
  vec f = vec_fma(a, b, -(shifted - vec_set(EXP2_MAGIC)));
  return vec_exp2_sum(vec_min(vec_set(64), vec_max(vec_set(-0.5f / EXP2_PARTS), f)), shifted);
#endif
}

/* The same bits where |a b| <= 125 and NaNs are as vec_plain leaves them. */
INLINE vec vec_exp2_near(vec a, vec b) {
  vec shifted = vec_fma(a, b, vec_set(EXP2_MAGIC)), f = vec_fma(a, b, -(shifted - vec_set(EXP2_MAGIC)));
#if EXP2_PARTS > 1
  return vec_exp2_sum(f, shifted);
#else
  return (vec)((vec_u)(vec_exp2_slope(f) * f + vec_set(1.0f)) +
               ((vec_u)shifted << 23)); /* a plain NaN shifted is 0 */
#endif
}
INLINE vec vec_plain(vec x) {
  vec_i nan = (vec_i)(x != x);
  return (vec)((nan & 0x7fc00000) | (~nan & (vec_i)x));
}

/* e^x where nothing may become infinite: above 88 as at 88. 0 below -88 (-104 where subnormal numbers can come out).
 * log2 e in two parts keeps the error at 1 ulp for large x. */
INLINE vec vec_exp_bounded(vec x) {
  x = vec_min(vec_set(88.0f), vec_max(vec_set(LANES == 16 ? -104.0f : -88.0f), x));
  vec shifted = x * vec_set(LOG2E) + vec_set(EXP2_MAGIC), n = shifted - vec_set(EXP2_MAGIC);
  vec f = vec_fma(x, vec_set(1.925963033500e-8f), vec_fma(x, vec_set(LOG2E), -n));
  return vec_exp2_sum(f, shifted);
}

/* e^x, infinite where it overflows: above 88 the square of e^(x/2). */
INLINE vec vec_exp(vec x) {
  vec_i large = (vec_i)(x > vec_set(88.0f));
  vec e = vec_exp_bounded(vec_choose(large, vec_set(0.5f) * x, x));
  return vec_choose(large, e * e, e);
}

/* Cosine and sine of a b, which is not rounded before whole quarter turns are taken off (pi/2 in three parts): an
 * angle that comes again in thousands of steps must not be off to one side. Polynomials of Cephes' cosf and sinf
 * (Moshier 1989), error below 1 ulp. */
INLINE void vec_cos_sin(vec a, vec b, vec *cosine, vec *sine) {
  vec shifted = a * b * vec_set(0.636619772f) + vec_set(MAGIC), q = shifted - vec_set(MAGIC);
  vec x = vec_fma(a, b, -(q * vec_set(1.5703125f)));
  x = x - q * vec_set(4.837512969970703e-4f) - q * vec_set(7.549789954891882e-8f);
  x = vec_min(vec_set(1.6f), vec_max(vec_set(-1.6f), x));
  vec x2 = x * x;
  vec s = vec_set(-1.9515295891e-4f) * x2 + vec_set(8.3321608736e-3f);
  s = s * x2 + vec_set(-1.6666654611e-1f);
  s = x + x * (s * x2);
  vec c = vec_set(2.443315711809948e-5f) * x2 + vec_set(-1.388731625493765e-3f);
  c = c * x2 + vec_set(4.166664568298827e-2f);
  c = (c * x2 - vec_set(0.5f)) * x2 + vec_set(1.0f);
  vec_i quarter = (vec_i)shifted, odd = -(quarter & 1);
  *cosine = (vec)(((odd & (vec_i)s) | (~odd & (vec_i)c)) ^ (((quarter + 1) & 2) << 30));
  *sine = (vec)(((odd & (vec_i)c) | (~odd & (vec_i)s)) ^ ((quarter & 2) << 30));
}

/* 1/(1 + e^-x) */
INLINE vec vec_sigmoid(vec x) { return vec_reciprocal(vec_set(1.0f) + vec_exp_bounded(-x)); }

/* log(1 + e^x) = max(x, 0) + log1p(e) with e = e^-|x|, and log1p(e) = 2 atanh(s), s = e/(2 + e) <= 1/3. */
INLINE vec vec_softplus(vec x) {
  vec e = vec_exp_bounded(-vec_abs(x)), s = e * vec_reciprocal(vec_set(2.0f) + e), s2 = s * s;
  vec p = vec_set(0.140122099f) * s2 + vec_set(0.139995747f);
  p = p * s2 + vec_set(0.200108493f);
  p = p * s2 + vec_set(0.333332066f);
  s += s;
  return vec_max(vec_set(0.0f), x) + (s + s * (s2 * p));
}

/* The slope of softplus where its value is y: 1 - e^-y, without cancellation for small y. */
INLINE vec vec_softplus_slope(vec y) {
  y = vec_min(vec_set(87.0f), y);
  vec shifted = vec_fma(y, vec_set(-LOG2E), vec_set(MAGIC)), n = shifted - vec_set(MAGIC);
  vec f = vec_fma(y, vec_set(-LOG2E), -n), scale = vec_scale_exponent(vec_set(1.0f), shifted);
  return (vec_set(1.0f) - scale) - scale * (f * vec_exp2_slope(f));
}

#endif
