/* The ways a matrix product can go (matmul.c chooses) and what they share. */
#ifndef CLM_OPENCL_MATMUL_H
#define CLM_OPENCL_MATMUL_H

#include "backend/opencl/operands.h"

/* The kernels' EPILOGUE_PARAMETERS. */
#define ARG_EPILOGUE(a, scale_)                                                                                      \
  ARG_VECTOR((a)->bias), ARG_HAS((a)->bias), ARG_MATRIX((a)->residual), ARG_HAS((a)->residual),                      \
      ARG_MATRIX((a)->out), ARG_VECTOR((a)->b_scale), ARG_F32(scale_), ARG_I32((a)->activation),                     \
      ARG_I32((a)->accumulate)

static inline float matmul_scale(const clm_matmul_args *a) { return a->scale == 0 ? 1.0f : a->scale; }

/* `base` with the types of the operands. */
#define MATMUL_DEFINES(base, args)                                                                                   \
  OPENCL_DEFINES(base, OPERAND_TYPE(A_TYPE, (args)->a), OPERAND_TYPE(B_TYPE, (args)->b),                             \
                 OPERAND_TYPE(OUT_TYPE, (args)->out))

/* Of cl/matmul_pieces.h: whether the pieces of eight numbers along dimension `k` are aligned to their size. */
static inline bool opencl_pieces_aligned(const clm_tensor *t, int k) {
  const size_t bytes = 8 * clm_dtype_size(t->dtype), line = (size_t)t->stride[1 - k] * clm_dtype_size(t->dtype);
  return t->stride[k] == 1 && t->offset % bytes == 0 && line % bytes == 0;
}

/* Our own kernel, for any strides. */
clm_status opencl_matmul_tiled(clm_context *, const matmul_shape *, const clm_matmul_args *);

/* CLBlast (clblast.c; no_clblast.c in a build without it). `_fits`: the strides are such that it can, the product is
 * worth it, and the self-check has found it right on this device. */
bool opencl_clblast_fits(clm_context *, const matmul_shape *, const clm_matmul_args *);
clm_status opencl_matmul_clblast(clm_context *, const matmul_shape *, const clm_matmul_args *);

/* The pass after a plain product: `parts` sums in `partial`, added in order, then scale and the rest. */
clm_status opencl_matmul_finish(clm_context *, const matmul_shape *, const clm_matmul_args *,
                                const clm_tensor *partial, int64_t part_stride, int parts, float scale);

/* When the context goes: what CLBlast keeps for it. */
void opencl_clblast_forget(clm_context *);

#endif
