#include "files/convert.h"
#include "core/dtype.h"
#include <math.h>

#define BLOCK 2048 /* elements that are converted while they are in the first cache; whole blocks of every dtype */

/* What a file holds may lie anywhere. */
typedef uint32_t __attribute__((aligned(1), may_alias)) any_u32;
typedef uint16_t __attribute__((aligned(1), may_alias)) any_u16;

/* Loops without branches, for the compiler to make vectors of. */
static void f32_to_f32(const void *in, size_t n, float *out) { memcpy(out, in, n * sizeof *out); }

static void bf16_to_f32(const void *in, size_t n, float *out) {
  const any_u16 *h = in;
  for (size_t i = 0; i < n; i++) out[i] = dtype_float((uint32_t)h[i] << 16);
}

/* The exponent is moved by a product with 2^112, which makes subnormals right; what then is 2^16 or more was no
 * number. */
static void f16_to_f32(const void *in, size_t n, float *out) {
  const any_u16 *h = in;
  for (size_t i = 0; i < n; i++) {
    uint32_t bits = h[i];
    float magnitude = dtype_float((bits & 0x7fffu) << 13) * 0x1p112f;
    uint32_t no_number = magnitude >= 65536.0f ? 0x7f800000u : 0;
    out[i] = dtype_float(dtype_bits(magnitude) | no_number | (bits & 0x8000u) << 16);
  }
}

static void q8_0_to_f32(const void *in, size_t n, float *out) {
  const size_t elements = source_block_elements(SOURCE_Q8_0), bytes = source_block_bytes(SOURCE_Q8_0);
  const unsigned char *block = in;
  for (size_t i = 0; i < n; i += elements, block += bytes) {
    float scale = dtype_from_f16(*(const any_u16 *)(const void *)block);
    for (size_t k = 0; k < elements; k++) out[i + k] = scale * (float)(signed char)block[2 + k];
  }
}

static void (*const decode[])(const void *, size_t, float *) = {
    [SOURCE_F32] = f32_to_f32, [SOURCE_F16] = f16_to_f32, [SOURCE_BF16] = bf16_to_f32, [SOURCE_Q8_0] = q8_0_to_f32};

static void f32_to(clm_dtype to, const float *in, size_t n, void *out) {
  uint16_t *h = out;
  if (to == CLM_F32) memcpy(out, in, n * sizeof *in);
  else if (to == CLM_F16)
    for (size_t i = 0; i < n; i++) h[i] = dtype_to_f16(in[i]);
  else
    for (size_t i = 0; i < n; i++) h[i] = dtype_to_bf16(in[i]);
}

static bool same(source_dtype from, clm_dtype to) {
  return (from == SOURCE_F32 && to == CLM_F32) || (from == SOURCE_F16 && to == CLM_F16) ||
         (from == SOURCE_BF16 && to == CLM_BF16);
}

/* Of a whole block, without looking at every one twice. */
static size_t count_non_finite(const float *values, size_t n) {
  uint32_t non_finite = 0;
  for (size_t i = 0; i < n; i++) non_finite += (dtype_bits(values[i]) & 0x7f800000u) == 0x7f800000u;
  return non_finite;
}

size_t convert(const conversion *c, const void *in, size_t elements, void *out) {
  float values[BLOCK];
  size_t non_finite = 0;
  const size_t per_block = BLOCK / source_block_elements(c->from) * source_block_bytes(c->from);
  const char *from = in;
  char *to = out;
  for (size_t at = 0, n; at < elements; at += n, from += per_block, to += BLOCK * clm_dtype_size(c->to)) {
    n = elements - at < BLOCK ? elements - at : BLOCK;
    decode[c->from](from, n, values);
    non_finite += count_non_finite(values, n);
    if (c->is_A)
      for (size_t i = 0; i < n; i++) values[i] = logf(-values[i]);
    if (same(c->from, c->to) && !c->is_A) memcpy(to, from, n * clm_dtype_size(c->to)); /* the very bits of a NaN */
    else f32_to(c->to, values, n, to);
  }
  return non_finite;
}

#define ROUND 12582912.0f /* 1.5 * 2^23: no fraction is left of what it is added to */

float quantize_row(const float *row, size_t n, int8_t *out) {
  uint32_t largest = 0;
  for (size_t i = 0; i < n; i++) {
    const uint32_t magnitude = dtype_bits(row[i]) & 0x7fffffffu;
    largest = magnitude > largest ? magnitude : largest;
  }
  const bool finite = largest < 0x7f800000u;
  const float scale = dtype_float(largest) / 127;
  if (!finite || scale == 0) { /* or so small that a float does not hold it */
    memset(out, 0, n);
    return finite ? 0 : NAN;
  }
  for (size_t i = 0; i < n; i++) out[i] = (int8_t)(int32_t)((row[i] / scale + ROUND) - ROUND);
  return scale;
}
