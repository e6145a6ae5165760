/* Elements of tensors as double or complex double, whatever their dtype and strides.
 *
 *   GET(x, i, j)          0 if x is absent       SET(x, value, i, j)     nothing if x is absent
 *   GET_COMPLEX, SET_COMPLEX                     a real dtype reads with imaginary part 0 and keeps the real part
 */
#ifndef CLM_CPU_REFERENCE_ELEMENT_H
#define CLM_CPU_REFERENCE_ELEMENT_H

#include <complex.h>
#undef complex /* a member's name in ops/shapes.h */

#include "core/context.h"
#include "core/dtype.h"

typedef double _Complex complex_double;

static inline complex_double complex_of(double re, double im) { /* clang lacks CMPLX; re + im * I spoils infinities */
  complex_double value;
  memcpy(&value, (const double[2]){re, im}, sizeof value);
  return value;
}

static inline bool present(clm_tensor t) { return t.buffer != NULL; }

static inline int64_t element_at(const clm_tensor *t, const int64_t *index, int rank) {
  int64_t at = 0;
  for (int i = 0; i < rank; i++) at += index[i] * t->stride[i];
  return at;
}

/* Of element `number` in row-major order of the logical shape. */
static inline int64_t element_number(const clm_tensor *t, int64_t number) {
  int64_t at = 0;
  for (int i = t->rank - 1; i >= 0; i--) {
    at += number % t->shape[i] * t->stride[i];
    number /= t->shape[i];
  }
  return at;
}

static inline char *element_data(const clm_tensor *t) { return (char *)t->buffer->host + t->offset; }

static inline complex_double element_load_complex(const clm_tensor *t, int64_t at) {
  if (!t->buffer) return 0;
  const char *data = element_data(t);
  switch (t->dtype) {
  case CLM_F32: return ((const float *)data)[at];
  case CLM_F16: return dtype_from_f16(((const uint16_t *)data)[at]);
  case CLM_BF16: return dtype_from_bf16(((const uint16_t *)data)[at]);
  case CLM_F64: return ((const double *)data)[at];
  case CLM_C64: return complex_of(((const float *)data)[2 * at], ((const float *)data)[2 * at + 1]);
  case CLM_C128: return complex_of(((const double *)data)[2 * at], ((const double *)data)[2 * at + 1]);
  case CLM_I32: return ((const int32_t *)data)[at];
  case CLM_I8: return ((const int8_t *)data)[at];
  }
  return 0;
}

static inline void element_store_complex(const clm_tensor *t, int64_t at, complex_double value) {
  if (!t->buffer) return;
  char *data = element_data(t);
  double re = creal(value), im = cimag(value);
  switch (t->dtype) {
  case CLM_F32: ((float *)data)[at] = (float)re; break;
  case CLM_F16: ((uint16_t *)data)[at] = dtype_to_f16(dtype_sticky(re)); break;
  case CLM_BF16: ((uint16_t *)data)[at] = dtype_to_bf16(dtype_sticky(re)); break;
  case CLM_F64: ((double *)data)[at] = re; break;
  case CLM_C64:
    ((float *)data)[2 * at] = (float)re;
    ((float *)data)[2 * at + 1] = (float)im;
    break;
  case CLM_C128:
    ((double *)data)[2 * at] = re;
    ((double *)data)[2 * at + 1] = im;
    break;
  case CLM_I32: ((int32_t *)data)[at] = (int32_t)re; break;
  case CLM_I8: ((int8_t *)data)[at] = (int8_t)re; break;
  }
}

static inline double element_load(const clm_tensor *t, int64_t at) { return creal(element_load_complex(t, at)); }
static inline void element_store(const clm_tensor *t, int64_t at, double value) {
  element_store_complex(t, at, value);
}

#define ELEMENT_AT(t, ...)                                                                                           \
  element_at(&(t), (const int64_t[]){__VA_ARGS__}, (int)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)))
#define GET(t, ...)                element_load(&(t), ELEMENT_AT(t, __VA_ARGS__))
#define SET(t, value, ...)         element_store(&(t), ELEMENT_AT(t, __VA_ARGS__), value)
#define GET_COMPLEX(t, ...)        element_load_complex(&(t), ELEMENT_AT(t, __VA_ARGS__))
#define SET_COMPLEX(t, value, ...) element_store_complex(&(t), ELEMENT_AT(t, __VA_ARGS__), value)

#endif
