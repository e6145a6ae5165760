/* Reproducible random inputs, and the storage types on the host. */
#include "bench/bench.h"
#include "core/dtype.h"
#include <math.h>

/* Inputs run to gigabytes, so a normal number is drawn from a table of 65536. */
enum { NORMALS = 1 << 16 };

static const float *normals(void) {
  static float table[NORMALS];
  if (table[0] == 0) {
    rng random = rng_seed(20231201, 0);
    for (int i = 0; i < NORMALS; i++) table[i] = (float)rng_normal(&random);
  }
  return table;
}

void bench_fill_floats(rng *random, bench_fill fill, float scale, float *values, size_t count) {
  const float *table = normals();
  for (size_t i = 0; i < count; i += 4) {
    uint64_t bits = rng_next(random);
    for (size_t j = i; j < count && j < i + 4; j++, bits >>= 16) {
      float normal = table[bits & 0xffff];
      switch (fill) {
      case BENCH_ZERO: values[j] = 0; break;
      case BENCH_NORMAL: values[j] = scale * normal; break;
      case BENCH_NEGATIVE: values[j] = -expf(normal); break;
      case BENCH_STEP: values[j] = scale * normal - 4; break;
      case BENCH_DECAY: values[j] = 0.5f + (float)(bits & 0xffff) / 131072.0f; break;
      }
    }
  }
}

double bench_load(clm_dtype dtype, const void *values, size_t index) {
  switch (dtype) {
  case CLM_F32: return ((const float *)values)[index];
  case CLM_F64: return ((const double *)values)[index];
  case CLM_F16: return dtype_from_f16(((const uint16_t *)values)[index]);
  case CLM_BF16: return dtype_from_bf16(((const uint16_t *)values)[index]);
  default: return NAN;
  }
}

void bench_store(clm_dtype dtype, void *values, size_t index, float value) {
  switch (dtype) {
  case CLM_F32: ((float *)values)[index] = value; break;
  case CLM_F16: ((uint16_t *)values)[index] = dtype_to_f16(value); break;
  case CLM_BF16: ((uint16_t *)values)[index] = dtype_to_bf16(value); break;
  default: break;
  }
}
