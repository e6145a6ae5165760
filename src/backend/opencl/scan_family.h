/* What the launchers of the scan family share. */
#ifndef CLM_OPENCL_SCAN_FAMILY_H
#define CLM_OPENCL_SCAN_FAMILY_H

#include "backend/opencl/launch.h"
#include "schedule/selective_scan.h"

#define ARG_STRIDES1(t) ARG_I64((t).stride[0])
#define ARG_STRIDES2(t) ARG_I64((t).stride[0]), ARG_I64((t).stride[1])
#define ARG_STRIDES3(t) ARG_I64((t).stride[0]), ARG_I64((t).stride[1]), ARG_I64((t).stride[2])
#define ARG_TENSOR1(t)  ARG_TENSOR(t), ARG_STRIDES1(t)
#define ARG_TENSOR2(t)  ARG_TENSOR(t), ARG_STRIDES2(t)
#define ARG_TENSOR3(t)  ARG_TENSOR(t), ARG_STRIDES3(t)
#define ARG_TENSOR4(t)  ARG_TENSOR3(t), ARG_I64((t).stride[3])

/* B or C of a selective scan: (batch, step, group, state), or (channel, state) as (0, channel, 0, state). */
#define ARG_INPUT_MATRIX(t, varies)                                                                                  \
  ARG_TENSOR(t), ARG_I64((varies) ? (t).stride[0] : 0), ARG_I64((t).stride[(varies) ? 1 : 0]),                       \
      ARG_I64((varies) ? (t).stride[2] : 0), ARG_I64((t).stride[(varies) ? 3 : 1])

/* Neighbouring steps (dimension 1 of (batch, step, channel)) are neighbours in memory, and channels are not. */
static inline bool length_is_fast(const clm_tensor *t) {
  int last = t->rank - 1;
  return t->shape[1] > 1 && t->stride[1] == 1 && t->stride[last] != 1 && t->shape[last] > 1;
}

/* CLM_UNSUPPORTED with a sentence unless every tensor given is of `dtype` (f32, or c64 where that is wanted). */
clm_status scan_check_dtypes(clm_context *, const char *op, clm_dtype dtype, const clm_tensor *const *, size_t count);

/* "-DSHUFFLE_PTX -DCLM_PTX" and the like: what the probes found. */
const char *scan_device_defines(const schedule_device *);

/* An override for kernel development from the environment, 0 if not set. */
int32_t scan_env(const char *name);

/* parts[count][elements] in `parts` from float `offset` on, part_stride floats apart -> out, summed in order. `out`
 * has rank 1 to 4 and as many elements as a part. */
clm_status scan_reduce(clm_context *, const clm_buffer *parts, int64_t offset, int64_t count, int64_t part_stride,
                       const clm_tensor *out);

#endif
