/* What the launchers of the scan family share. */
#ifndef CLM_OPENCL_SCAN_FAMILY_H
#define CLM_OPENCL_SCAN_FAMILY_H

#include "backend/opencl/view.h"
#include "cl/scan_flags.h"
#include "cl/scan_reduce_args.h"
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

/* CLM_UNSUPPORTED with a message unless every tensor given is of `dtype` (f32, or c64 where that is wanted). */
clm_status scan_check_dtypes(clm_context *, const char *op, clm_dtype dtype, const clm_tensor *const *, size_t count);

/* "-DSHUFFLE_PTX -DCLM_PTX" and the like: what the probes found. */
const char *scan_device_defines(const schedule_device *);

/* "-DSCAN_FIXED=<flags>" on a GPU, where a program for each set of flags is worth its compilation; else "". */
typedef struct scan_fixed {
  char define[32];
} scan_fixed;
scan_fixed scan_fix_flags(const clm_context *, int32_t flags);

/* " -D<PREFIX>_FIXED_STEPS=1 -D<PREFIX>_STEP_<name>=<elements>L ..." on a GPU: the distance between neighbouring
 * steps compiled in, so that addresses cost no instructions. A model has few of them; with fewer than
 * SCAN_MANY_CHANNELS channels there is too little work to compile a program for each. */
enum { SCAN_MANY_CHANNELS = 256 };
typedef struct fixed_steps {
  char define[320];
} fixed_steps;
fixed_steps scan_fix_steps(const clm_context *, const char *prefix, const char *const *names, const int64_t *steps,
                           size_t count);

/* The distance between neighbouring steps of (batch, step, channel); 0 for an absent tensor. */
static inline int64_t step_of(const clm_tensor *t) { return t->buffer ? t->stride[1] : 0; }

/* An override for kernel development from the environment, 0 if not set. */
int32_t scan_env(const char *name);
selective_scan_force scan_force(const char *prefix); /* PREFIX_LANES, PREFIX_TILE and so on */

/* parts[count][elements] in `parts` from element `offset` on, part_stride elements apart -> out, summed in order.
 * `out` has rank 1 to 4 and as many elements as a part; parts are f32, or c64 with a complex `out`. */
clm_status scan_reduce(clm_context *, const clm_buffer *parts, int64_t offset, int64_t count, int64_t part_stride,
                       const clm_tensor *out);

/* ---- the passes of a selective scan (scan_passes.c) ---- */

enum { SCAN_U, SCAN_DELTA, SCAN_Z, SCAN_OUT, SCAN_DOUT, SCAN_DU, SCAN_DDELTA, SCAN_DZ, SCAN_STEPS };

/* What a plan is made for. */
typedef struct selective_key {
  char op[16];
  selective_scan_request request;
  int32_t flags; /* cl/scan_flags.h */
  int32_t storage;
  bool bc_length_fast, final_is_initial;
  int64_t step[SCAN_STEPS]; /* elements between neighbouring steps */
  bool near;                /* backward: offsets of elements fit an int */
} selective_key;

/* The steps of a key as defines; none where steps are neighbours in memory. */
fixed_steps scan_step_defines(const clm_context *, const selective_key *);

/* All but `force` and what only one direction has; every byte is set, since keys are compared byte by byte. */
void scan_describe(const char *op, const selective_scan_shape *, const clm_selective_scan_args *, selective_key *);

/* Defines that both directions have: the tile, what varies, what few calls have. */
typedef struct scan_defines {
  char text[640];
} scan_defines;
scan_defines scan_tile_defines(const clm_context *, const selective_key *, const selective_scan_plan *);

/* CLM_UNSUPPORTED with a message for what has no kernel: double precision. */
clm_status scan_check(clm_context *, const clm_selective_scan_args *);

typedef enum scan_pass {
  SCAN_PASS_OUTPUT, /* the scan itself                                            */
  SCAN_PASS_STATES, /* each chunk's final state from zero, and its sum of dt      */
  SCAN_PASS_TILES   /* every plan->keep_every-th state, for the backward pass     */
} scan_pass;

typedef struct scan_workspace { /* offsets in floats */
  clm_buffer *buffer;
  int64_t states_at; /* (slots, d_inner, d_state)                                    */
  int64_t sums_at;   /* (slots, d_inner)                                             */
  int64_t tiles_at;  /* (tiles, d_inner, d_state)                                    */
  int64_t marks_at;  /* (batch, length) bytes: what seq_idx makes of each step       */
  int64_t drops_at;  /* (slots) ints: a sequence begins in the chunk                 */
  int64_t floats;    /* in all                                                       */
} scan_workspace;

/* Takes room for `floats` more, aligned for any number; its offset. */
int64_t scan_take(scan_workspace *, int64_t floats);

/* Room for the chunks' states, if there are any to carry, and for the marks. */
void scan_take_chunks(scan_workspace *, const selective_scan_shape *, const selective_scan_request *, int64_t slots);

/* Floats of one state of every channel. */
static inline int64_t scan_matrix(const selective_scan_shape *s) {
  return s->d_inner * s->d_state * (s->complex ? 2 : 1);
}

/* seq_idx -> w->marks_at; nothing without seq_idx. */
clm_status scan_marks_run(clm_context *, const selective_scan_shape *, const clm_selective_scan_args *,
                          const scan_workspace *);

clm_status scan_forward_kernel(clm_context *, const selective_key *, const selective_scan_plan *, scan_pass,
                               int32_t flags, opencl_kernel **);

/* Runs it over the first `chunks` chunks of each row (over all slots of packed sequences). */
clm_status scan_forward_run(clm_context *, opencl_kernel *, const selective_scan_plan *, int64_t chunks,
                            int32_t flags, const selective_scan_shape *, const clm_selective_scan_args *,
                            const scan_workspace *);

/* Turns what each chunk leaves into what each chunk starts from; `final` gets what leaves the last. In reverse for
 * gradients. `initial` and `final` may be absent. */
clm_status scan_carry_kernel(clm_context *, const selective_key *, bool reverse, opencl_kernel **);
clm_status scan_carry_run(clm_context *, opencl_kernel *, const selective_scan_plan *, const selective_scan_shape *,
                          const clm_selective_scan_args *, const scan_workspace *, const clm_tensor *initial,
                          const clm_tensor *final);

/* cu_seqlens, its stride, the rows of the states, and whether the views run backwards. */
#define ARG_PACKED(s, a)                                                                                             \
  ARG_TENSOR((a)->cu_seqlens), ARG_I64((a)->cu_seqlens.stride[0]), ARG_I32((s)->sequences), ARG_I32((s)->reversed)

#endif
