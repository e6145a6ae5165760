#include "ops/check.h"

static const op_dim dims[] = {OP_DIM('b', "batch"), OP_DIM('l', "length"), OP_DIM('d', "channels"), {0}};

/* clang-format off */
OP_FORWARD_FIRST(assoc_scan);
static const op_tensor inputs[] = {
    OP_TENSOR(clm_assoc_scan_args, a, OP_IN, OP_IS_ANY, "b l d"),
    OP_TENSOR(clm_assoc_scan_args, b, OP_IN, OP_AS("a"), "b l d"),
    OP_TENSOR(clm_assoc_scan_args, initial, OP_IN, OP_IS_NUMBER, "b d", .flags = OP_OPTIONAL),
};

static const op_tensor outputs[] = {
    OP_TENSOR(clm_assoc_scan_args, h, OP_OUT, OP_AS("a"), "b l d"),
    OP_TENSOR(clm_assoc_scan_args, final, OP_OUT, OP_IS_NUMBER, "b d", .flags = OP_OPTIONAL),
};

static const op_tensor gradients[] = {
    OP_TENSOR(clm_assoc_scan_backward_args, dh, OP_IN, OP_AS("a"), "b l d"),
    OP_TENSOR(clm_assoc_scan_backward_args, dfinal, OP_IN, OP_IS_NUMBER, "b d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_assoc_scan_backward_args, da, OP_OUT, OP_AS("a"), "b l d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_assoc_scan_backward_args, db, OP_OUT, OP_AS("a"), "b l d", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_assoc_scan_backward_args, dinitial, OP_OUT, OP_IS_NUMBER, "b d", .flags = OP_OPTIONAL),
};

static const op_scalar scalars[] = {
    OP_SCALAR(clm_assoc_scan_args, reverse, OP_BOOL),
    OP_SCALAR(clm_assoc_scan_args, exclusive, OP_BOOL),
    {0},
};
/* clang-format on */

const op_table assoc_scan_table = {.name = "assoc_scan",
                                   .main = "a",
                                   .rate = "a",
                                   .dims = dims,
                                   .parts = {OP_PART(inputs), OP_PART(outputs)},
                                   .scalars = scalars};
const op_table assoc_scan_backward_table = {.name = "assoc_scan_backward",
                                            .main = "a",
                                            .rate = "a",
                                            .dims = dims,
                                            .parts = {OP_PART(inputs), OP_PART(gradients)},
                                            .scalars = scalars};

static assoc_scan_shape shape_of(const op_call *c) {
  return (assoc_scan_shape){op_length(c, 'b'), op_length(c, 'l'), op_length(c, 'd'), c->complex};
}

clm_status clm_assoc_scan(clm_context *context, const clm_assoc_scan_args *args) {
  op_call c;
  TRY(op_check(&c, context, &assoc_scan_table, args));
  const assoc_scan_shape s = shape_of(&c);
  return OP_RUN(&c, assoc_scan, &s, args);
}

clm_status clm_assoc_scan_backward(clm_context *context, const clm_assoc_scan_backward_args *args) {
  op_call c;
  TRY(op_check(&c, context, &assoc_scan_backward_table, args));
  const assoc_scan_shape s = shape_of(&c);
  return OP_RUN(&c, assoc_scan_backward, &s, args);
}
