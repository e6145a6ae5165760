/* Shared by the kernels of the scan family: storage types, exponentials, softplus, exchange between lanes.
 * With CLM_PTX (probed, never assumed) the single instructions that NVIDIA's OpenCL C has no name for. */

/* Kernels compute in float whatever the storage type, which arrives as a define. Element offsets are long. */
#include "barrier.h"
#include "storage.h"
#ifndef STORAGE_TYPE
#define STORAGE_TYPE f32
#endif
typedef STORAGE(STORAGE_TYPE) storage_t;
#define load(pointer, index)         LOAD(STORAGE_TYPE, pointer, index)
#define value(bits)                  VALUE(STORAGE_TYPE, bits)
#define store(pointer, index, value) STORE(STORAGE_TYPE, pointer, index, value)

/* Arrays indexed in unrolled loops stay in registers; compilers for CPUs take minutes over such code and gain
 * nothing. */
#ifdef NO_UNROLL
#define UNROLL _Pragma("nounroll")
#else
#define UNROLL _Pragma("unroll")
#endif

#define LOG2_E 1.44269504088896340736f

/* A tensor argument: the buffer, the offset of element 0 and one stride for each dimension, all in elements. */
#define TENSOR(name)               global const storage_t *restrict name, long name##_offset
#define TENSOR_F32(name)           global const float *restrict name, long name##_offset
#define TENSOR_OF(type, name)      global const STORAGE(type) *restrict name, long name##_offset
#define OUTPUT(name)               global storage_t *restrict name, long name##_offset
#define OUTPUT_F32(name)           global float *restrict name, long name##_offset
#define OUTPUT_OF(type, name)      global STORAGE(type) *restrict name, long name##_offset
#define STRIDES1(name, a)          long name##_##a
#define STRIDES2(name, a, b)       long name##_##a, long name##_##b
#define STRIDES3(name, a, b, c)    long name##_##a, long name##_##b, long name##_##c
#define STRIDES4(name, a, b, c, d) long name##_##a, long name##_##b, long name##_##c, long name##_##d

static inline float exp2_fast(float x) {
#ifdef CLM_PTX
  float r;
  __asm__("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
#else
  return exp2(x);
#endif
}

static inline float reciprocal(float x) {
#ifdef CLM_PTX
  float r;
  __asm__("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
#else
  return 1.0f / x;
#endif
}

static inline float sigmoid(float x) { return reciprocal(1.0f + exp2_fast(-LOG2_E * x)); }
static inline float swish(float x) { return x * sigmoid(x); }
static inline float swish_gradient(float x) {
  const float s = sigmoid(x);
  return s * (1.0f + x * (1.0f - s));
}

/* max(x, 0) + log1p(e) with e = exp(-|x|) in [0, 1]: log1p(e) = 2 atanh(s), s = e / (2 + e) <= 1/3, as an odd
 * polynomial with a relative error of 4e-9. Two special functions, and exact to rounding down to the smallest dt. */
static inline float softplus(float x) {
  float e = exp2_fast(-LOG2_E * fabs(x));
  float s = e * reciprocal(2.0f + e);
  float q = s * s;
  float p = 1.0f + q * (0.333331608f + q * (0.200122976f + q * (0.139825789f + q * 0.140788892f)));
  float r = fmax(x, 0.0f) + 2.0f * s * p;
  return x <= 20.0f ? r : x;
}

#if defined(SHUFFLE_PTX)
static inline float lane_xor(float value, int mask) {
  float r;
  __asm__ volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=f"(r) : "f"(value), "r"(mask));
  return r;
}
#elif defined(SHUFFLE_KHR)
#pragma OPENCL EXTENSION cl_khr_subgroup_shuffle : enable
static inline float lane_xor(float value, int mask) { return sub_group_shuffle_xor(value, (uint)mask); }
#endif

/* SHUFFLE_LOCAL imitates shuffles through local memory, so that the kernels that use them can be tested anywhere; a
 * function that shuffles takes SHUFFLE_PARAMETER last and is given SHUFFLE_ARGUMENT. */
#ifdef SHUFFLE_LOCAL
static inline float lane_xor_local(float value, int mask, local float *scratch) {
  const int lid = (int)get_local_id(0);
  local_barrier();
  scratch[lid] = value;
  local_barrier();
  return scratch[lid ^ mask];
}
#define lane_xor(value, mask) lane_xor_local(value, mask, shuffle_scratch)
#define SHUFFLE_SCRATCH       local float shuffle_scratch[WORK_GROUP];
#define SHUFFLE_PARAMETER     , local float *shuffle_scratch
#define SHUFFLE_ARGUMENT      , shuffle_scratch
#else
#define SHUFFLE_SCRATCH
#define SHUFFLE_PARAMETER
#define SHUFFLE_ARGUMENT
#endif
