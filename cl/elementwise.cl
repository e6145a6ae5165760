/* Elementwise operations over views of any strides.
 *
 * The host merges dimensions that lie one behind the other in all operands, so that contiguous tensors arrive with rank
 * 1; dimension 0 is the innermost. A work-group owns ELEMENTS consecutive runs of its own size, so that neighbours
 * touch neighbouring memory and several loads are in flight.
 *   bytes per element: each input read once, the output written once
 * X_TYPE, OUT_TYPE: f32, f16 or bf16 (dropout: X_TYPE alone); cast: f64 too, as X_F64 and OUT_F64. */
#include "storage.h"
#include "random.h"

#define ELEMENTS 4
#ifndef X_TYPE
#define X_TYPE f32
#endif
#ifndef OUT_TYPE
#define OUT_TYPE f32
#endif

/* Offset of element `number` in row-major order of the logical shape. */
static inline long element_at(long number, int rank, long8 shape, long8 stride) {
  if (rank == 1) return number * stride.s0;
  if (number > 0x7fffffff) { /* 64-bit division is several times slower */
    long at = number % shape.s0 * stride.s0;
    number /= shape.s0;
    at += number % shape.s1 * stride.s1;
    number /= shape.s1;
    at += number % shape.s2 * stride.s2;
    number /= shape.s2;
    at += number % shape.s3 * stride.s3;
    number /= shape.s3;
    at += number % shape.s4 * stride.s4;
    return at + number / shape.s4 * stride.s5;
  }
  uint n = (uint)number, n0 = (uint)shape.s0, n1 = (uint)shape.s1, n2 = (uint)shape.s2, n3 = (uint)shape.s3,
       n4 = (uint)shape.s4;
  long at = (long)(n % n0) * stride.s0;
  n /= n0;
  if (rank == 2) return at + (long)n * stride.s1;
  at += (long)(n % n1) * stride.s1;
  n /= n1;
  if (rank == 3) return at + (long)n * stride.s2;
  at += (long)(n % n2) * stride.s2;
  n /= n2;
  at += (long)(n % n3) * stride.s3;
  n /= n3;
  at += (long)(n % n4) * stride.s4;
  return at + (long)(n / n4) * stride.s5;
}

static inline long first_element(void) {
  return (long)get_group_id(0) * (long)get_local_size(0) * ELEMENTS + (long)get_local_id(0);
}

#ifdef ELEMENTWISE_AXPBY
/* out = alpha x + beta out; neither x (has_x 0) nor out (beta 0) is read without need. */
__kernel void axpby(__global const STORAGE(X_TYPE) *x, long x_offset, __global STORAGE(OUT_TYPE) *out, long out_offset,
                    long count, int rank, long8 shape, long8 x_stride, long8 out_stride, int has_x, float alpha,
                    float beta) {
  long i = first_element();
#pragma unroll
  for (int k = 0; k < ELEMENTS; k++, i += (long)get_local_size(0)) {
    if (i < count) {
      long at = out_offset + element_at(i, rank, shape, out_stride);
      float value = 0.0f;
      if (has_x) value = alpha * LOAD(X_TYPE, x, x_offset + element_at(i, rank, shape, x_stride));
      if (beta != 0.0f) value += beta * LOAD(OUT_TYPE, out, at);
      STORE(OUT_TYPE, out, at, value);
    }
  }
}
#endif

#ifdef ELEMENTWISE_CAST
/* Doubles as their bits: no device has to have them. */
#if defined(X_F64)
typedef ulong cast_x;
#else
typedef STORAGE(X_TYPE) cast_x;
#endif
#if defined(OUT_F64)
typedef ulong cast_out;
#else
typedef STORAGE(OUT_TYPE) cast_out;
#endif

/* The nearest float, ties to even; or with `odd`, on the way to a half, the one towards zero with its last bit set if
 * anything was lost, which then rounds as the double would. */
static inline float float_of(ulong bits, int odd) {
  uint sign = (uint)(bits >> 63) << 31;
  int exponent = (int)(bits >> 52 & 0x7ff) - 1023 + 127;
  ulong fraction = bits & 0xfffffffffffffUL, value = (ulong)max(exponent, 0) << 52 | fraction;
  int shift = 29;
  if (exponent == 0x7ff - 1023 + 127) return as_float(sign | 0x7f800000u | (fraction ? 0x400000u : 0u));
  if (exponent >= 255) return as_float(sign | (odd ? 0x7f7fffffu : 0x7f800000u));
  if (exponent <= 0) { /* a subnormal float */
    value = fraction | 1UL << 52;
    shift = min(30 - exponent, 60);
  }
  ulong kept = value >> shift, lost = value & ((1UL << shift) - 1), tie = 1UL << (shift - 1);
  if (odd)
    kept |= lost != 0;
  else
    kept += lost > tie || (lost == tie && (kept & 1));
  return as_float(sign | (uint)kept);
}

static inline ulong double_of(float x) {
  uint bits = as_uint(x), fraction = bits & 0x7fffffu;
  int exponent = (int)(bits >> 23 & 0xff);
  ulong sign = (ulong)(bits >> 31) << 63;
  if (exponent == 255) return sign | 0x7ffUL << 52 | (ulong)fraction << 29;
  if (exponent == 0) {
    if (fraction == 0) return sign;
    int shift = (int)clz(fraction) - 8;
    fraction = fraction << shift & 0x7fffffu;
    exponent = 1 - shift;
  }
  return sign | (ulong)(exponent - 127 + 1023) << 52 | (ulong)fraction << 29;
}

/* odd: out is f16 or bf16. */
__kernel void cast(__global const cast_x *x, long x_offset, __global cast_out *out, long out_offset, long count, int rank,
                   long8 shape, long8 x_stride, long8 out_stride, int odd) {
  long i = first_element();
#pragma unroll
  for (int k = 0; k < ELEMENTS; k++, i += (long)get_local_size(0)) {
    if (i < count) {
      long from = x_offset + element_at(i, rank, shape, x_stride), to = out_offset + element_at(i, rank, shape, out_stride);
#if defined(X_F64) && defined(OUT_F64)
      out[to] = x[from];
#elif defined(X_F64)
      STORE(OUT_TYPE, out, to, float_of(x[from], odd));
#elif defined(OUT_F64)
      out[to] = double_of(LOAD(X_TYPE, x, from));
#else
      STORE(OUT_TYPE, out, to, LOAD(X_TYPE, x, from));
#endif
    }
  }
}
#endif

#ifdef ELEMENTWISE_DROPOUT
/* out = residual + x scale where the element's random bits reach the threshold, else residual. */
__kernel void dropout(__global const STORAGE(X_TYPE) *x, long x_offset, __global const STORAGE(X_TYPE) *residual,
                      long residual_offset, __global STORAGE(X_TYPE) *out, long out_offset, long count, int rank,
                      long8 shape, long8 x_stride, long8 residual_stride, long8 out_stride, int has_residual,
                      float scale, int threshold, ulong seed) {
  long i = first_element();
#pragma unroll
  for (int k = 0; k < ELEMENTS; k++, i += (long)get_local_size(0)) {
    if (i < count) {
      float value = 0.0f;
      if (has_residual) value = LOAD(X_TYPE, residual, residual_offset + element_at(i, rank, shape, residual_stride));
      if (random_keep(random_bits(seed, (ulong)i), (uint)threshold))
        value += LOAD(X_TYPE, x, x_offset + element_at(i, rank, shape, x_stride)) * scale;
      STORE(X_TYPE, out, out_offset + element_at(i, rank, shape, out_stride), value);
    }
  }
}
#endif
