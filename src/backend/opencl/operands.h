/* What the launchers of the smaller operations share: operands as kernel arguments, checks, views of any strides. */
#ifndef CLM_OPENCL_OPERANDS_H
#define CLM_OPENCL_OPERANDS_H

#include "backend/opencl/launch.h"
#include "core/arith.h"

#define ARG_VECTOR(t) ARG_TENSOR(t), ARG_I64((t).stride[0])
#define ARG_MATRIX(t) ARG_TENSOR(t), ARG_I64((t).stride[0]), ARG_I64((t).stride[1])
#define ARG_HAS(t)    ARG_I32((t).buffer != NULL)

typedef struct operand {
  const char *name;
  const clm_tensor *tensor;
} operand;

#define OPERAND(args, member) ((operand){#member, &(args)->member})

/* CLM_UNSUPPORTED with a message unless every operand that is present is f32. */
clm_status opencl_only_f32(clm_context *, const char *op, const operand *operands, size_t count);
#define OPENCL_ONLY_F32(ctx, op, ...)                                                                                \
  opencl_only_f32(ctx, op, (const operand[]){__VA_ARGS__}, sizeof((const operand[]){__VA_ARGS__}) / sizeof(operand))

/* CLM_UNSUPPORTED with a message unless every operand that is present is f32, f16 or bf16. */
clm_status opencl_only_storage(clm_context *, const char *op, const operand *operands, size_t count);
#define OPENCL_ONLY_STORAGE(ctx, op, ...)                                                                            \
  opencl_only_storage(ctx, op, (const operand[]){__VA_ARGS__},                                                       \
                      sizeof((const operand[]){__VA_ARGS__}) / sizeof(operand))

/* The same of a matrix that may be i8 with its scales. */
clm_status opencl_only_matrix(clm_context *, const char *op, operand matrix, operand scale);

/* `base`, then " -D<name>=<type>" for each operand that is f16, bf16 or i8; what is not named is f32 in the kernels.
 */
typedef struct opencl_defines {
  char text[256];
} opencl_defines;
opencl_defines opencl_with_types(const char *base, const operand *types, size_t count);
#define OPENCL_DEFINES(base, ...)                                                                                    \
  opencl_with_types(base, (const operand[]){__VA_ARGS__}, sizeof((const operand[]){__VA_ARGS__}) / sizeof(operand))
#define OPERAND_TYPE(name, t) ((operand){#name, &(t)})

/* CLM_UNSUPPORTED with a message if a size does not fit the 32 bits that the kernels count with. */
clm_status opencl_fits_int(clm_context *, const char *op, const char *name, int64_t size);

/* Several tensors of one shape as the fewest dimensions that describe them all, innermost first: dimensions that lie
 * one after the other in every tensor are merged, so contiguous tensors come to one dimension of stride 1. */
enum { STRIDED_DIMS = 8, STRIDED_TENSORS = 3 };
typedef struct strided_view {
  int rank;
  int64_t shape[STRIDED_DIMS]; /* 1 past the rank */
  int64_t stride[STRIDED_TENSORS][STRIDED_DIMS];
} strided_view;

/* An absent tensor gets strides of 0. Complex tensors count as twice as many floats. */
strided_view opencl_strided(const clm_tensor *const tensors[STRIDED_TENSORS], int count);

/* SIDE of cl/tile.h on this device. The environment variable `forced_by` is for kernel development: on CPU devices
 * too what GPUs run. */
int opencl_tile_side(const clm_context *, const char *forced_by);

/* The view `count` elements of type `dtype` at byte `offset` of a buffer: for pieces of the workspace. */
clm_tensor opencl_piece(clm_buffer *, size_t *offset, clm_dtype dtype, int64_t count);

/* The least power of two that is at least n. */
static inline size_t power_of_two(int64_t n) {
  size_t p = 1;
  while ((int64_t)p < n) p *= 2;
  return p;
}

/* ---- sums over rows, by column (reduce.c) ---- */

/* How cl/columns.h cuts a matrix: work-groups of columns x lanes, and chunks of rows. */
typedef struct column_plan {
  size_t local[2], global[2];
  int32_t chunks, chunk_rows;
  size_t scratch_bytes;
} column_plan;

column_plan opencl_column_plan(const clm_context *, const opencl_kernel *, int64_t rows, int64_t dim);

/* out[j] = sum over chunks of partial[chunk * partial_row + j]. */
clm_status opencl_column_finish(clm_context *, const column_plan *, const clm_tensor *partial, int64_t partial_row,
                                const clm_tensor *out);

/* ---- stable sort of positions by id (sort.c) ---- */

/* Of the ids, a vector or a matrix row by row, in [0, limit) (others count as `limit`), sorted: keys ascending, order
 * = their positions. Lies in `workspace` from *offset on, which moves past it. */
size_t opencl_sort_bytes(int64_t count);
clm_status opencl_sort(clm_context *, const clm_tensor *ids, int64_t limit, clm_buffer *workspace, size_t *offset,
                       clm_tensor *keys, clm_tensor *order);

#endif
