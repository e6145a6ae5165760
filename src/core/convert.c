/* Numbers of host memory from one dtype to another. */
#include "core/dtype.h"
#include <clmamba/tensor.h>
#include <stdbool.h>

enum { BLOCK = 256 };

/* Loops without branches on the dtype. Every number of the others is one of f64. */
static void widen(clm_dtype dtype, const char *from, size_t n, double *out) {
  const uint16_t *h = (const uint16_t *)(const void *)from;
  if (dtype == CLM_F64) memcpy(out, from, n * sizeof *out);
  else if (dtype == CLM_F32)
    for (size_t i = 0; i < n; i++) out[i] = (double)((const float *)(const void *)from)[i];
  else if (dtype == CLM_F16)
    for (size_t i = 0; i < n; i++) out[i] = (double)dtype_from_f16(h[i]);
  else
    for (size_t i = 0; i < n; i++) out[i] = (double)dtype_from_bf16(h[i]);
}

static void narrow(clm_dtype dtype, const double *in, size_t n, char *to) {
  uint16_t *h = (uint16_t *)(void *)to;
  if (dtype == CLM_F64) memcpy(to, in, n * sizeof *in);
  else if (dtype == CLM_F32)
    for (size_t i = 0; i < n; i++) ((float *)(void *)to)[i] = (float)in[i];
  else if (dtype == CLM_F16)
    for (size_t i = 0; i < n; i++) h[i] = dtype_to_f16(dtype_sticky(in[i]));
  else
    for (size_t i = 0; i < n; i++) h[i] = dtype_to_bf16(dtype_sticky(in[i]));
}

static bool converts(clm_dtype dtype) {
  return dtype == CLM_F32 || dtype == CLM_F16 || dtype == CLM_BF16 || dtype == CLM_F64;
}

clm_status clm_convert(clm_dtype to, void *destination, clm_dtype from, const void *source, size_t count) {
  if (!converts(to) || !converts(from) || (count && (!destination || !source))) return CLM_INVALID_ARGUMENT;
  double block[BLOCK];
  for (size_t at = 0, n; at < count; at += n) {
    n = count - at < BLOCK ? count - at : BLOCK;
    widen(from, (const char *)source + at * clm_dtype_size(from), n, block);
    narrow(to, block, n, (char *)destination + at * clm_dtype_size(to));
  }
  return CLM_OK;
}
