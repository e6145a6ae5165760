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

/* What a call of the selective scan has: `flags` of the kernels (cl/selective_scan.cl has the same). */
enum {
  SCAN_HAS_D = 1,
  SCAN_HAS_Z = 2,
  SCAN_HAS_BIAS = 4,
  SCAN_SOFTPLUS = 8,
  SCAN_A_LOG = 16,
  SCAN_FROM_INITIAL = 32,
  SCAN_TO_FINAL = 64,
  SCAN_FROM_CARRY = 128,
  SCAN_FOLD = 256,
  SCAN_FORWARD_FLAGS = 511 /* the backward kernel has more */
};

static inline int32_t scan_flags(const clm_selective_scan_args *a) {
  return (a->D.buffer ? SCAN_HAS_D : 0) | (a->z.buffer ? SCAN_HAS_Z : 0) |
         (a->delta_bias.buffer ? SCAN_HAS_BIAS : 0) | (a->delta_softplus ? SCAN_SOFTPLUS : 0) |
         (a->A_is_log ? SCAN_A_LOG : 0) | (a->initial_state.buffer ? SCAN_FROM_INITIAL : 0) |
         (a->final_state.buffer ? SCAN_TO_FINAL : 0);
}

/* Neighbouring steps (dimension 1 of (batch, step, channel)) are neighbours in memory, and channels are not. */
static inline bool length_is_fast(const clm_tensor *t) {
  int last = t->rank - 1;
  return t->shape[1] > 1 && t->stride[1] == 1 && t->stride[last] != 1 && t->shape[last] > 1;
}

/* CLM_UNSUPPORTED with a sentence unless every tensor given is of `dtype` (f32, or c64 where that is wanted). */
clm_status scan_check_dtypes(clm_context *, const char *op, clm_dtype dtype, const clm_tensor *const *, size_t count);

/* The same for a selective scan's arguments, complex A included. */
clm_status scan_check_args(clm_context *, const selective_scan_shape *, const clm_selective_scan_args *);

/* "-DSHUFFLE_PTX -DCLM_PTX" and the like: what the probes found. */
const char *scan_device_defines(const schedule_device *);

/* "-DSCAN_FIXED=<flags>" on a GPU, where a program for each set of flags is worth its compilation; else "". */
typedef struct scan_fixed {
  char define[32];
} scan_fixed;
scan_fixed scan_fix_flags(const clm_context *, int32_t flags);

/* An override for kernel development from the environment, 0 if not set. */
int32_t scan_env(const char *name);

/* parts[count][elements] in `parts` from float `offset` on, part_stride floats apart -> out, summed in order. `out`
 * has rank 1 to 4 and as many elements as a part. */
clm_status scan_reduce(clm_context *, const clm_buffer *parts, int64_t offset, int64_t count, int64_t part_stride,
                       const clm_tensor *out);

/* ---- the passes of a selective scan (scan_passes.c) ---- */

/* What the scheduler is asked; `force` is left zeroed. */
void scan_request(const selective_scan_shape *, const clm_selective_scan_args *, selective_scan_request *);
bool scan_bc_length_fast(const selective_scan_shape *, const clm_selective_scan_args *);

typedef enum scan_pass {
  SCAN_PASS_OUTPUT, /* the scan itself                                            */
  SCAN_PASS_STATES, /* each chunk's final state from zero, and its sum of dt      */
  SCAN_PASS_TILES   /* each tile's first state, for the backward pass             */
} scan_pass;

typedef struct scan_workspace { /* offsets in floats */
  clm_buffer *buffer;
  int64_t states_at; /* (batch, chunks, d_inner, d_state) */
  int64_t sums_at;   /* (batch, chunks, d_inner)          */
  int64_t tiles_at;  /* (batch, tiles, d_inner, d_state)  */
} scan_workspace;

clm_status scan_forward_kernel(clm_context *, const selective_scan_request *, const selective_scan_plan *,
                               bool bc_length_fast, scan_pass, int32_t flags, opencl_kernel **);

/* Runs it over the first `chunks` chunks. */
clm_status scan_forward_run(clm_context *, opencl_kernel *, const selective_scan_plan *, int64_t chunks,
                            int32_t flags, const selective_scan_shape *, const clm_selective_scan_args *,
                            const scan_workspace *);

/* Turns what each chunk leaves into what each chunk starts from; `final` gets what leaves the last. In reverse for
 * gradients. `initial` and `final` may be absent. */
clm_status scan_carry_kernel(clm_context *, bool reverse, opencl_kernel **);
clm_status scan_carry_run(clm_context *, opencl_kernel *, const selective_scan_shape *,
                          const clm_selective_scan_args *, const scan_workspace *, int32_t chunks,
                          const clm_tensor *initial, const clm_tensor *final);

#endif
