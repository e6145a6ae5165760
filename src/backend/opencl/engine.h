/* Matrix engines: which there are, what their kernels are built for, and which one this device has. */
#ifndef CLM_OPENCL_ENGINE_H
#define CLM_OPENCL_ENGINE_H

#include "backend/opencl/operands.h"
#include "schedule/matmul.h"

/* What an engine multiplies; sums are always fp32. A panel holds 32 bytes of k of each. */
typedef enum engine_format { ENGINE_BF16, ENGINE_F16, ENGINE_TF32, ENGINE_FORMATS } engine_format;

/* What makes a device worth a probe: other compilers do not know the instruction. */
typedef enum engine_needs { ENGINE_PTX, ENGINE_AMD, ENGINE_INTEL } engine_needs;

typedef struct matmul_engine {
  const char *name;
  const char *defines;  /* of cl/matmul_engine.cl, with the space before it                           */
  const char *variable; /* of the environment: 0 switches it off                                      */
  engine_needs needs;
  matmul_tile tile;     /* with one product                                                           */
  int32_t split_groups; /* groups_per_unit where f32 is split, which keeps a second set of sums       */
  int32_t items;        /* of a work-group                                                            */
  int32_t consumers;    /* those that hold results                                                    */
  bool formats[ENGINE_FORMATS];
  bool quads;           /* results lie as cl/quad_rows.h wants them                                        */
  bool planes_together; /* a step makes all products of planes                                         */
  bool fragments;       /* of cl/engine_fragments.h: kernels besides the product can use it          */
  bool direct;          /* a lane's words lie side by side along k: cl/matmul_few.cl takes them from memory */
  bool chained;         /* results lie as the next product's operands do: cl/ssd_walk.cl                   */
  bool emulated;        /* its instruction in plain OpenCL C, to test all the rest on any device */
} matmul_engine;

/* The engine of this device: candidates are built, run and compared when first asked. NULL: none. */
const matmul_engine *opencl_engine(clm_context *);

/* The same among those of cl/engine_fragments.h: for cl/tile_engine.h. */
const matmul_engine *opencl_fragment_engine(clm_context *);

/* The engine of this name, here or not, not emulated: for tests. NULL: there is none. */
const matmul_engine *opencl_engine_named(const char *name);

/* A product by this engine, whatever it is worth; args as checked by clm_matmul. CLM_UNSUPPORTED where it has no form
 * for them. `defines` are added to the kernel's. */
clm_status opencl_engine_matmul(clm_context *, const matmul_engine *, const matmul_shape *, const clm_matmul_args *,
                                const char *defines);

/* Where the panels of a matrix of a buffer of weights are kept; *version: of the buffer whose numbers they hold. If
 * it is not the buffer's own, the caller packs them and then says so there. NULL: not kept. */
clm_buffer *opencl_kept_panels(const clm_tensor *matrix, int row, engine_format format, size_t bytes,
                               uint64_t **version);

/* Up to 64 rows times a weight that lies along k, both of 16 bits or less, by the device's engine without panels. */
bool opencl_matmul_few_fits(clm_context *, const matmul_shape *, const clm_matmul_args *);
clm_status opencl_matmul_few(clm_context *, const matmul_shape *, const clm_matmul_args *);

/* Whether the device's engine takes this product and is worth its packing. */
bool opencl_engine_fits(clm_context *, const matmul_shape *, const clm_matmul_args *);

#endif
