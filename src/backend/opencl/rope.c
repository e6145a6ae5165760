/* Launches of cl/rope.cl. */
#include "backend/opencl/operands.h"
#include "backend/opencl/ops.h"
#include "backend/opencl/view.h"
#include "cl/rope_args.h"
#include <math.h>

enum { ITEMS = 64 };

/* A number below 1 in units of 2^-64. */
static int64_t fraction(long double x) { return (int64_t)(x >= 1 ? UINT64_MAX : (uint64_t)ldexpl(x, 64)); }

clm_status opencl_rope(clm_context *ctx, const rope_shape *s, const clm_rope_args *a) {
  clm_status status = OPENCL_ONLY_STORAGE(ctx, "rope", OPERAND(a, x));
  opencl_kernel *k;
  if (!status)
    status = opencl_kernel_get(ctx, "rope", "rope", OPENCL_DEFINES("", OPERAND_TYPE(X_TYPE, a->x)).text, &k);
  if (status) return status;
  const rope_args g = {
      .x = opencl_view_of(&a->x),
      .out = opencl_view_of(&a->out),
      .offsets = opencl_view_of(&a->offsets),
      .ends = opencl_view_of(&a->cu_seqlens),
      .batch = s->batch,
      .length = s->length,
      .heads = s->n_heads,
      .head_dim = s->head_dim,
      .rotary = s->rotary,
      .sequences = s->sequences,
      .ratio = fraction(powl((long double)s->theta, -2 / (long double)s->rotary)),
      .whole = fraction(0.159154943091895335768883763372514362L), /* 1 / (2 pi) */
      .flags = (a->offsets.buffer ? ROPE_HAS_OFFSETS : 0) | (s->packed ? ROPE_IS_PACKED : 0) |
               (a->interleaved ? ROPE_INTERLEAVED : 0) | (a->inverse ? ROPE_INVERSE : 0),
  };
  const size_t local = opencl_kernel_work_group(k, ITEMS),
               global = (size_t)(s->batch * s->length * s->n_heads * (s->head_dim - s->rotary / 2));
  context_explain(ctx, "rope: opencl, a work-item per pair");
  return OPENCL_RUN(ctx, k, 1, &global, &local, ARG_STRUCT(g), ARG_DATA(a->x), ARG_DATA(a->offsets),
                    ARG_DATA(a->cu_seqlens), ARG_DATA(a->out));
}
