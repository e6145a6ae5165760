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

#include "exponentials.h"

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

#include "lanes.h"
