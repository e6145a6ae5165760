/* Launches of cl/sort.cl. */
#include "backend/opencl/operands.h"

enum { DIGIT_BITS = 8, DIGITS = 1 << DIGIT_BITS, BLOCK = 256, MIN_BLOCK = 16 };

size_t opencl_sort_bytes(int64_t count) {
  size_t blocks = (size_t)div_up(count, MIN_BLOCK); /* however small the work-groups turn out to be */
  return (4 * (size_t)count + DIGITS * blocks) * sizeof(int32_t) + 5 * 64;
}

clm_status opencl_sort(clm_context *ctx, const clm_tensor *ids, int64_t limit, clm_buffer *workspace, size_t *offset,
                       clm_tensor *keys, clm_tensor *order) {
  static const char *const names[] = {"sort_keys", "sort_count", "sort_places", "sort_move"};
  opencl_kernel *k[4];
  for (int i = 0; i < 4; i++) {
    clm_status status = opencl_kernel_get(ctx, "sort", names[i], "", &k[i]);
    if (status) return status;
  }
  int64_t count = clm_tensor_count(*ids), columns = ids->rank == 2 ? ids->shape[1] : 1;
  size_t block = opencl_kernel_work_group(k[1], BLOCK), items = opencl_kernel_work_group(k[2], BLOCK);
  if (block > opencl_kernel_work_group(k[3], BLOCK)) block = opencl_kernel_work_group(k[3], BLOCK);
  if (block < MIN_BLOCK)
    return context_fail(ctx, CLM_UNSUPPORTED, "sort: this device runs only %zu work-items together", block);
  size_t global = (size_t)count, local = opencl_kernel_work_group(k[0], BLOCK);
  int64_t blocks = div_up(count, (int64_t)block);
  clm_tensor pair[2][2];
  for (int i = 0; i < 4; i++) pair[i / 2][i % 2] = opencl_piece(workspace, offset, CLM_I32, count);
  clm_tensor counts = opencl_piece(workspace, offset, CLM_I32, blocks * DIGITS);
  clm_status status =
      OPENCL_RUN(ctx, k[0], 1, &global, &local, ARG_VECTOR(*ids), ARG_I64(ids->stride[1]), ARG_I32(columns),
                 ARG_I32(count), ARG_I32(limit), ARG_TENSOR(pair[0][0]), ARG_TENSOR(pair[0][1]));
  int from = 0;
  for (int shift = 0; status == CLM_OK && shift < 31 && (limit >> shift) > 0; shift += DIGIT_BITS, from = 1 - from) {
    const clm_tensor *now = pair[from], *next = pair[1 - from];
    status = OPENCL_RUN(ctx, k[1], 1, &global, &block, ARG_TENSOR(now[0]), ARG_I32(count), ARG_I32(shift),
                        ARG_I32(blocks), ARG_TENSOR(counts));
    if (status == CLM_OK)
      status = OPENCL_RUN(ctx, k[2], 1, &items, &items, ARG_TENSOR(counts), ARG_I32(blocks * DIGITS),
                          ARG_LOCAL(items * sizeof(int32_t)));
    if (status == CLM_OK)
      status = OPENCL_RUN(ctx, k[3], 1, &global, &block, ARG_TENSOR(now[0]), ARG_TENSOR(now[1]), ARG_I32(count),
                          ARG_I32(shift), ARG_I32(blocks), ARG_TENSOR(counts), ARG_TENSOR(next[0]),
                          ARG_TENSOR(next[1]), ARG_LOCAL(block * sizeof(int32_t)));
  }
  *keys = pair[from][0];
  *order = pair[from][1];
  return status;
}
