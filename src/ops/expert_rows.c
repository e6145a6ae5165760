#include "ops/check.h"
#include <inttypes.h>

static const op_dim dims[] = {OP_DIM('t', "tokens"),      OP_DIM('c', "chosen"),
                              OP_DIM('f', "experts + 1"), OP_DIM('e', "experts", .of = 'f', .plus = -1),
                              OP_DIM('r', "rows"),        {0}};

/* clang-format off */
static const op_tensor tensors[] = {
    OP_TENSOR(clm_expert_rows_args, ids, OP_IN, OP_IS_INDEX, "t c"),
    OP_TENSOR(clm_expert_rows_args, group_offsets, OP_OUT, OP_IS_INDEX, "f"),
    OP_TENSOR(clm_expert_rows_args, order, OP_OUT, OP_IS_INDEX, "r"),
    OP_TENSOR(clm_expert_rows_args, tokens, OP_OUT, OP_IS_INDEX, "r"),
    OP_TENSOR(clm_expert_rows_args, places, OP_OUT, OP_IS_INDEX, "t c"),
    OP_TENSOR(clm_expert_rows_args, counts, OP_OUT, OP_IS_INDEX, "e", .flags = OP_OPTIONAL),
};
/* clang-format on */

const op_table expert_rows_table = {.name = "expert_rows", .main = "ids", .dims = dims, .parts = {OP_PART(tensors)}};

clm_status clm_expert_rows(clm_context *context, const clm_expert_rows_args *args) {
  op_call c;
  TRY(op_check(&c, context, &expert_rows_table, args));
  const expert_rows_shape s = {op_length(&c, 't'), op_length(&c, 'c'), args->group_offsets.shape[0] - 1};
  if (s.experts < 1) return op_fail(&c, "group_offsets has 1 element, expected one more than there are experts");
  if (op_length(&c, 'r') != s.tokens * s.chosen)
    return op_fail(&c, "order has %" PRId64 " rows, expected tokens chosen, %" PRId64, op_length(&c, 'r'),
                   s.tokens * s.chosen);
  if (s.tokens * s.chosen > INT32_MAX)
    return op_fail(&c, "tokens chosen is %" PRId64 ", expected at most %d", s.tokens * s.chosen, INT32_MAX);
  return OP_RUN(&c, expert_rows, &s, args);
}
