/* Numbers in storage, f32, f16 or bf16 at any stride, as lines of f32: arithmetic is f32 whatever the storage.
 * Rounding is to nearest even. Under flushed denormals too, as tasks run: no half is taken through a subnormal float.
 */
#ifndef CLM_CPU_STORAGE_H
#define CLM_CPU_STORAGE_H

#include "kernels.h"

typedef uint16_t vec_h __attribute__((vector_size(2 * LANES)));
typedef uint16_t vec_h_anywhere __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

INLINE vec_u vec_choose_bits(vec_i mask, vec_u a, vec_u b) { return ((vec_u)mask & a) | (~(vec_u)mask & b); }

INLINE vec vec_from_bf16(vec_h h) { return (vec)(__builtin_convertvector(h, vec_u) << 16); }

INLINE vec_h vec_to_bf16(vec x) {
  vec_u bits = (vec_u)x, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  vec_i nan = (vec_i)((vec_i)(bits & 0x7fffffff) > 0x7f800000);
  return __builtin_convertvector(vec_choose_bits(nan, bits >> 16 | 0x40, rounded), vec_h);
}

#if SIMD_LANES == 16
INLINE vec vec_from_f16(vec_h h) { return (vec)_mm512_cvtph_ps((__m256i)h); }
INLINE vec_h vec_to_f16(vec x) { /* without optimisation gcc makes the form without a mask a macro that warns */
  return (vec_h)_mm512_maskz_cvtps_ph(0xffff, (__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#elif SIMD_LANES == 8
INLINE vec vec_from_f16(vec_h h) { return (vec)_mm256_cvtph_ps((__m128i)h); }
INLINE vec_h vec_to_f16(vec x) { return (vec_h)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT); }
#else
INLINE vec vec_from_f16(vec_h h) {
  vec_u wide = __builtin_convertvector(h, vec_u), rest = wide & 0x7fff, exponent = rest >> 10;
  vec small = (vec)(rest | 0x3f000000) - vec_set(0.5f); /* subnormal: fraction 2^-24 */
  vec_u large = (rest << 13) + vec_choose_bits((vec_i)(exponent == 31), (vec_u)vec_set_int(0x70000000),
                                               (vec_u)vec_set_int(0x38000000));
  return (vec)((vec_u)vec_choose((vec_i)(exponent == 0), small, (vec)large) | (wide & 0x8000) << 16);
}
INLINE vec_h vec_to_f16(vec x) { /* as dtype_to_f16 */
  vec_u bits = (vec_u)x, size = bits & 0x7fffffff;
  vec_u normal = (size + 0xfff + (size >> 13 & 1) - 0x38000000) >> 13;
  vec_u small = (vec_u)((vec)size + vec_set(0.5f)) - 0x3f000000; /* below 2^-14 */
  vec_u half = vec_choose_bits((vec_i)(size < 0x38800000), small, normal);
  half = vec_choose_bits((vec_i)(size >= 0x477ff000), (vec_u)vec_set_int(0x7c00), half);
  half = vec_choose_bits((vec_i)(size > 0x7f800000), (vec_u)vec_set_int(0x7e00), half);
  return __builtin_convertvector(half | (bits >> 16 & 0x8000), vec_h);
}
#endif

INLINE vec vec_widen(clm_dtype dtype, vec_h h) { return dtype == CLM_F16 ? vec_from_f16(h) : vec_from_bf16(h); }
INLINE vec_h vec_narrow(clm_dtype dtype, vec x) { return dtype == CLM_F16 ? vec_to_f16(x) : vec_to_bf16(x); }

/* Numbers of a tensor along one dimension; `data` is NULL if the tensor is absent. */
typedef struct line {
  char *data;
  int64_t stride;
  clm_dtype dtype; /* f32, f16 or bf16; clm_cast alone has f64 too, matrices that are read i8 */
} line;

INLINE int64_t storage_bytes(clm_dtype dtype) {
  return dtype == CLM_F32 ? 4 : dtype == CLM_F64 ? 8 : dtype == CLM_I8 ? 1 : 2;
}

/* From element `at` on. */
INLINE line line_at(const clm_tensor *t, int64_t at, int64_t stride) {
  if (!t->buffer) return (line){0};
  return (line){element_data(t) + at * storage_bytes(t->dtype), stride, t->dtype};
}
INLINE line line_row(const clm_tensor *t, int64_t i) { return line_at(t, i * t->stride[0], t->stride[1]); }
INLINE line line_vector(const clm_tensor *t) { return line_at(t, 0, t->stride[0]); }
INLINE line line_from(line l, int64_t i) {
  if (l.data) l.data += i * l.stride * storage_bytes(l.dtype);
  return l;
}

/* The rows of a matrix. */
typedef struct line_rows {
  line first;
  int64_t step; /* elements to the next */
} line_rows;

INLINE line_rows line_rows_of(const clm_tensor *t) { return (line_rows){line_row(t, 0), t->stride[0]}; }
INLINE line line_rows_at(const line_rows *rows, int64_t i) {
  line l = rows->first;
  if (l.data) l.data += i * rows->step * storage_bytes(l.dtype);
  return l;
}

/* One part, 0 or 1, of complex numbers. */
INLINE line line_part(const clm_tensor *t, int64_t at, int64_t stride, int part) {
  if (!t->buffer) return (line){0};
  return (line){element_data(t) + (2 * at + part) * 4, 2 * stride, CLM_F32};
}

INLINE bool line_is_plain(line l) { return l.dtype == CLM_F32 && l.stride == 1; }

static inline void line_read(line l, int64_t n, float *out) {
  if (l.dtype == CLM_F32) {
    const float *p = (const float *)(const void *)l.data;
    if (l.stride == 1) memcpy(out, p, (size_t)n * sizeof *out);
    else
      for (int64_t i = 0; i < n; i++) out[i] = p[i * l.stride];
    return;
  }
  if (l.dtype == CLM_I8) {
    const int8_t *p = (const int8_t *)l.data;
    for (int64_t i = 0; i < n; i++) out[i] = (float)p[i * l.stride];
    return;
  }
  const uint16_t *p = (const uint16_t *)(const void *)l.data;
  int64_t i = 0;
  if (l.stride == 1)
    for (; i + LANES <= n; i += LANES) vec_store(out + i, vec_widen(l.dtype, *(const vec_h_anywhere *)(p + i)));
  for (; i < n; i += LANES) {
    vec_h part = {0};
    for (int64_t k = 0; k < min_of(LANES, n - i); k++) part[k] = p[(i + k) * l.stride];
    vec_store_part(out + i, vec_widen(l.dtype, part), n - i);
  }
}

static inline void line_write(line l, int64_t n, const float *in) {
  if (l.dtype == CLM_F32) {
    float *p = (float *)(void *)l.data;
    if (l.stride == 1) memcpy(p, in, (size_t)n * sizeof *in);
    else
      for (int64_t i = 0; i < n; i++) p[i * l.stride] = in[i];
    return;
  }
  uint16_t *p = (uint16_t *)(void *)l.data;
  int64_t i = 0;
  if (l.stride == 1)
    for (; i + LANES <= n; i += LANES) *(vec_h_anywhere *)(p + i) = vec_narrow(l.dtype, vec_load(in + i));
  for (; i < n; i += LANES) {
    vec_h part = vec_narrow(l.dtype, vec_load_part(in + i, n - i));
    for (int64_t k = 0; k < min_of(LANES, n - i); k++) p[(i + k) * l.stride] = part[k];
  }
}

/* The numbers as f32, copied to `scratch` only if they do not lie so; NULL if absent. */
static inline const float *line_load(line l, int64_t n, float *scratch) {
  if (!l.data || line_is_plain(l)) return (const float *)(const void *)l.data;
  line_read(l, n, scratch);
  return scratch;
}

/* Where to compute what is to be stored, and the store itself after it. */
static inline float *line_target(line l, float *scratch) {
  return !l.data || line_is_plain(l) ? (float *)(void *)l.data : scratch;
}
static inline void line_store(line l, int64_t n, const float *in) {
  if (l.data && in != (const float *)(const void *)l.data) line_write(l, n, in);
}

/* Whether every tensor that is present is one that a line can hold. */
#define ALL_STORAGE(...)                                                                                             \
  kernel_all_storage((const clm_tensor[]){__VA_ARGS__},                                                              \
                     sizeof((const clm_tensor[]){__VA_ARGS__}) / sizeof(clm_tensor))
static inline bool kernel_all_storage(const clm_tensor *t, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (t[i].buffer && t[i].dtype != CLM_F32 && t[i].dtype != CLM_F16 && t[i].dtype != CLM_BF16) return false;
  return true;
}

/* The same of a matrix that may be i8 with its scales. */
#define IS_MATRIX(matrix, scale) ((matrix).dtype == CLM_I8 ? ALL_F32(scale) : ALL_STORAGE(matrix))

/* The next `floats` of a worker's scratch. It is laid out once from NULL, to learn its size, and once for real. */
INLINE float *scratch_take(float *memory, int64_t *used, int64_t floats) {
  float *at = (float *)((uintptr_t)memory + (size_t)*used * sizeof(float));
  *used += round_up(floats, 16);
  return at;
}

/* `floats` f32 numbers of scratch for each worker: worker w has those from w * (return value of scratch_row) on. */
static inline clm_status kernel_scratch(clm_context *ctx, int64_t floats, int64_t *row, float **scratch) {
  clm_buffer *workspace;
  *row = round_up(floats, 16);
  clm_status status =
      context_workspace(ctx, (size_t)(*row * cpu_pool_threads(cpu_context_pool(ctx))) * sizeof(float), &workspace);
  if (status == CLM_OK) *scratch = workspace->host;
  return status;
}

#endif
