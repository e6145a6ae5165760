#include "numbers.h"
#include <math.h>
#include <stdint.h>
#include <string.h>

static double get_bf16(uint16_t bits) {
  uint32_t wide = (uint32_t)bits << 16;
  float f;
  memcpy(&f, &wide, sizeof f);
  return (double)f;
}

static uint16_t set_bf16(double value) {
  float f = (float)value;
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  if (f != f) return 0x7fc0;
  return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

static double power_of_two(int exponent) { /* a normal number */
  uint64_t bits = (uint64_t)(exponent + 1023) << 52;
  double power;
  memcpy(&power, &bits, sizeof power);
  return power;
}

static double get_f16(uint16_t bits) {
  int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double magnitude = exponent == 31  ? (fraction ? (double)NAN : (double)INFINITY)
                     : exponent == 0 ? fraction * 0x1p-24
                                     : (fraction + 1024) * power_of_two(exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

static uint16_t set_f16(double value) {
  unsigned sign = signbit(value) ? 0x8000u : 0;
  if (value != value) return 0x7e00;
  double magnitude = fabs(value);
  if (magnitude >= 65520) return (uint16_t)(sign | 0x7c00);
  uint64_t bits;
  memcpy(&bits, &magnitude, sizeof bits);
  int exponent = (int)(bits >> 52) - 1022; /* magnitude in [2^(exponent-1), 2^exponent) */
  if (exponent < -13) exponent = -13;
  double steps = rint(magnitude * power_of_two(11 - exponent)); /* to nearest, ties to even; carries on */
  return (uint16_t)(sign | ((unsigned)(exponent + 13) * 1024u + (unsigned)steps));
}

double number_get(clm_dtype dtype, const void *memory, size_t i) {
  switch (dtype) {
  case CLM_F32:
  case CLM_C64: return (double)((const float *)memory)[i];
  case CLM_F64:
  case CLM_C128: return ((const double *)memory)[i];
  case CLM_F16: return get_f16(((const uint16_t *)memory)[i]);
  case CLM_BF16: return get_bf16(((const uint16_t *)memory)[i]);
  case CLM_I32: return ((const int32_t *)memory)[i];
  case CLM_I8: return ((const int8_t *)memory)[i];
  }
  return (double)NAN;
}

void number_set(clm_dtype dtype, void *memory, size_t i, double value) {
  switch (dtype) {
  case CLM_F32:
  case CLM_C64: ((float *)memory)[i] = (float)value; break;
  case CLM_F64:
  case CLM_C128: ((double *)memory)[i] = value; break;
  case CLM_F16: ((uint16_t *)memory)[i] = set_f16(value); break;
  case CLM_BF16: ((uint16_t *)memory)[i] = set_bf16(value); break;
  case CLM_I32: ((int32_t *)memory)[i] = (int32_t)value; break;
  case CLM_I8: ((int8_t *)memory)[i] = (int8_t)value; break;
  }
}
