/* Launches of cl/gated_norm.cl. */
#include "backend/opencl/operands.h"
#include "backend/opencl/ops.h"
#include "cl/gated_norm_args.h"
#include "core/try.h"

enum { MIN_ITEMS = 32, MAX_ITEMS = 256 };

static int64_t element_of(const clm_tensor *t) { return (int64_t)(t->offset / clm_dtype_size(t->dtype)); }

static gated_norm_view view_of(const clm_tensor *t) {
  return (gated_norm_view){element_of(t), t->stride[0], t->stride[1]};
}

static gated_norm_args args_of(const gated_norm_shape *s, const clm_gated_norm_args *a, const clm_tensor *out) {
  return (gated_norm_args){.x = view_of(&a->x),
                           .z = view_of(&a->z),
                           .weight = {.offset = element_of(&a->weight), .column = a->weight.stride[0]},
                           .out = view_of(out),
                           .has_weight = a->weight.buffer != NULL,
                           .has_out = out->buffer != NULL,
                           .rows = (int32_t)s->rows,
                           .dim = (int32_t)s->dim,
                           .width = (int32_t)s->width,
                           .epsilon = a->epsilon};
}

static clm_status get_kernel(clm_context *ctx, const char *name, const clm_gated_norm_args *a, opencl_kernel **k) {
  const char *base = a->norm_before_gate ? "-DNORM_BEFORE_GATE" : "";
  return opencl_kernel_get(ctx, "gated_norm", name, OPENCL_DEFINES(base, OPERAND_TYPE(X_TYPE, a->x)).text, k);
}

static clm_status check(clm_context *ctx, const char *op, const gated_norm_shape *s, const clm_gated_norm_args *a) {
  TRY(OPENCL_ONLY_STORAGE(ctx, op, OPERAND(a, x)));
  TRY(opencl_fits_int(ctx, op, "rows", s->rows));
  return opencl_fits_int(ctx, op, "dim", s->dim);
}

/* A work-group for each group of each row, about four elements a work-item. */
typedef struct work_sizes {
  size_t global[2], local[2];
} work_sizes;

static work_sizes sizes_of(const opencl_kernel *k, const gated_norm_shape *s) {
  const size_t wanted = power_of_two(s->width / 4);
  const size_t items = opencl_kernel_work_group(k, wanted < MIN_ITEMS   ? MIN_ITEMS
                                                   : wanted > MAX_ITEMS ? MAX_ITEMS
                                                                        : wanted);
  return (work_sizes){{(size_t)(s->dim / s->width) * items, (size_t)s->rows}, {items, 1}};
}

clm_status opencl_gated_norm(clm_context *ctx, const gated_norm_shape *s, const clm_gated_norm_args *a) {
  opencl_kernel *k;
  TRY(check(ctx, "gated_norm", s, a));
  TRY(get_kernel(ctx, "gated_norm", a, &k));
  const gated_norm_args g = args_of(s, a, &a->out);
  const work_sizes w = sizes_of(k, s);
  context_explain(ctx, "gated_norm: opencl, a work-group of %zu per group", w.local[0]);
  return OPENCL_RUN(ctx, k, 2, w.global, w.local, ARG_BUFFER(a->x.buffer), ARG_BUFFER(a->z.buffer),
                    ARG_BUFFER(a->weight.buffer), ARG_BUFFER(a->out.buffer), ARG_STRUCT(g),
                    ARG_LOCAL(w.local[0] * sizeof(float)));
}

clm_status opencl_gated_norm_backward(clm_context *ctx, const gated_norm_shape *s,
                                      const clm_gated_norm_backward_args *b) {
  const clm_gated_norm_args *a = &b->forward;
  opencl_kernel *rows, *sums;
  TRY(check(ctx, "gated_norm_backward", s, a));
  TRY(get_kernel(ctx, "gated_norm_backward", a, &rows));
  TRY(get_kernel(ctx, "gated_norm_columns", a, &sums));
  const column_plan p = opencl_column_plan(ctx, sums, s->rows, s->dim);
  const int64_t groups = s->dim / s->width;
  clm_buffer *workspace;
  size_t offset = 0;
  TRY(context_workspace(ctx, (size_t)(s->rows * groups + p.chunks * s->dim) * sizeof(float) + 64, &workspace));
  const clm_tensor scales = opencl_piece(workspace, &offset, CLM_F32, s->rows * groups),
                   partial = opencl_piece(workspace, &offset, CLM_F32, p.chunks * s->dim);
  gated_norm_args g = args_of(s, a, &b->out);
  g.dout = view_of(&b->dout);
  g.dx = view_of(&b->dx);
  g.dz = view_of(&b->dz);
  g.has_dx = b->dx.buffer != NULL;
  g.has_dz = b->dz.buffer != NULL;
  g.scales_offset = element_of(&scales);
  g.partial_offset = element_of(&partial);
  g.chunk_rows = p.chunk_rows;
  const work_sizes w = sizes_of(rows, s);
  TRY(OPENCL_RUN(ctx, rows, 2, w.global, w.local, ARG_BUFFER(a->x.buffer), ARG_BUFFER(a->z.buffer),
                 ARG_BUFFER(a->weight.buffer), ARG_BUFFER(b->dout.buffer), ARG_BUFFER(b->dx.buffer),
                 ARG_BUFFER(b->dz.buffer), ARG_BUFFER(b->out.buffer), ARG_BUFFER(scales.buffer), ARG_STRUCT(g),
                 ARG_LOCAL(w.local[0] * sizeof(float))));
  context_explain(ctx, "gated_norm_backward: opencl, a work-group of %zu per group; dweight in %d chunks of %d rows",
                  w.local[0], p.chunks, p.chunk_rows);
  if (!b->dweight.buffer) return CLM_OK;
  TRY(OPENCL_RUN(ctx, sums, 2, p.global, p.local, ARG_BUFFER(a->x.buffer), ARG_BUFFER(a->z.buffer),
                 ARG_BUFFER(b->dout.buffer), ARG_BUFFER(scales.buffer), ARG_BUFFER(partial.buffer), ARG_STRUCT(g),
                 ARG_LOCAL(p.scratch_bytes)));
  return opencl_column_finish(ctx, &p, &partial, s->dim, &b->dweight);
}
