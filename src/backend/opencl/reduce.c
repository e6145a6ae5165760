/* Launches of cl/reduce.cl: column sums and sums of squares, staged and in a fixed order. */
#include "backend/opencl/operands.h"
#include "backend/opencl/ops.h"

enum { COLUMNS = 32, LANES = 8, ITEMS = 256, GROUPS_PER_UNIT = 8, MIN_ROWS = 64 };

static int64_t wanted_groups(const clm_context *ctx) {
  return GROUPS_PER_UNIT * (int64_t)opencl_schedule_device(ctx)->compute_units;
}

column_plan opencl_column_plan(const clm_context *ctx, const opencl_kernel *k, int64_t rows, int64_t dim) {
  column_plan p = {.local = {COLUMNS, LANES}};
  size_t items = opencl_kernel_work_group(k, COLUMNS * LANES);
  while (p.local[1] > 1 && p.local[0] * p.local[1] > items) p.local[1] /= 2;
  while (p.local[0] * p.local[1] > items) p.local[0] /= 2;
  const int64_t tiles = div_up(dim, (int64_t)p.local[0]);
  const int64_t chunks = min_of(div_up(wanted_groups(ctx), tiles), div_up(rows, MIN_ROWS));
  p.chunk_rows = (int32_t)div_up(rows, chunks);
  p.chunks = (int32_t)div_up(rows, p.chunk_rows);
  p.global[0] = (size_t)tiles * p.local[0];
  p.global[1] = (size_t)p.chunks * p.local[1];
  p.scratch_bytes = p.local[0] * p.local[1] * sizeof(float);
  return p;
}

clm_status opencl_column_finish(clm_context *ctx, const column_plan *p, const clm_tensor *partial,
                                int64_t partial_row, const clm_tensor *out) {
  opencl_kernel *k;
  clm_status status = opencl_kernel_get(ctx, "reduce", "column_finish", "", &k);
  if (status) return status;
  size_t local = opencl_kernel_work_group(k, 64), global = (size_t)out->shape[0];
  return OPENCL_RUN(ctx, k, 1, &global, &local, ARG_TENSOR(*partial), ARG_I64(partial_row), ARG_I32(out->shape[0]),
                    ARG_I32(p->chunks), ARG_VECTOR(*out));
}

clm_status opencl_column_sum(clm_context *ctx, const matrix_shape *s, const clm_column_sum_args *a) {
  clm_status status = OPENCL_ONLY_STORAGE(ctx, "column_sum", OPERAND(a, x));
  opencl_defines types = OPENCL_DEFINES("", OPERAND_TYPE(X_TYPE, a->x));
  if (status == CLM_OK) status = opencl_fits_int(ctx, "column_sum", "rows", s->rows);
  if (status == CLM_OK) status = opencl_fits_int(ctx, "column_sum", "dim", s->dim);
  opencl_kernel *k;
  if (status == CLM_OK) status = opencl_kernel_get(ctx, "reduce", "column_partial", types.text, &k);
  if (status) return status;
  column_plan p = opencl_column_plan(ctx, k, s->rows, s->dim);
  clm_buffer *workspace;
  size_t offset = 0;
  status = context_workspace(ctx, (size_t)p.chunks * (size_t)s->dim * sizeof(float), &workspace);
  if (status) return status;
  clm_tensor partial = opencl_piece(workspace, &offset, CLM_F32, p.chunks * s->dim);
  status = OPENCL_RUN(ctx, k, 2, p.global, p.local, ARG_MATRIX(a->x), ARG_I32(s->rows), ARG_I32(s->dim),
                      ARG_I32(p.chunk_rows), ARG_TENSOR(partial), ARG_LOCAL(p.scratch_bytes));
  if (status) return status;
  context_explain(ctx, "column_sum: opencl, %d chunks of %d rows, then the chunks in order", p.chunks, p.chunk_rows);
  return opencl_column_finish(ctx, &p, &partial, s->dim, &a->out);
}

clm_status opencl_sum_squares(clm_context *ctx, const elementwise_shape *s, const clm_sum_squares_args *a) {
  clm_status status = OPENCL_ONLY_STORAGE(ctx, "sum_squares", OPERAND(a, x));
  opencl_defines types = OPENCL_DEFINES("", OPERAND_TYPE(X_TYPE, a->x));
  opencl_kernel *first, *second;
  if (status == CLM_OK) status = opencl_kernel_get(ctx, "reduce", "square_partial", types.text, &first);
  if (status == CLM_OK) status = opencl_kernel_get(ctx, "reduce", "sum_finish", types.text, &second);
  if (status) return status;
  size_t local = opencl_kernel_work_group(first, ITEMS), finish_local = opencl_kernel_work_group(second, ITEMS);
  const size_t groups = (size_t)min_of(div_up(s->count, 4 * (int64_t)local), wanted_groups(ctx));
  clm_buffer *workspace;
  size_t offset = 0, global = groups * local;
  status = context_workspace(ctx, groups * sizeof(float), &workspace);
  if (status) return status;
  clm_tensor partial = opencl_piece(workspace, &offset, CLM_F32, (int64_t)groups);
  status = OPENCL_RUN(ctx, first, 1, &global, &local, ARG_VECTOR(a->x), ARG_I64(s->count), ARG_TENSOR(partial),
                      ARG_LOCAL(local * sizeof(float)));
  if (status) return status;
  context_explain(ctx, "sum_squares: opencl, %zu work-groups of %zu, then their sums in order", groups, local);
  return OPENCL_RUN(ctx, second, 1, &finish_local, &finish_local, ARG_TENSOR(partial), ARG_I32(groups),
                    ARG_TENSOR(a->out), ARG_I32(a->accumulate), ARG_LOCAL(finish_local * sizeof(float)));
}
