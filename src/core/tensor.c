#include "core/context.h"

size_t clm_dtype_size(clm_dtype dtype) {
  switch (dtype) {
#define X(name, bytes, text)                                                                                         \
  case name: return bytes;
    CLM_DTYPE_LIST(X)
#undef X
  }
  return 0;
}

const char *clm_dtype_name(clm_dtype dtype) {
  switch (dtype) {
#define X(name, bytes, text)                                                                                         \
  case name: return text;
    CLM_DTYPE_LIST(X)
#undef X
  }
  return "unknown";
}

/* Descriptors may hold anything until an operation checks them: nothing here may overflow or leave the arrays. A
 * dimension that is not there gives a tensor of rank 0, which every operation refuses. */
static int64_t product(int64_t a, int64_t b) {
  int64_t c;
  return __builtin_mul_overflow(a, b, &c) ? INT64_MAX : c;
}

static bool has_dimension(const clm_tensor *t, int i) { return i >= 0 && i < t->rank && t->rank <= CLM_MAX_RANK; }

clm_tensor clm_tensor_strided(clm_buffer *buffer, size_t offset, clm_dtype dtype, int rank, const int64_t *shape,
                              const int64_t *stride) {
  clm_tensor t = {.buffer = buffer, .offset = offset, .dtype = dtype, .rank = shape && stride ? rank : 0};
  for (int i = 0; i < t.rank && t.rank <= CLM_MAX_RANK; i++) {
    t.shape[i] = shape[i];
    t.stride[i] = stride[i];
  }
  return t;
}

clm_tensor clm_tensor_of(clm_buffer *buffer, size_t offset, clm_dtype dtype, int rank, const int64_t *shape) {
  int64_t strides[CLM_MAX_RANK] = {0}, stride = 1;
  for (int i = rank - 1; i >= 0 && rank <= CLM_MAX_RANK && shape; i--) {
    strides[i] = stride;
    stride = product(stride, shape[i]);
  }
  return clm_tensor_strided(buffer, offset, dtype, rank, shape, strides);
}

clm_tensor clm_tensor_transpose(clm_tensor t, int i, int j) {
  if (!has_dimension(&t, i) || !has_dimension(&t, j)) {
    t.rank = 0;
    return t;
  }
  int64_t shape = t.shape[i], stride = t.stride[i];
  t.shape[i] = t.shape[j];
  t.stride[i] = t.stride[j];
  t.shape[j] = shape;
  t.stride[j] = stride;
  return t;
}

clm_tensor clm_tensor_slice(clm_tensor t, int dim, int64_t begin, int64_t count) {
  if (!has_dimension(&t, dim) || begin < 0 || count < 0 || begin > t.shape[dim] - count) {
    t.rank = 0;
    return t;
  }
  t.offset += (size_t)begin * (size_t)t.stride[dim] * clm_dtype_size(t.dtype);
  t.shape[dim] = count;
  return t;
}

clm_tensor clm_tensor_reshape(clm_tensor t, int rank, const int64_t *shape) {
  return clm_tensor_of(t.buffer, t.offset, t.dtype, rank, shape);
}

int64_t clm_tensor_count(clm_tensor t) {
  int64_t count = 1;
  for (int i = 0; i < t.rank && i < CLM_MAX_RANK; i++) count = product(count, t.shape[i]);
  return count;
}

static clm_status check_transfer(clm_tensor t, size_t bytes, const char *call, const void *memory) {
  if (!t.buffer) return CLM_INVALID_ARGUMENT;
  clm_context *ctx = t.buffer->context;
  if (!memory) return context_fail(ctx, CLM_INVALID_ARGUMENT, "%s: the host memory is NULL", call);
  if (clm_dtype_size(t.dtype) == 0)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "%s: the tensor has the unknown dtype %d", call, (int)t.dtype);
  if (t.rank < 1 || t.rank > CLM_MAX_RANK)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "%s: the tensor has rank %d, expected 1 to %d", call, t.rank,
                        CLM_MAX_RANK);
  int64_t stride = 1;
  for (int i = t.rank - 1; i >= 0; i--) {
    if (t.shape[i] > 1 && t.stride[i] != stride)
      return context_fail(ctx, CLM_INVALID_ARGUMENT,
                          "%s: the tensor must be contiguous, dimension %d has stride %lld", call, i,
                          (long long)t.stride[i]);
    stride = product(stride, t.shape[i]);
  }
  size_t expected = (size_t)stride * clm_dtype_size(t.dtype);
  if (bytes != expected)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "%s: %zu bytes given, the tensor has %zu", call, bytes, expected);
  return CLM_OK;
}

clm_status clm_tensor_write(clm_tensor t, const void *source, size_t bytes) {
  clm_status status = check_transfer(t, bytes, "tensor_write", source);
  return status ? status : clm_buffer_write(t.buffer, t.offset, bytes, source);
}

clm_status clm_tensor_read(clm_tensor t, void *destination, size_t bytes) {
  clm_status status = check_transfer(t, bytes, "tensor_read", destination);
  return status ? status : clm_buffer_read(t.buffer, t.offset, bytes, destination);
}
