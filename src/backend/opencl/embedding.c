/* Launches of cl/embedding.cl. */
#include "backend/opencl/operands.h"
#include "backend/opencl/ops.h"

enum { ITEMS = 256, MIN_COLUMNS = 32, MAX_LANES = 8 };

clm_status opencl_embedding(clm_context *ctx, const embedding_shape *s, const clm_embedding_args *a) {
  clm_status status = OPENCL_ONLY_STORAGE(ctx, "embedding", OPERAND(a, out));
  if (status == CLM_OK) status = opencl_only_matrix(ctx, "embedding", OPERAND(a, table), OPERAND(a, table_scale));
  opencl_defines types = OPENCL_DEFINES("", OPERAND_TYPE(X_TYPE, a->table), OPERAND_TYPE(OUT_TYPE, a->out));
  if (status == CLM_OK) status = opencl_fits_int(ctx, "embedding", "vocab", s->vocab);
  if (status == CLM_OK) status = opencl_fits_int(ctx, "embedding", "dim", s->dim);
  opencl_kernel *k;
  if (status == CLM_OK) status = opencl_kernel_get(ctx, "embedding", "embedding", types.text, &k);
  if (status) return status;
  size_t wanted = power_of_two(s->dim), local = opencl_kernel_work_group(k, wanted < ITEMS ? wanted : ITEMS);
  size_t tiles = (size_t)div_up(s->dim, (int64_t)local), global = (size_t)s->count * tiles * local;
  context_explain(ctx, "embedding: opencl, %zu work-group%s of %zu per row", tiles, tiles == 1 ? "" : "s", local);
  return OPENCL_RUN(ctx, k, 1, &global, &local, ARG_VECTOR(a->ids), ARG_MATRIX(a->table), ARG_VECTOR(a->table_scale),
                    ARG_MATRIX(a->out), ARG_I32(s->vocab), ARG_I32(s->dim), ARG_I32(tiles));
}

/* Lanes share the rows of one id: as many as an id has rows on average, so that rare ids leave no lanes idle. */
static void group_size(const opencl_kernel *k, const embedding_shape *s, size_t local[2]) {
  size_t lanes = power_of_two(s->count / s->vocab), columns = power_of_two(s->dim);
  size_t items = opencl_kernel_work_group(k, ITEMS);
  if (lanes > MAX_LANES) lanes = MAX_LANES;
  if (columns > items / lanes) columns = items / lanes;
  if (columns < MIN_COLUMNS && columns < (size_t)s->dim) columns = MIN_COLUMNS;
  while (columns * lanes > items) lanes > 1 ? (lanes /= 2) : (columns /= 2);
  local[0] = columns;
  local[1] = lanes;
}

clm_status opencl_embedding_backward(clm_context *ctx, const embedding_shape *s,
                                     const clm_embedding_backward_args *a) {
  clm_status status = OPENCL_ONLY_STORAGE(ctx, "embedding_backward", OPERAND(a, dout));
  opencl_defines types = OPENCL_DEFINES("", OPERAND_TYPE(X_TYPE, a->dout));
  if (status == CLM_OK) status = opencl_fits_int(ctx, "embedding_backward", "vocab", s->vocab);
  if (status == CLM_OK) status = opencl_fits_int(ctx, "embedding_backward", "dim", s->dim);
  if (status == CLM_OK) status = opencl_fits_int(ctx, "embedding_backward", "count", s->count);
  opencl_kernel *find, *sum;
  if (status == CLM_OK) status = opencl_kernel_get(ctx, "embedding", "embedding_first", types.text, &find);
  if (status == CLM_OK) status = opencl_kernel_get(ctx, "embedding", "embedding_backward", types.text, &sum);
  clm_buffer *workspace;
  size_t offset = 0, bytes = opencl_sort_bytes(s->count) + ((size_t)s->vocab + 1) * sizeof(int32_t) + 64;
  if (status == CLM_OK) status = context_workspace(ctx, bytes, &workspace);
  clm_tensor keys, order;
  if (status == CLM_OK) status = opencl_sort(ctx, &a->ids, s->vocab, workspace, &offset, &keys, &order);
  if (status) return status;
  clm_tensor first = opencl_piece(workspace, &offset, CLM_I32, s->vocab + 1);
  size_t global = (size_t)s->vocab + 1, find_local = opencl_kernel_work_group(find, ITEMS), local[2];
  status = OPENCL_RUN(ctx, find, 1, &global, &find_local, ARG_TENSOR(keys), ARG_I32(s->count), ARG_I32(s->vocab),
                      ARG_TENSOR(first));
  if (status) return status;
  group_size(sum, s, local);
  size_t tiles = (size_t)div_up(s->dim, (int64_t)local[0]), all[2] = {(size_t)s->vocab * tiles * local[0], local[1]};
  context_explain(ctx, "embedding_backward: opencl, positions sorted by id, then %zu columns x %zu lanes per id",
                  local[0], local[1]);
  return OPENCL_RUN(ctx, sum, 2, all, local, ARG_TENSOR(first), ARG_TENSOR(order), ARG_MATRIX(a->dout),
                    ARG_MATRIX(a->dtable), ARG_I32(s->dim), ARG_I32(tiles), ARG_I32(a->accumulate),
                    ARG_LOCAL(local[0] * local[1] * sizeof(float)));
}
