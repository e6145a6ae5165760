#include "ops/check.h"
#include <float.h>

static const op_dim dims[] = {OP_DIM('r', "rows"), OP_DIM('v', "vocab"), {0}};

/* clang-format off */
static const op_tensor tensors[] = {
    OP_TENSOR(clm_cross_entropy_args, logits, OP_IN, OP_IS_FLOAT, "r v"),
    OP_TENSOR(clm_cross_entropy_args, targets, OP_IN, OP_IS_INDEX, "r"),
    OP_TENSOR(clm_cross_entropy_args, losses, OP_OUT, OP_IS_REAL, "r", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_cross_entropy_args, dlogits, OP_OUT, OP_AS("logits"), "r v", .flags = OP_OPTIONAL, .may_be = "logits"),
};

static const op_scalar scalars[] = {
    OP_SCALAR(clm_cross_entropy_args, scale, OP_NUMBER, .low = -FLT_MAX, .high = INFINITY,
              .expected = "a finite number", .with = "dlogits"),
    {0},
};
/* clang-format on */

const op_table cross_entropy_table = {
    .name = "cross_entropy", .main = "logits", .dims = dims, .parts = {OP_PART(tensors)}, .scalars = scalars};

clm_status clm_cross_entropy(clm_context *context, const clm_cross_entropy_args *args) {
  op_call c;
  TRY(op_check(&c, context, &cross_entropy_table, args));
  const matrix_shape s = {op_length(&c, 'r'), op_length(&c, 'v')};
  return OP_RUN(&c, cross_entropy, &s, args);
}
