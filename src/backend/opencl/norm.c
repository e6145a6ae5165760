/* Launches of cl/norm.cl. */
#include "backend/opencl/operands.h"
#include "backend/opencl/ops.h"

enum { MIN_ITEMS = 32, MAX_ITEMS = 256 };

/* Whether anything is added to x or kept: the kernels have more arguments then, which stand last. */
static bool adds(const clm_norm_args *a) { return a->residual.buffer || a->residual_out.buffer; }
#define ARG_ADDED(t) ARG_MATRIX(t), ARG_HAS(t)
enum { ADDED_ARGS = 4 };

/* `out`: what is stored as out is, `gradient`: what is added to dx. */
static opencl_defines defines_of(const clm_norm_args *a, const clm_tensor *out, const clm_tensor *gradient) {
  static const char *const bases[] = {"", "-DNORM_LAYER", "-DNORM_ADD", "-DNORM_LAYER -DNORM_ADD"};
  return OPENCL_DEFINES(bases[(a->kind == CLM_LAYER_NORM) + 2 * adds(a)], OPERAND_TYPE(X_TYPE, a->x),
                        OPERAND_TYPE(OUT_TYPE, *out), OPERAND_TYPE(ADDED_TYPE, a->residual),
                        OPERAND_TYPE(SUM_TYPE, a->residual_out), OPERAND_TYPE(RESIDUAL_TYPE, *gradient));
}
#define RUN_ADDED(ctx, kernel, dims, global, local, added, ...)                                                      \
  opencl_kernel_run(ctx, kernel, dims, global, local, (const kernel_arg[]){__VA_ARGS__},                             \
                    sizeof((kernel_arg[]){__VA_ARGS__}) / sizeof(kernel_arg) - (size_t)(added))

/* About four elements a work-item, so that short rows do not leave most of a work-group idle. */
static size_t row_items(const opencl_kernel *k, int64_t dim) {
  size_t wanted = power_of_two(dim / 4);
  return opencl_kernel_work_group(k, wanted < MIN_ITEMS ? MIN_ITEMS : wanted > MAX_ITEMS ? MAX_ITEMS : wanted);
}

static clm_status check_sizes(clm_context *ctx, const char *op, const matrix_shape *s) {
  clm_status status = opencl_fits_int(ctx, op, "rows", s->rows);
  return status ? status : opencl_fits_int(ctx, op, "dim", s->dim);
}

clm_status opencl_norm(clm_context *ctx, const matrix_shape *s, const clm_norm_args *a) {
  clm_status status = OPENCL_ONLY_STORAGE(ctx, "norm", OPERAND(a, x));
  if (status == CLM_OK) status = check_sizes(ctx, "norm", s);
  opencl_kernel *k;
  if (status == CLM_OK)
    status = opencl_kernel_get(ctx, "norm", "norm", defines_of(a, &a->out, &(clm_tensor){0}).text, &k);
  if (status) return status;
  size_t local = row_items(k, s->dim), global = (size_t)s->rows * local;
  context_explain(ctx, "norm: opencl, a work-group of %zu per row", local);
  return RUN_ADDED(ctx, k, 1, &global, &local, adds(a) ? 0 : 2 * ADDED_ARGS, ARG_MATRIX(a->x), ARG_VECTOR(a->weight),
                   ARG_HAS(a->weight), ARG_VECTOR(a->bias), ARG_HAS(a->bias), ARG_MATRIX(a->out), ARG_I32(s->dim),
                   ARG_F32(a->epsilon), ARG_LOCAL(local * sizeof(float)), ARG_ADDED(a->residual),
                   ARG_ADDED(a->residual_out));
}

/* dweight and dbias, from the statistics of the rows. */
static clm_status columns(clm_context *ctx, const matrix_shape *s, const clm_norm_backward_args *a, opencl_kernel *k,
                          const column_plan *p, const clm_tensor *statistics, const clm_tensor *partial) {
  const clm_norm_args *f = &a->forward;
  clm_status status =
      RUN_ADDED(ctx, k, 2, p->global, p->local, adds(f) ? 0 : ADDED_ARGS, ARG_MATRIX(f->x), ARG_MATRIX(a->dout),
                ARG_TENSOR(*statistics), ARG_I32(s->rows), ARG_I32(s->dim), ARG_I32(p->chunk_rows),
                ARG_TENSOR(*partial), ARG_LOCAL(p->scratch_bytes), ARG_ADDED(f->residual));
  clm_tensor of_bias = clm_tensor_slice(*partial, 0, s->dim, s->dim);
  if (status == CLM_OK && a->dweight.buffer) status = opencl_column_finish(ctx, p, partial, 2 * s->dim, &a->dweight);
  if (status == CLM_OK && a->dbias.buffer) status = opencl_column_finish(ctx, p, &of_bias, 2 * s->dim, &a->dbias);
  return status;
}

clm_status opencl_norm_backward(clm_context *ctx, const matrix_shape *s, const clm_norm_backward_args *a) {
  const clm_norm_args *f = &a->forward;
  clm_status status = OPENCL_ONLY_STORAGE(ctx, "norm_backward", OPERAND(f, x));
  if (status == CLM_OK) status = check_sizes(ctx, "norm_backward", s);
  const opencl_defines defines = defines_of(f, &a->dout, &a->residual);
  opencl_kernel *rows, *sums;
  if (status == CLM_OK) status = opencl_kernel_get(ctx, "norm", "norm_backward", defines.text, &rows);
  if (status == CLM_OK) status = opencl_kernel_get(ctx, "norm", "norm_columns", defines.text, &sums);
  if (status) return status;
  column_plan p = opencl_column_plan(ctx, sums, s->rows, s->dim);
  clm_buffer *workspace;
  size_t offset = 0, floats = 2 * (size_t)s->rows + 2 * (size_t)p.chunks * (size_t)s->dim;
  status = context_workspace(ctx, floats * sizeof(float) + 64, &workspace);
  if (status) return status;
  clm_tensor statistics = opencl_piece(workspace, &offset, CLM_F32, 2 * s->rows);
  clm_tensor partial = opencl_piece(workspace, &offset, CLM_F32, 2 * p.chunks * s->dim);
  size_t local = row_items(rows, s->dim), global = (size_t)s->rows * local;
  status =
      RUN_ADDED(ctx, rows, 1, &global, &local, adds(f) ? 0 : 2 * ADDED_ARGS, ARG_MATRIX(f->x), ARG_VECTOR(f->weight),
                ARG_HAS(f->weight), ARG_MATRIX(a->dout), ARG_MATRIX(a->residual), ARG_HAS(a->residual),
                ARG_MATRIX(a->dx), ARG_HAS(a->dx), ARG_TENSOR(statistics), ARG_I32(s->dim), ARG_F32(f->epsilon),
                ARG_LOCAL(local * sizeof(float)), ARG_ADDED(f->residual), ARG_ADDED(a->dresidual));
  if (status == CLM_OK && (a->dweight.buffer || a->dbias.buffer))
    status = columns(ctx, s, a, sums, &p, &statistics, &partial);
  context_explain(ctx, "norm_backward: opencl, a work-group of %zu per row; weight gradients in %d chunks of %d rows",
                  local, p.chunks, p.chunk_rows);
  return status;
}
