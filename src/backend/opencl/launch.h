/* What a launcher (one file for each operation) needs: a compiled kernel by file, name and defines, and one
 * call that sets its arguments and enqueues it. Everything is checked here, so that launchers stay short. */
#ifndef CLM_OPENCL_LAUNCH_H
#define CLM_OPENCL_LAUNCH_H

#include "core/context.h"
#include "schedule/device.h"
#include "schedule/plan_cache.h"
#include <clmamba/opencl.h>

/* A kernel argument. A tensor becomes two: the buffer (NULL if absent) and a long, the offset of element 0 in
 * elements. */
typedef struct kernel_arg {
  enum {
    KERNEL_TENSOR,
    KERNEL_BUFFER,
    KERNEL_LOCAL,
    KERNEL_I32,
    KERNEL_I64,
    KERNEL_U64,
    KERNEL_F32,
    KERNEL_LONG8,
    KERNEL_STRUCT
  } kind;
  union {
    const clm_tensor *tensor;
    const clm_buffer *buffer;
    size_t bytes;
    int32_t i32;
    int64_t i64;
    uint64_t u64;
    float f32;
    const int64_t *long8; /* eight numbers */
    struct {
      const void *data;
      size_t bytes;
    } by_value; /* a struct that host and kernel share */
  } value;
} kernel_arg;

#define ARG_TENSOR(t) ((kernel_arg){.kind = KERNEL_TENSOR, .value.tensor = &(t)})
#define ARG_BUFFER(b) ((kernel_arg){.kind = KERNEL_BUFFER, .value.buffer = (b)})
#define ARG_LOCAL(n)  ((kernel_arg){.kind = KERNEL_LOCAL, .value.bytes = (n)})
#define ARG_I32(x)    ((kernel_arg){.kind = KERNEL_I32, .value.i32 = (int32_t)(x)})
#define ARG_I64(x)    ((kernel_arg){.kind = KERNEL_I64, .value.i64 = (int64_t)(x)})
#define ARG_U64(x)    ((kernel_arg){.kind = KERNEL_U64, .value.u64 = (x)})
#define ARG_F32(x)    ((kernel_arg){.kind = KERNEL_F32, .value.f32 = (x)})
#define ARG_LONG8(p)  ((kernel_arg){.kind = KERNEL_LONG8, .value.long8 = (p)})

#define ARG_STRUCT(s) ((kernel_arg){.kind = KERNEL_STRUCT, .value.by_value = {&(s), sizeof(s)}})

/* Element 0 of a tensor in its buffer, in elements; 0 of an absent one. */
static inline int64_t opencl_offset(const clm_tensor *t) {
  return t->buffer ? (int64_t)(t->offset / clm_dtype_size(t->dtype)) : 0;
}

typedef struct opencl_kernel opencl_kernel;

/* The device of this context as the scheduler sees it; its shuffle and ptx members are what the probes found. */
const schedule_device *opencl_schedule_device(const clm_context *);

/* Where launchers keep their plans between calls. */
plan_cache *opencl_plans(const clm_context *);

/* The kernel `name` of cl/<family>.cl compiled with `defines` ("-DSCAN_TILE=32 ..."; "" if none). Compiled once per
 * context and set of defines (from the program cache on disk where it is there), then found by hash. */
clm_status opencl_kernel_get(clm_context *, const char *family, const char *name, const char *defines,
                             opencl_kernel **);

/* Work-items a work-group of this kernel may have on this device (CL_KERNEL_WORK_GROUP_SIZE). */
size_t opencl_kernel_max_work_group(const opencl_kernel *);

/* The largest power of two that is at most `wanted` and that this kernel takes as a work-group. */
size_t opencl_kernel_work_group(const opencl_kernel *, size_t wanted);

/* Sets the arguments in order and enqueues. A kernel that has another number of arguments is an error. `global` is
 * rounded up to a multiple of `local` in each dimension; a NULL `local` leaves it to the driver. */
clm_status opencl_kernel_run(clm_context *, opencl_kernel *, int dims, const size_t *global, const size_t *local,
                             const kernel_arg *args, size_t arg_count);

#define OPENCL_RUN(ctx, kernel, dims, global, local, ...)                                                            \
  opencl_kernel_run(ctx, kernel, dims, global, local, (const kernel_arg[]){__VA_ARGS__},                             \
                    sizeof((kernel_arg[]){__VA_ARGS__}) / sizeof(kernel_arg))

#endif
