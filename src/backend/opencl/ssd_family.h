/* What the launchers of SSD and of its gradients share (ssd_passes.c). */
#ifndef CLM_OPENCL_SSD_FAMILY_H
#define CLM_OPENCL_SSD_FAMILY_H

#include "backend/opencl/engine.h"
#include "backend/opencl/operands.h"
#include "backend/opencl/scan_family.h"
#include "backend/opencl/view.h"
#include "cl/ssd_args.h"

/* One call, with what all its kernels are told. */
typedef struct ssd_call {
  clm_context *ctx;
  const ssd_shape *s;
  const clm_ssd_args *a;
  ssd_args g;
  ssd_args segments; /* of the walk: cut into segments, not into pieces */
  bool segments_are_rows;
  const matmul_engine *engine; /* NULL: the plain form                        */
  bool chunks;                 /* on an engine, rows are whole chunks (ssd_has_chunks) */
  int tile;                    /* results of a work-group: tile x tile        */
  size_t group[2];             /* its work-items                              */
  int64_t floats;              /* of workspace                                */
  clm_buffer *work;
  char defines[160];
} ssd_call;

/* CLM_UNSUPPORTED with a message for double precision and for sizes that do not fit an int. */
clm_status ssd_check(clm_context *, const char *op, const ssd_shape *, const clm_ssd_args *);

/* What runs the products, for messages: an engine's name, or "plain". */
const char *ssd_form(const ssd_call *);

/* Whether rows are whole chunks of eight numbers, which loads of 16 bytes reach, and near enough to each other for 32
 * bits. Also a tensor without a buffer. */
bool ssd_has_chunks(const clm_tensor *);

/* Cuts rows into chunks and these into equal pieces of at most `most` steps. */
void ssd_cut(ssd_args *, const ssd_shape *, int64_t chunk, int64_t most);

/* All but the workspace itself; its places for what belongs to steps. `dout`: the backward's, else NULL. */
ssd_call ssd_call_of(clm_context *, const ssd_shape *, const clm_ssd_args *, const clm_tensor *dout);

/* Room for `floats` more; its place. */
int64_t ssd_take(ssd_call *, int64_t floats);

/* Room for what each piece has: C B^T and states. */
void ssd_take_pieces(ssd_call *);

/* The steps' sizes and decays. */
clm_status ssd_run_steps(ssd_call *);

/* C B^T of each piece. */
clm_status ssd_run_between(ssd_call *);

/* Where the initial and the final state are, or their gradients. */
void ssd_set_states(ssd_args *, const clm_tensor *in, const clm_tensor *out);

/* From what pieces add to the state, the state before each. */
clm_status ssd_run_pass(ssd_call *, const ssd_args *, const char *defines, const clm_tensor *in,
                        const clm_tensor *out);

/* The state before each piece, from `in`, the initial state, to `out`, the final one. With `dout` gradients: that of
 * the state after each piece, from `in`, the final one's, to `out`. Either may be absent. */
clm_status ssd_run_states(ssd_call *, const clm_tensor *dout, const clm_tensor *in, const clm_tensor *out);

/* What decides on the kernels of a direction beside the call's defines: of an output that is wanted its dtype + 1. */
typedef struct ssd_direction {
  const char *name;
  clm_status (*all)(ssd_call *, const void *args);
  int32_t wanted[6];
} ssd_direction;

/* ---- The forward of cl/ssd_walk.cl (ssd_walk.c) ---- */

enum {
  SSD_WALK_CHUNK = 512, /* where the caller leaves it free */
  SSD_WALK_STEPS = 32,  /* of a piece, at most             */
};

/* Whether it takes this call: pieces have been chosen to be of an engine. */
bool ssd_walks(const ssd_call *);

/* Segments, and room for their states. */
void ssd_take_segments(ssd_call *);

clm_status ssd_run_walk(ssd_call *);

/* Allocates the workspace and runs it all; the first time that these kernels are asked for, after a dry run, so that
 * nothing is written where one cannot be made. */
clm_status ssd_run(ssd_call *, const ssd_direction *, const void *args);

/* A kernel of cl/<family>.cl with further defines. */
clm_status ssd_kernel(ssd_call *, const char *family, const char *name, const char *defines, opencl_kernel **);

/* Over `first` work-groups of the kernel's tiles in the first dimension and `second` in the other. */
#define SSD_RUN_TILES(call, kernel, first, second, ...)                                                              \
  OPENCL_RUN((call)->ctx, kernel, 2,                                                                                 \
             ((const size_t[]){(size_t)(first) * (call)->group[0], (size_t)(second) * (call)->group[1]}),            \
             (call)->group, ARG_STRUCT((call)->g), __VA_ARGS__)

/* cu_seqlens, and the workspace. */
#define ARG_ENDS(call) ARG_DATA((call)->a->cu_seqlens)
#define ARG_WORK(call) ARG_BUFFER((call)->work)

#endif
