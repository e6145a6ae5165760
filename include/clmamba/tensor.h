/* A tensor is a borrowed view of a buffer: nothing is owned, nothing needs freeing, copy it freely. */
#ifndef CLMAMBA_TENSOR_H
#define CLMAMBA_TENSOR_H

#include <clmamba/buffer.h>

CLM_BEGIN_DECLS

/* name, bytes, text */
#define CLM_DTYPE_LIST(X)                                                                                            \
  X(CLM_F32, 4, "f32")                                                                                               \
  X(CLM_F16, 2, "f16")                                                                                               \
  X(CLM_BF16, 2, "bf16")                                                                                             \
  X(CLM_F64, 8, "f64")    /* CPU backend only (clm_cast: any), computed by the reference, for tests */               \
  X(CLM_C64, 8, "c64")    /* two f32, real and imaginary */                                                          \
  X(CLM_C128, 16, "c128") /* two f64; likewise */                                                                    \
  X(CLM_I32, 4, "i32")                                                                                               \
  X(CLM_I8, 1, "i8") /* matrices with a scale for each row; a value is scale times the integer */

typedef enum clm_dtype {
#define X(name, bytes, text) name,
  CLM_DTYPE_LIST(X)
#undef X
} clm_dtype;

CLM_API size_t clm_dtype_size(clm_dtype dtype);
CLM_API const char *clm_dtype_name(clm_dtype dtype);

#define CLM_MAX_RANK 5

typedef struct clm_tensor {
  clm_buffer *buffer; /* NULL: the tensor is absent        */
  size_t offset;      /* of element 0, in bytes            */
  clm_dtype dtype;
  int rank;                     /* 1 to CLM_MAX_RANK                 */
  int64_t shape[CLM_MAX_RANK];  /* at least 1 each                   */
  int64_t stride[CLM_MAX_RANK]; /* in elements, not negative; 0 repeats */
} clm_tensor;

/* A view of `buffer` from byte `offset`, contiguous in row-major order. Checks nothing: the operations do. */
CLM_API clm_tensor clm_tensor_of(clm_buffer *buffer, size_t offset, clm_dtype dtype, int rank, const int64_t *shape);

/* The same with a stride for each dimension, in elements: rows of a wider matrix, (batch, channel, length) in memory,
 * a number that repeats (stride 0). */
CLM_API clm_tensor clm_tensor_strided(clm_buffer *buffer, size_t offset, clm_dtype dtype, int rank,
                                      const int64_t *shape, const int64_t *stride);

/* The same elements with dimensions i and j exchanged. Where a dimension or a part named here and below is not in the
 * tensor, the result has rank 0, which every operation refuses with a message. */
CLM_API clm_tensor clm_tensor_transpose(clm_tensor tensor, int i, int j);

/* The part [begin, begin + count) of dimension `dim`. */
CLM_API clm_tensor clm_tensor_slice(clm_tensor tensor, int dim, int64_t begin, int64_t count);

/* The same memory with another shape; the tensor must be contiguous in row-major order. */
CLM_API clm_tensor clm_tensor_reshape(clm_tensor tensor, int rank, const int64_t *shape);

CLM_API int64_t clm_tensor_count(clm_tensor tensor);

/* Checked host transfers of a contiguous tensor: `bytes` must be count * dtype size. In stream order; they wait. */
CLM_API clm_status clm_tensor_write(clm_tensor tensor, const void *source, size_t bytes);
CLM_API clm_status clm_tensor_read(clm_tensor tensor, void *destination, size_t bytes);

/* `count` numbers of host memory from one dtype to another: f32, f16, bf16 or f64, rounded to nearest, ties to even;
 * what is too large becomes infinite, NaN stays NaN. The arrays may be one where their dtypes have one size, and may
 * not overlap otherwise. Needs no context: CLM_INVALID_ARGUMENT for NULL or another dtype. Thread-safe. */
CLM_API clm_status clm_convert(clm_dtype to, void *destination, clm_dtype from, const void *source, size_t count);

CLM_END_DECLS

#endif
