#include "ops/check.h"
#include <inttypes.h>

static const op_dim dims[] = {OP_DIM('t', "tokens"), OP_DIM('e', "experts"), OP_DIM('c', "chosen"), {0}};

/* clang-format off */
OP_FORWARD_FIRST(route);
static const op_tensor logits[] = {OP_TENSOR(clm_route_args, logits, OP_IN, OP_IS_FLOAT, "t e")};

static const op_tensor choice[] = {
    OP_TENSOR(clm_route_args, bias, OP_IN, OP_IS_REAL, "e", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_route_args, ids, OP_OUT, OP_IS_INDEX, "t c"),
    OP_TENSOR(clm_route_args, weights, OP_OUT, OP_IS_REAL, "t c"),
};

static const op_tensor gradients[] = {
    OP_TENSOR(clm_route_args, ids, OP_IN, OP_IS_INDEX, "t c"),
    OP_TENSOR(clm_route_backward_args, dweights, OP_IN, OP_IS_REAL, "t c"),
    OP_TENSOR(clm_route_backward_args, dlogits, OP_OUT, OP_AS("logits"), "t e"),
};

#define AT_LEAST_0 .high = 0x1p62, .expected = "0 or more"
static const op_scalar scalars[] = {
    OP_SCALAR(clm_route_args, scores, OP_CHOICE, .high = CLM_ROUTE_SIGMOID + 1),
    OP_SCALAR(clm_route_args, normalize, OP_BOOL),
    OP_SCALAR(clm_route_args, scale, OP_NUMBER),
    OP_SCALAR(clm_route_args, n_groups, OP_COUNT, AT_LEAST_0),
    OP_SCALAR(clm_route_args, top_groups, OP_COUNT, AT_LEAST_0),
    {0},
};
/* clang-format on */

const op_table route_table = {
    .name = "route", .main = "logits", .dims = dims, .parts = {OP_PART(logits), OP_PART(choice)}, .scalars = scalars};
const op_table route_backward_table = {.name = "route_backward",
                                       .main = "logits",
                                       .dims = dims,
                                       .parts = {OP_PART(logits), OP_PART(gradients)},
                                       .scalars = scalars};

static clm_status shape_of(const op_call *c, const clm_route_args *a, route_shape *s) {
  *s = (route_shape){.tokens = op_length(c, 't'),
                     .experts = op_length(c, 'e'),
                     .chosen = op_length(c, 'c'),
                     .n_groups = a->n_groups ? a->n_groups : 1,
                     .top_groups = a->n_groups ? a->top_groups : 1,
                     .scale = a->scale == 0 ? 1 : (double)a->scale};
  if (s->experts % s->n_groups)
    return op_fail(c, "n_groups is %" PRId64 ", which does not divide experts %" PRId64, s->n_groups, s->experts);
  if (s->top_groups < 1 || s->top_groups > s->n_groups)
    return op_fail(c, "top_groups is %" PRId64 ", expected 1 to n_groups %" PRId64, s->top_groups, s->n_groups);
  if (s->chosen > s->experts / s->n_groups * s->top_groups)
    return op_fail(c, "chosen is %" PRId64 ", expected at most the %" PRId64 " experts that are chosen from",
                   s->chosen, s->experts / s->n_groups * s->top_groups);
  return CLM_OK;
}

clm_status clm_route(clm_context *context, const clm_route_args *args) {
  op_call c;
  route_shape s;
  TRY(op_check(&c, context, &route_table, args));
  TRY(shape_of(&c, args, &s));
  return OP_RUN(&c, route, &s, args);
}

clm_status clm_route_backward(clm_context *context, const clm_route_backward_args *args) {
  op_call c;
  route_shape s;
  TRY(op_check(&c, context, &route_backward_table, args));
  TRY(shape_of(&c, &args->forward, &s));
  return OP_RUN(&c, route_backward, &s, args);
}
