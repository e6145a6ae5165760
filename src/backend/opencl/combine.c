/* Launches of cl/combine.cl. */
#include "backend/opencl/operands.h"
#include "backend/opencl/ops.h"
#include "backend/opencl/view.h"
#include "cl/moe_args.h"
#include "core/try.h"

enum { ITEMS = 256 };

static combine_args args_of(const combine_shape *s, const clm_combine_args *a) {
  return (combine_args){.y = opencl_view_of(&a->y),
                        .places = opencl_view_of(&a->places),
                        .weights = opencl_view_of(&a->weights),
                        .residual = opencl_view_of(&a->residual),
                        .out = opencl_view_of(&a->out),
                        .rows = (int32_t)s->rows,
                        .tokens = (int32_t)s->tokens,
                        .chosen = (int32_t)s->chosen,
                        .dim = (int32_t)s->dim,
                        .flags = (a->weights.buffer ? COMBINE_HAS_WEIGHTS : 0) |
                                 (a->residual.buffer ? COMBINE_HAS_RESIDUAL : 0)};
}

static clm_status check(clm_context *ctx, const char *op, const combine_shape *s, const clm_tensor *weights) {
  TRY(opencl_only_f32(ctx, op, (const operand[]){{"weights", weights}}, 1));
  TRY(opencl_fits_int(ctx, op, "rows", s->rows));
  TRY(opencl_fits_int(ctx, op, "tokens", s->tokens));
  return opencl_fits_int(ctx, op, "dim", s->dim);
}

clm_status opencl_combine(clm_context *ctx, const combine_shape *s, const clm_combine_args *a) {
  opencl_kernel *k;
  TRY(OPENCL_ONLY_STORAGE(ctx, "combine", OPERAND(a, y), OPERAND(a, out)));
  TRY(check(ctx, "combine", s, &a->weights));
  const opencl_defines types = OPENCL_DEFINES("", OPERAND_TYPE(Y_TYPE, a->y), OPERAND_TYPE(OUT_TYPE, a->out));
  TRY(opencl_kernel_get(ctx, "combine", "combine", types.text, &k));
  const combine_args g = args_of(s, a);
  const size_t global = (size_t)(s->tokens * s->dim), local = opencl_kernel_work_group(k, ITEMS);
  context_explain(ctx, "combine: opencl, a work-item per element");
  return OPENCL_RUN(ctx, k, 1, &global, &local, ARG_STRUCT(g), ARG_DATA(a->y), ARG_DATA(a->places),
                    ARG_DATA(a->weights), ARG_DATA(a->residual), ARG_DATA(a->out));
}

static clm_status row_gradients(clm_context *ctx, const combine_shape *s, const clm_combine_backward_args *b,
                                const combine_args *g, const char *types) {
  opencl_kernel *k;
  TRY(opencl_kernel_get(ctx, "combine", "combine_rows", types, &k));
  const size_t global = (size_t)(s->rows * s->dim), local = opencl_kernel_work_group(k, ITEMS);
  return OPENCL_RUN(ctx, k, 1, &global, &local, ARG_STRUCT(*g), ARG_DATA(b->order), ARG_DATA(b->forward.weights),
                    ARG_DATA(b->dout), ARG_DATA(b->dy));
}

static clm_status weight_gradients(clm_context *ctx, const combine_shape *s, const clm_combine_backward_args *b,
                                   const combine_args *g, const char *types) {
  const size_t columns = power_of_two(s->dim);
  opencl_kernel *k;
  TRY(opencl_kernel_get(ctx, "combine", "combine_weights", types, &k));
  const size_t local = opencl_kernel_work_group(k, columns < ITEMS ? columns : ITEMS),
               global = (size_t)(s->tokens * s->chosen) * local;
  return OPENCL_RUN(ctx, k, 1, &global, &local, ARG_STRUCT(*g), ARG_DATA(b->forward.y), ARG_DATA(b->forward.places),
                    ARG_DATA(b->dout), ARG_DATA(b->dweights), ARG_LOCAL(local * sizeof(float)));
}

clm_status opencl_combine_backward(clm_context *ctx, const combine_shape *s, const clm_combine_backward_args *b) {
  const clm_combine_args *a = &b->forward;
  TRY(OPENCL_ONLY_STORAGE(ctx, "combine_backward", OPERAND(a, y), OPERAND(b, dout), OPERAND(b, dy)));
  TRY(check(ctx, "combine_backward", s, &a->weights));
  const opencl_defines types =
      OPENCL_DEFINES("", OPERAND_TYPE(Y_TYPE, a->y), OPERAND_TYPE(OUT_TYPE, b->dout), OPERAND_TYPE(DY_TYPE, b->dy));
  combine_args g = args_of(s, a);
  g.order = opencl_view_of(&b->order);
  g.dout = opencl_view_of(&b->dout);
  g.dy = opencl_view_of(&b->dy);
  g.dweights = opencl_view_of(&b->dweights);
  if (b->dy.buffer) TRY(row_gradients(ctx, s, b, &g, types.text));
  if (b->dweights.buffer) TRY(weight_gradients(ctx, s, b, &g, types.text));
  context_explain(ctx, "combine_backward: opencl, a work-item for each number of dy, a work-group for each weight");
  return CLM_OK;
}
