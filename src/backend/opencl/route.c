/* Launches of cl/route.cl. */
#include "backend/opencl/operands.h"
#include "backend/opencl/ops.h"
#include "backend/opencl/view.h"
#include "cl/moe_args.h"
#include "core/try.h"

enum { ITEMS = 64 };

/* One call, forward or backward. */
typedef struct route_call {
  route_args g;
  opencl_kernel *kernel;
  size_t global, local, memory;
} route_call;

static clm_status prepare(clm_context *ctx, const char *name, const route_shape *s, const clm_route_args *a,
                          route_call *c) {
  TRY(OPENCL_ONLY_STORAGE(ctx, name, OPERAND(a, logits)));
  TRY(opencl_fits_int(ctx, name, "experts", s->experts));
  TRY(opencl_kernel_get(ctx, "route", name, OPENCL_DEFINES("", OPERAND_TYPE(X_TYPE, a->logits)).text, &c->kernel));
  c->local = opencl_kernel_work_group(c->kernel, ITEMS);
  c->global = (size_t)s->tokens * c->local;
  c->memory = (3 * (size_t)s->experts + 2 * c->local + 2 * (size_t)s->n_groups) * sizeof(float);
  if ((int64_t)c->memory > opencl_schedule_device(ctx)->local_memory_bytes)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: %lld experts do not fit in this device's local memory", name,
                        (long long)s->experts);
  c->g = (route_args){.logits = opencl_view_of(&a->logits),
                      .bias = opencl_view_of(&a->bias),
                      .ids = opencl_view_of(&a->ids),
                      .weights = opencl_view_of(&a->weights),
                      .experts = (int32_t)s->experts,
                      .chosen = (int32_t)s->chosen,
                      .groups = (int32_t)s->n_groups,
                      .top_groups = (int32_t)s->top_groups,
                      .flags = (a->scores == CLM_ROUTE_SIGMOID ? ROUTE_SIGMOID : 0) |
                               (a->normalize ? ROUTE_NORMALIZE : 0) | (a->bias.buffer ? ROUTE_HAS_BIAS : 0),
                      .scale = (float)s->scale};
  context_explain(ctx, "%s: opencl, a work-group of %zu for each token", name, c->local);
  return CLM_OK;
}

clm_status opencl_route(clm_context *ctx, const route_shape *s, const clm_route_args *a) {
  route_call c;
  TRY(prepare(ctx, "route", s, a, &c));
  return OPENCL_RUN(ctx, c.kernel, 1, &c.global, &c.local, ARG_STRUCT(c.g), ARG_DATA(a->logits), ARG_DATA(a->bias),
                    ARG_DATA(a->ids), ARG_DATA(a->weights), ARG_LOCAL(c.memory));
}

clm_status opencl_route_backward(clm_context *ctx, const route_shape *s, const clm_route_backward_args *b) {
  const clm_route_args *a = &b->forward;
  route_call c;
  TRY(prepare(ctx, "route_backward", s, a, &c));
  c.g.dweights = opencl_view_of(&b->dweights);
  c.g.dlogits = opencl_view_of(&b->dlogits);
  return OPENCL_RUN(ctx, c.kernel, 1, &c.global, &c.local, ARG_STRUCT(c.g), ARG_DATA(a->logits), ARG_DATA(a->ids),
                    ARG_DATA(b->dweights), ARG_DATA(b->dlogits), ARG_LOCAL(c.memory));
}
