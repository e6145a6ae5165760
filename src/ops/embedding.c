#include "ops/check.h"

static const op_dim dims[] = {OP_DIM('n', "count"), OP_DIM('v', "vocab"), OP_DIM('d', "dim"), {0}};

/* clang-format off */
static const op_tensor tensors[] = {
    OP_TENSOR(clm_embedding_args, ids, OP_IN, OP_IS_INDEX, "n"),
    OP_TENSOR(clm_embedding_args, table, OP_IN, {.set = OP_FLOAT | OP_DTYPE(CLM_I8)}, "v d"),
    OP_TENSOR(clm_embedding_args, out, OP_OUT, OP_IS_FLOAT, "n d"),
    OP_TENSOR(clm_embedding_args, table_scale, OP_IN, OP_IS_REAL, "v", .flags = OP_OPTIONAL, .scale_of = "table"),
};

static const op_tensor gradients[] = {
    OP_TENSOR(clm_embedding_backward_args, ids, OP_IN, OP_IS_INDEX, "n"),
    OP_TENSOR(clm_embedding_backward_args, dout, OP_IN, OP_IS_FLOAT, "n d"),
    OP_TENSOR(clm_embedding_backward_args, dtable, OP_OUT, OP_IS_REAL, "v d", .added = "accumulate"),
};

static const op_scalar scalars[] = {OP_SCALAR(clm_embedding_backward_args, accumulate, OP_BOOL), {0}};
/* clang-format on */

const op_table embedding_table = {.name = "embedding", .main = "out", .dims = dims, .parts = {OP_PART(tensors)}};
const op_table embedding_backward_table = {
    .name = "embedding_backward", .main = "dout", .dims = dims, .parts = {OP_PART(gradients)}, .scalars = scalars};

static embedding_shape shape_of(const op_call *c) {
  return (embedding_shape){op_length(c, 'n'), op_length(c, 'v'), op_length(c, 'd')};
}

clm_status clm_embedding(clm_context *context, const clm_embedding_args *args) {
  op_call c;
  TRY(op_check(&c, context, &embedding_table, args));
  const embedding_shape s = shape_of(&c);
  return OP_RUN(&c, embedding, &s, args);
}

clm_status clm_embedding_backward(clm_context *context, const clm_embedding_backward_args *args) {
  op_call c;
  TRY(op_check(&c, context, &embedding_backward_table, args));
  const embedding_shape s = shape_of(&c);
  return OP_RUN(&c, embedding_backward, &s, args);
}
