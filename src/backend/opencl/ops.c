/* The operations that run on OpenCL; a slot left out is answered by src/ops with CLM_UNSUPPORTED. */
#include "backend/opencl/ops.h"
#include "backend/opencl/opencl.h"

const backend_ops opencl_ops = {
    .discretize = opencl_discretize,
    .discretize_backward = opencl_discretize_backward,
    .assoc_scan = opencl_assoc_scan,
    .assoc_scan_backward = opencl_assoc_scan_backward,
    .causal_conv1d = opencl_causal_conv1d,
    .causal_conv1d_backward = opencl_causal_conv1d_backward,
    .causal_conv1d_update = opencl_causal_conv1d_update,
    .selective_scan = opencl_selective_scan,
    .selective_state_update = opencl_selective_state_update,
    .selective_state_update_backward = opencl_selective_state_update_backward,
    .selective_scan_backward = opencl_selective_scan_backward,
    .selective_scan_backward_workspace = opencl_selective_scan_backward_workspace,
    .selective_scan_workspace = opencl_selective_scan_workspace,
    .ssd = opencl_ssd,
    .ssd_backward = opencl_ssd_backward,
    .ssd_workspace = opencl_ssd_workspace,
    .ssd_backward_workspace = opencl_ssd_backward_workspace,
    .attention = opencl_attention,
    .attention_backward = opencl_attention_backward,
    .rope = opencl_rope,
    .kv_append = opencl_kv_append,
    .kv_advance = opencl_kv_advance,
    .matmul = opencl_matmul,
    .matmul_batch = opencl_matmul_batch,
    .norm = opencl_norm,
    .norm_backward = opencl_norm_backward,
    .gated_norm = opencl_gated_norm,
    .gated_norm_backward = opencl_gated_norm_backward,
    .axpby = opencl_axpby,
    .cast = opencl_cast,
    .dropout = opencl_dropout,
    .swiglu = opencl_swiglu,
    .swiglu_backward = opencl_swiglu_backward,
    .route = opencl_route,
    .route_backward = opencl_route_backward,
    .expert_rows = opencl_expert_rows,
    .grouped_matmul = opencl_grouped_matmul,
    .grouped_matmul_backward = opencl_grouped_matmul_backward,
    .combine = opencl_combine,
    .combine_backward = opencl_combine_backward,
    .column_sum = opencl_column_sum,
    .sum_squares = opencl_sum_squares,
    .embedding = opencl_embedding,
    .embedding_backward = opencl_embedding_backward,
    .cross_entropy = opencl_cross_entropy,
    .adamw = opencl_adamw,
};

/* A dry run of the context's own slot: programs are compiled and memory is made, and nothing is enqueued. */
#define DRY_RUN(name, shape_type, args_type)                                                                         \
  static clm_status supports_##name(clm_context *ctx, const shape_type *s, const args_type *a) {                     \
    opencl_state_of(ctx)->dry_run = true;                                                                            \
    const clm_status status = ctx->ops.name(ctx, s, a);                                                              \
    opencl_state_of(ctx)->dry_run = false;                                                                           \
    return status;                                                                                                   \
  }
#define X(name, shape_type) DRY_RUN(name, shape_type, clm_##name##_args)
BACKEND_OPS(X)
#undef X
DRY_RUN(matmul_batch, matmul_shape, clm_matmul_args)

const backend_ops opencl_supports = {.matmul_batch = supports_matmul_batch,
#define X(name, shape_type) .name = supports_##name,
                                     BACKEND_OPS(X)
#undef X
};
