/* Matrix products: launches of cl/matmul*.cl, and the choice between them and CLBlast. */
#include "backend/opencl/matmul.h"
#include "backend/opencl/engine.h"
#include "backend/opencl/ops.h"
#include "core/try.h"
#include <stdio.h>

enum { MAX_ROWS = 8, ROW_LANES = 32, ROW_LINES = 4, ROW_COLUMNS = 2, SHORT_K = 512, MIN_PART = 256 };

clm_status opencl_matmul_finish(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *a,
                                const clm_tensor *partial, int64_t part_stride, int parts, float scale) {
  opencl_kernel *k;
  const clm_tensor integers = a->b.dtype == CLM_I8 ? a->b : (clm_tensor){0}; /* the only b that it knows of */
  opencl_defines types = OPENCL_DEFINES("", OPERAND_TYPE(B_TYPE, integers), OPERAND_TYPE(OUT_TYPE, a->out));
  clm_status status = opencl_kernel_get(ctx, "matmul", "matmul_finish", types.text, &k);
  if (status) return status;
  size_t global[2] = {(size_t)s->n, (size_t)s->m}, local[2] = {opencl_kernel_work_group(k, 64), 1};
  return OPENCL_RUN(ctx, k, 2, global, local, ARG_TENSOR(*partial), ARG_I64(part_stride), ARG_I64(partial->stride[0]),
                    ARG_I64(partial->stride[1]), ARG_I32(parts), ARG_I32(s->m), ARG_I32(s->n),
                    ARG_EPILOGUE(a, scale));
}

/* One to eight rows times a matrix that is contiguous along k. */
static bool row_fits(const matmul_shape *s, const clm_matmul_args *a) {
  return s->m <= MAX_ROWS && s->k >= ROW_LANES && a->b.stride[0] == 1;
}

static clm_status matmul_row(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *a) {
  char defines[96];
  snprintf(defines, sizeof defines, "-DMATMUL_ROWS=%d%s%s", (int)s->m,
           opencl_pieces_aligned(&a->a, 1) ? " -DALIGNED_A" : "",
           opencl_pieces_aligned(&a->b, 0) ? " -DALIGNED_B" : "");
  opencl_kernel *k;
  clm_status status = opencl_kernel_get(ctx, "matmul_row", "matmul_row", MATMUL_DEFINES(defines, a).text, &k);
  if (status) return status;
  size_t local[2] = {opencl_kernel_work_group(k, ROW_LANES), ROW_LINES};
  while (local[0] * local[1] > opencl_kernel_work_group(k, ROW_LANES * ROW_LINES)) local[1] /= 2;
  const size_t global[2] = {local[0], (size_t)div_up(s->n, ROW_COLUMNS)};
  const size_t scratch = local[0] * local[1] * ROW_COLUMNS * (size_t)s->m * sizeof(float);
  context_explain(ctx, "matmul: opencl, %zu lanes for %d columns of b, %d row%s", local[0], ROW_COLUMNS, (int)s->m,
                  s->m == 1 ? "" : "s");
  return OPENCL_RUN(ctx, k, 2, global, local, ARG_MATRIX(a->a), ARG_TENSOR(a->b), ARG_I64(a->b.stride[1]),
                    ARG_I32(s->n), ARG_I32(s->k), ARG_LOCAL(scratch), ARG_EPILOGUE(a, matmul_scale(a)));
}

/* OpenCL on a CPU, with strides that its vectors can run along. */
static bool direct_fits(clm_context *ctx, const clm_matmul_args *a) {
  bool rows = a->b.stride[1] == 1, dots = a->a.stride[1] == 1 && a->b.stride[0] == 1;
  return opencl_schedule_device(ctx)->is_cpu && (rows || dots);
}

static clm_status matmul_direct(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *a) {
  bool rows = a->b.stride[1] == 1;
  opencl_kernel *k;
  clm_status status =
      opencl_kernel_get(ctx, "matmul_direct", rows ? "matmul_rows" : "matmul_dots", MATMUL_DEFINES("", a).text, &k);
  if (status) return status;
  size_t columns = rows ? 16 : 4, local[2] = {8, 1};
  size_t global[2] = {(size_t)div_up(s->m, 4), (size_t)div_up(s->n, (int64_t)columns)};
  context_explain(ctx, "matmul: opencl, 4 x %zu results per work-item, without local memory", columns);
  if (rows)
    return OPENCL_RUN(ctx, k, 2, global, local, ARG_MATRIX(a->a), ARG_TENSOR(a->b), ARG_I64(a->b.stride[0]),
                      ARG_I32(s->m), ARG_I32(s->n), ARG_I32(s->k), ARG_EPILOGUE(a, matmul_scale(a)));
  return OPENCL_RUN(ctx, k, 2, global, local, ARG_TENSOR(a->a), ARG_I64(a->a.stride[0]), ARG_TENSOR(a->b),
                    ARG_I64(a->b.stride[1]), ARG_I32(s->m), ARG_I32(s->n), ARG_I32(s->k),
                    ARG_EPILOGUE(a, matmul_scale(a)));
}

/* In how many parts to cut k so that the device has work for all its units. */
static int parts_of(const clm_context *ctx, const matmul_shape *s, int64_t tiles) {
  const schedule_device *d = opencl_schedule_device(ctx);
  const int64_t wanted = (int64_t)d->compute_units * (d->is_cpu ? 1 : 2);
  if (tiles >= wanted || s->k < SHORT_K) return 1;
  return (int)min_of(div_up(wanted, tiles), s->k / MIN_PART);
}

clm_status opencl_matmul_tiled(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *a) {
  const schedule_device *d = opencl_schedule_device(ctx);
  bool small = s->m <= 32 || s->n <= 32 || d->max_work_group < 256;
  size_t side = small ? 8 : 16, tile = 4 * side;
  char defines[64];
  snprintf(defines, sizeof defines, "-DMATMUL_SIDE=%zu%s", side, d->is_cpu ? " -DMATMUL_ROLLED" : "");
  opencl_kernel *k;
  clm_status status = opencl_kernel_get(ctx, "matmul", "matmul", MATMUL_DEFINES(defines, a).text, &k);
  if (status) return status;
  size_t tiles[2] = {(size_t)div_up(s->n, (int64_t)tile), (size_t)div_up(s->m, (int64_t)tile)};
  int parts = parts_of(ctx, s, (int64_t)(tiles[0] * tiles[1]));
  int32_t part = (int32_t)round_up(div_up(s->k, parts), 16); /* whole slices */
  parts = (int)div_up(s->k, part);
  clm_tensor partial = {.buffer = NULL};
  if (parts > 1) {
    clm_buffer *workspace;
    status = context_workspace(ctx, (size_t)parts * (size_t)s->m * (size_t)s->n * sizeof(float), &workspace);
    if (status) return status;
    partial = clm_tensor_of(workspace, 0, CLM_F32, 2, (const int64_t[]){s->m, s->n});
  }
  size_t global[3] = {tiles[0] * side, tiles[1] * side, (size_t)parts}, local[3] = {side, side, 1};
  status = OPENCL_RUN(ctx, k, 3, global, local, ARG_MATRIX(a->a), ARG_MATRIX(a->b), ARG_I32(s->m), ARG_I32(s->n),
                      ARG_I32(s->k), ARG_I32(part), ARG_TENSOR(partial), ARG_I32(parts > 1),
                      ARG_EPILOGUE(a, matmul_scale(a)));
  context_explain(ctx, "matmul: opencl, own kernel, %zu x %zu tiles of %zu x %zu, k in %d part%s of %d", tiles[1],
                  tiles[0], tile, tile, parts, parts == 1 ? "" : "s", part);
  if (status || parts == 1) return status;
  return opencl_matmul_finish(ctx, s, a, &partial, s->m * s->n, parts, matmul_scale(a));
}

static clm_status check_product(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *a) {
  clm_status status = OPENCL_ONLY_STORAGE(ctx, "matmul", OPERAND(a, a), OPERAND(a, out));
  if (status == CLM_OK) status = opencl_only_matrix(ctx, "matmul", OPERAND(a, b), OPERAND(a, b_scale));
  if (status == CLM_OK) status = opencl_fits_int(ctx, "matmul", "m", s->m);
  if (status == CLM_OK) status = opencl_fits_int(ctx, "matmul", "n", s->n);
  if (status == CLM_OK) status = opencl_fits_int(ctx, "matmul", "k", s->k);
  return status;
}

clm_status opencl_matmul_batch(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *a) {
  TRY(check_product(ctx, s, a));
  TRY(opencl_fits_int(ctx, "matmul", "batch", s->batch));
  return opencl_engine_fits(ctx, s, a) ? opencl_engine_matmul(ctx, opencl_engine(ctx), s, a, "") : CLM_UNSUPPORTED;
}

clm_status opencl_matmul(clm_context *ctx, const matmul_shape *s, const clm_matmul_args *a) {
  TRY(check_product(ctx, s, a));
  if (opencl_matmul_few_fits(ctx, s, a)) return opencl_matmul_few(ctx, s, a);
  if (!row_fits(s, a) && opencl_engine_fits(ctx, s, a))
    return opencl_engine_matmul(ctx, opencl_engine(ctx), s, a, "");
  if (direct_fits(ctx, a)) return matmul_direct(ctx, s, a);
  if (row_fits(s, a)) return matmul_row(ctx, s, a);
  if (opencl_clblast_fits(ctx, s, a)) return opencl_matmul_clblast(ctx, s, a);
  return opencl_matmul_tiled(ctx, s, a);
}
