/* Launches of cl/kv_cache.cl. */
#include "backend/opencl/operands.h"
#include "backend/opencl/ops.h"
#include "backend/opencl/view.h"
#include "cl/kv_cache_args.h"

enum { ITEMS = 64 };

clm_status opencl_kv_append(clm_context *ctx, const kv_shape *s, const clm_kv_append_args *a) {
  clm_status status = OPENCL_ONLY_STORAGE(ctx, "kv_append", OPERAND(a, k), OPERAND(a, k_cache));
  opencl_kernel *k;
  if (!status)
    status = opencl_kernel_get(
        ctx, "kv_cache", "kv_append",
        OPENCL_DEFINES("", OPERAND_TYPE(X_TYPE, a->k), OPERAND_TYPE(CACHE_TYPE, a->k_cache)).text, &k);
  if (status) return status;
  const kv_args g = {
      .k = opencl_view_of(&a->k),
      .v = opencl_view_of(&a->v),
      .k_cache = opencl_view_of(&a->k_cache),
      .v_cache = opencl_view_of(&a->v_cache),
      .offsets = opencl_view_of(&a->offsets),
      .ends = opencl_view_of(&a->cu_seqlens),
      .batch = s->batch,
      .length = s->length,
      .keys = s->keys,
      .heads = s->kv_heads,
      .head_dim = s->head_dim,
      .sequences = s->sequences,
      .flags = s->packed ? KV_IS_PACKED : 0,
  };
  const size_t local = opencl_kernel_work_group(k, ITEMS),
               global = (size_t)(s->batch * s->length * s->kv_heads * s->head_dim);
  context_explain(ctx, "kv_append: opencl, a work-item per number");
  return OPENCL_RUN(ctx, k, 1, &global, &local, ARG_STRUCT(g), ARG_DATA(a->k), ARG_DATA(a->v), ARG_DATA(a->offsets),
                    ARG_DATA(a->cu_seqlens), ARG_DATA(a->k_cache), ARG_DATA(a->v_cache));
}

clm_status opencl_kv_advance(clm_context *ctx, const kv_advance_shape *s, const clm_kv_advance_args *a) {
  opencl_kernel *k;
  clm_status status = opencl_kernel_get(ctx, "kv_cache", "kv_advance", "", &k);
  if (status) return status;
  const size_t local = opencl_kernel_work_group(k, ITEMS), global = (size_t)s->sequences;
  context_explain(ctx, "kv_advance: opencl, a work-item per sequence");
  return OPENCL_RUN(ctx, k, 1, &global, &local, ARG_VECTOR(a->offsets), ARG_VECTOR(a->cu_seqlens),
                    ARG_HAS(a->cu_seqlens), ARG_I64(a->steps), ARG_I64(s->sequences));
}
