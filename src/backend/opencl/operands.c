#include "backend/opencl/operands.h"
#include "backend/opencl/scan_family.h"
#include "core/arith.h"
#include <stdio.h>
#include <string.h>

clm_status opencl_only_f32(clm_context *ctx, const char *op, const operand *operands, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const clm_tensor *t = operands[i].tensor;
    if (t->buffer && t->dtype != CLM_F32)
      return context_fail(ctx, CLM_UNSUPPORTED, "%s: %s is %s, the OpenCL backend has this operation for f32 only",
                          op, operands[i].name, clm_dtype_name(t->dtype));
  }
  return CLM_OK;
}

clm_status opencl_only_storage(clm_context *ctx, const char *op, const operand *operands, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const clm_tensor *t = operands[i].tensor;
    if (t->buffer && t->dtype != CLM_F32 && t->dtype != CLM_F16 && t->dtype != CLM_BF16)
      return context_fail(ctx, CLM_UNSUPPORTED,
                          "%s: %s is %s, the OpenCL backend has this operation for f32, f16 and bf16", op,
                          operands[i].name, clm_dtype_name(t->dtype));
  }
  return CLM_OK;
}

clm_status opencl_only_matrix(clm_context *ctx, const char *op, operand matrix, operand scale) {
  const bool integers = matrix.tensor->dtype == CLM_I8;
  return integers ? opencl_only_f32(ctx, op, &scale, 1) : opencl_only_storage(ctx, op, &matrix, 1);
}

opencl_defines opencl_with_types(const char *base, const operand *types, size_t count) {
  opencl_defines d;
  snprintf(d.text, sizeof d.text, "%s", base);
  for (size_t i = 0; i < count; i++) {
    const clm_tensor *t = types[i].tensor;
    size_t used = strlen(d.text);
    if (t->buffer && (t->dtype == CLM_F16 || t->dtype == CLM_BF16 || t->dtype == CLM_I8))
      snprintf(d.text + used, sizeof d.text - used, " -D%s=%s", types[i].name, clm_dtype_name(t->dtype));
  }
  return d;
}

clm_status opencl_fits_int(clm_context *ctx, const char *op, const char *name, int64_t size) {
  if (size <= INT32_MAX - 65536) return CLM_OK; /* room for rounding up */
  return context_fail(ctx, CLM_UNSUPPORTED, "%s: %s is %lld, the OpenCL backend counts with 32 bits", op, name,
                      (long long)size);
}

static bool is_complex(const clm_tensor *t) { return t->buffer && t->dtype == CLM_C64; }

static void append(strided_view *v, int64_t shape, const int64_t stride[STRIDED_TENSORS]) {
  if (shape == 1) return;
  int last = v->rank - 1;
  bool merges = last >= 0;
  for (int k = 0; merges && k < STRIDED_TENSORS; k++) merges = stride[k] == v->stride[k][last] * v->shape[last];
  if (merges) {
    v->shape[last] *= shape;
    return;
  }
  v->shape[v->rank] = shape;
  for (int k = 0; k < STRIDED_TENSORS; k++) v->stride[k][v->rank] = stride[k];
  v->rank++;
}

strided_view opencl_strided(const clm_tensor *const tensors[STRIDED_TENSORS], int count) {
  strided_view v = {.rank = 0};
  const clm_tensor *shaped = tensors[0];
  for (int k = 0; k < count; k++)
    if (tensors[k]->buffer) shaped = tensors[k];
  bool complex = is_complex(shaped);
  for (int i = 0; i < STRIDED_DIMS; i++) v.shape[i] = 1;
  if (complex) {
    int64_t stride[STRIDED_TENSORS] = {0};
    for (int k = 0; k < count; k++) stride[k] = tensors[k]->buffer ? 1 : 0;
    append(&v, 2, stride);
  }
  for (int i = shaped->rank - 1; i >= 0; i--) {
    if (shaped->shape[i] == 1) continue; /* its stride may be anything */
    int64_t stride[STRIDED_TENSORS] = {0};
    for (int k = 0; k < STRIDED_TENSORS; k++) {
      bool present = k < count && tensors[k]->buffer;
      stride[k] = present ? tensors[k]->stride[i] * (complex ? 2 : 1) : 0;
    }
    append(&v, shaped->shape[i], stride);
  }
  if (v.rank == 0) v.rank = 1; /* a single element */
  return v;
}

clm_tensor opencl_piece(clm_buffer *buffer, size_t *offset, clm_dtype dtype, int64_t count) {
  clm_tensor t = clm_tensor_of(buffer, *offset, dtype, 1, &count);
  *offset += round_up_line((size_t)count * clm_dtype_size(dtype));
  return t;
}

enum { LARGE_GROUP = 256, LARGE_LOCAL = 30 * 1024 /* bytes that tiles of 64 x 64 take, at most */ };

int opencl_tile_side(const clm_context *ctx, const char *forced_by) {
  const schedule_device *d = opencl_schedule_device(ctx);
  const int32_t forced = scan_env(forced_by);
  if (forced == 8 || forced == 16) return forced;
  return d->is_cpu || d->max_work_group < LARGE_GROUP || d->local_memory_bytes < LARGE_LOCAL ? 8 : 16;
}
