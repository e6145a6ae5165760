/* Launches of cl/grouped_matmul.cl and cl/grouped_rows.cl. */
#include "backend/opencl/matmul.h"
#include "backend/opencl/ops.h"
#include "backend/opencl/view.h"
#include "cl/moe_args.h"
#include "core/try.h"
#include <stdio.h>

enum { MAX_ROWS = 64, ROW_LANES = 32, ROW_LINES = 4, ROW_COLUMNS = 2 };

static clm_status check(clm_context *ctx, const char *op, const grouped_shape *s) {
  TRY(opencl_fits_int(ctx, op, "rows", s->rows));
  TRY(opencl_fits_int(ctx, op, "experts", s->experts));
  TRY(opencl_fits_int(ctx, op, "n", s->n));
  return opencl_fits_int(ctx, op, "k", s->k);
}

static grouped_args args_of(const grouped_shape *s, const clm_tensor *a, const clm_tensor *b,
                            const clm_tensor *offsets, const clm_tensor *out) {
  return (grouped_args){.a = opencl_view_of(a),
                        .b = opencl_view_of(b),
                        .offsets = opencl_view_of(offsets),
                        .out = opencl_view_of(out),
                        .rows = (int32_t)s->rows,
                        .experts = (int32_t)s->experts,
                        .n = (int32_t)s->n,
                        .k = (int32_t)s->k};
}

/* The kernel `name` of tiles for operands of these types. */
static clm_status tile_kernel(clm_context *ctx, const char *name, int side, const clm_tensor *a, const clm_tensor *b,
                              const clm_tensor *out, opencl_kernel **k) {
  char defines[32];
  snprintf(defines, sizeof defines, "-DGROUPED_SIDE=%d", side);
  return opencl_kernel_get(
      ctx, "grouped_matmul", name,
      OPENCL_DEFINES(defines, OPERAND_TYPE(A_TYPE, *a), OPERAND_TYPE(B_TYPE, *b), OPERAND_TYPE(OUT_TYPE, *out)).text,
      k);
}

static clm_status by_tiles(clm_context *ctx, const grouped_shape *s, const clm_grouped_matmul_args *a,
                           const grouped_args *g) {
  const int side = opencl_tile_side(ctx, "CLM_GROUPED_SIDE");
  opencl_kernel *k;
  TRY(tile_kernel(ctx, "grouped_matmul", side, &a->a, &a->b, &a->out, &k));
  const int64_t tile = 4 * side, slots = s->rows / tile + min_of(s->experts, s->rows) + 1; /* experts', and of none */
  const size_t local[2] = {(size_t)side, (size_t)side},
               global[2] = {(size_t)(div_up(s->n, tile) * side), (size_t)(slots * side)};
  context_explain(ctx, "grouped_matmul: opencl, plain, tiles of %d x %d", (int)tile, (int)tile);
  return OPENCL_RUN(ctx, k, 2, global, local, ARG_STRUCT(*g), ARG_DATA(a->a), ARG_DATA(a->b),
                    ARG_DATA(a->group_offsets), ARG_DATA(a->b_scale), ARG_DATA(a->out));
}

static bool rows_fit(const grouped_shape *s, const clm_grouped_matmul_args *a) {
  return s->rows <= MAX_ROWS && s->k >= ROW_LANES && a->b.stride[2] == 1;
}

/* Whether the pieces of eight numbers of every expert's matrix are aligned to their size. */
static bool experts_aligned(const clm_tensor *b) {
  const size_t bytes = 8 * clm_dtype_size(b->dtype);
  clm_tensor first = *b;
  first.stride[0] = b->stride[1];
  first.stride[1] = b->stride[2];
  return opencl_pieces_aligned(&first, 1) && (size_t)b->stride[0] * clm_dtype_size(b->dtype) % bytes == 0;
}

static clm_status by_rows(clm_context *ctx, const grouped_shape *s, const clm_grouped_matmul_args *a,
                          const grouped_args *g) {
  char defines[64];
  snprintf(defines, sizeof defines, "%s%s", opencl_pieces_aligned(&a->a, 1) ? " -DALIGNED_A" : "",
           experts_aligned(&a->b) ? " -DALIGNED_B" : "");
  opencl_kernel *k;
  TRY(opencl_kernel_get(ctx, "grouped_rows", "grouped_rows", MATMUL_DEFINES(defines, a).text, &k));
  size_t local[3] = {opencl_kernel_work_group(k, ROW_LANES), ROW_LINES, 1};
  while (local[0] * local[1] > opencl_kernel_work_group(k, ROW_LANES * ROW_LINES)) local[1] /= 2;
  const size_t global[3] = {local[0], (size_t)div_up(s->n, ROW_COLUMNS), (size_t)s->rows};
  context_explain(ctx, "grouped_matmul: opencl, %zu lanes for %d columns of a row", local[0], ROW_COLUMNS);
  return OPENCL_RUN(ctx, k, 3, global, local, ARG_STRUCT(*g), ARG_DATA(a->a), ARG_DATA(a->b),
                    ARG_DATA(a->group_offsets), ARG_DATA(a->b_scale), ARG_DATA(a->out),
                    ARG_LOCAL(local[0] * local[1] * ROW_COLUMNS * sizeof(float)));
}

clm_status opencl_grouped_matmul(clm_context *ctx, const grouped_shape *s, const clm_grouped_matmul_args *a) {
  TRY(OPENCL_ONLY_STORAGE(ctx, "grouped_matmul", OPERAND(a, a), OPERAND(a, out)));
  TRY(opencl_only_matrix(ctx, "grouped_matmul", OPERAND(a, b), OPERAND(a, b_scale)));
  TRY(check(ctx, "grouped_matmul", s));
  grouped_args g = args_of(s, &a->a, &a->b, &a->group_offsets, &a->out);
  g.scale = opencl_view_of(&a->b_scale);
  return (rows_fit(s, a) ? by_rows : by_tiles)(ctx, s, a, &g);
}

/* Sums over the rows of each expert. */
static clm_status weight_gradient(clm_context *ctx, const grouped_shape *s,
                                  const clm_grouped_matmul_backward_args *b) {
  const clm_grouped_matmul_args *a = &b->forward;
  const int side = opencl_tile_side(ctx, "CLM_GROUPED_SIDE");
  const grouped_args g = args_of(s, &b->dout, &a->a, &a->group_offsets, &b->db);
  opencl_kernel *k;
  TRY(tile_kernel(ctx, "grouped_weights", side, &b->dout, &a->a, &b->db, &k));
  const size_t tile = 4 * (size_t)side, local[3] = {(size_t)side, (size_t)side, 1},
               global[3] = {((size_t)s->k + tile - 1) / tile * local[0], ((size_t)s->n + tile - 1) / tile * local[1],
                            (size_t)s->experts};
  return OPENCL_RUN(ctx, k, 3, global, local, ARG_STRUCT(g), ARG_DATA(b->dout), ARG_DATA(a->a),
                    ARG_DATA(a->group_offsets), ARG_DATA(b->db));
}

/* dout times the matrices as they are stored: the forward product of their transposes. */
static clm_status row_gradient(clm_context *ctx, const grouped_shape *s, const clm_grouped_matmul_backward_args *b) {
  const clm_grouped_matmul_args turned = {.a = b->dout,
                                          .b = clm_tensor_transpose(b->forward.b, 1, 2),
                                          .group_offsets = b->forward.group_offsets,
                                          .out = b->da};
  const grouped_shape shape = {.rows = s->rows, .experts = s->experts, .n = s->k, .k = s->n};
  return opencl_grouped_matmul(ctx, &shape, &turned);
}

clm_status opencl_grouped_matmul_backward(clm_context *ctx, const grouped_shape *s,
                                          const clm_grouped_matmul_backward_args *b) {
  const clm_grouped_matmul_args *a = &b->forward;
  TRY(OPENCL_ONLY_STORAGE(ctx, "grouped_matmul_backward", OPERAND(a, a), OPERAND(a, b), OPERAND(b, dout),
                          OPERAND(b, da), OPERAND(b, db)));
  TRY(check(ctx, "grouped_matmul_backward", s));
  if (b->da.buffer) TRY(row_gradient(ctx, s, b));
  if (b->db.buffer) TRY(weight_gradient(ctx, s, b));
  context_explain(ctx, "grouped_matmul_backward: opencl, plain tiles");
  return CLM_OK;
}
