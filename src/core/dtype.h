/* f16 and bf16 as the integers that are stored; conversions round to nearest, ties to even. */
#ifndef CLM_CORE_DTYPE_H
#define CLM_CORE_DTYPE_H

#include <stdint.h>
#include <string.h>

static inline uint32_t dtype_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static inline float dtype_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static inline float dtype_from_bf16(uint16_t h) { return dtype_float((uint32_t)h << 16); }

static inline uint16_t dtype_to_bf16(float x) {
  uint32_t bits = dtype_bits(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u); /* stays a NaN */
  return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline float dtype_from_f16(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 0x1fu, fraction = h & 0x3ffu;
  if (exponent == 0) { /* zero or subnormal: fraction 2^-24 */
    float magnitude = (float)fraction * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  if (exponent == 31) return dtype_float(sign | 0x7f800000u | fraction << 13);
  return dtype_float(sign | (exponent + 112u) << 23 | fraction << 13);
}

static inline uint16_t dtype_to_f16(float x) {
  uint32_t bits = dtype_bits(x), magnitude = bits & 0x7fffffffu;
  uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
  if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and above */
  if (magnitude < 0x38800000u) {                                   /* below 2^-14: adding 0.5 rounds at 2^-24 */
    float aligned = dtype_float(magnitude) + 0.5f;
    return (uint16_t)(sign | (dtype_bits(aligned) - 0x3f000000u));
  }
  magnitude += 0xfffu + (magnitude >> 13 & 1u);
  return (uint16_t)(sign | (magnitude - 0x38000000u) >> 13);
}

/* A float that rounds onwards to f16 or bf16 as `x` itself would: towards zero, the last bit set if anything was
 * lost. */
static inline float dtype_sticky(double x) {
  float f = (float)x;
  uint32_t bits = dtype_bits(f);
  if ((double)f == x || f != f) return f;
  if ((double)f > x ? f > 0 : f < 0) bits--;
  return dtype_float(bits | 1u);
}

#endif
