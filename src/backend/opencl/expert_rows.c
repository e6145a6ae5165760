/* Launches of cl/expert_rows.cl, after a sort by expert. */
#include "backend/opencl/operands.h"
#include "backend/opencl/ops.h"
#include "backend/opencl/view.h"
#include "cl/moe_args.h"
#include "core/try.h"

enum { ITEMS = 256 };

clm_status opencl_expert_rows(clm_context *ctx, const expert_rows_shape *s, const clm_expert_rows_args *a) {
  const int64_t rows = s->tokens * s->chosen;
  opencl_kernel *find, *place;
  clm_buffer *workspace;
  clm_tensor keys, order;
  size_t offset = 0;
  TRY(opencl_fits_int(ctx, "expert_rows", "rows", rows));
  TRY(opencl_fits_int(ctx, "expert_rows", "experts", s->experts));
  TRY(opencl_kernel_get(ctx, "expert_rows", "expert_offsets", "", &find));
  TRY(opencl_kernel_get(ctx, "expert_rows", "expert_places", "", &place));
  TRY(context_workspace(ctx, opencl_sort_bytes(rows), &workspace));
  TRY(opencl_sort(ctx, &a->ids, s->experts, workspace, &offset, &keys, &order));
  const expert_rows_args g = {.offsets = opencl_view_of(&a->group_offsets),
                              .order = opencl_view_of(&a->order),
                              .tokens = opencl_view_of(&a->tokens),
                              .places = opencl_view_of(&a->places),
                              .counts = opencl_view_of(&a->counts),
                              .rows = (int32_t)rows,
                              .chosen = (int32_t)s->chosen,
                              .experts = (int32_t)s->experts,
                              .has_counts = a->counts.buffer != NULL};
  const size_t bounds = (size_t)s->experts + 1, find_local = opencl_kernel_work_group(find, ITEMS),
               all = (size_t)rows, place_local = opencl_kernel_work_group(place, ITEMS);
  context_explain(ctx, "expert_rows: opencl, pairs sorted by expert");
  TRY(OPENCL_RUN(ctx, find, 1, &bounds, &find_local, ARG_STRUCT(g), ARG_TENSOR(keys), ARG_DATA(a->group_offsets),
                 ARG_DATA(a->counts)));
  return OPENCL_RUN(ctx, place, 1, &all, &place_local, ARG_STRUCT(g), ARG_TENSOR(order), ARG_DATA(a->order),
                    ARG_DATA(a->tokens), ARG_DATA(a->places));
}
