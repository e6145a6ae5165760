#include "ops/sequences.h"

/* clang-format off */
static const op_dim dims[] = {SEQUENCE_DIMS, OP_DIM('h', "n_heads"), OP_DIM('p', "head_dim"), OFFSETS_DIM, {0}};

static const op_tensor inputs[] = {
    OP_TENSOR(clm_rope_args, x, OP_IN, OP_IS_FLOAT, "b l h p"),
    OP_TENSOR(clm_rope_args, offsets, OP_IN, OP_IS_INDEX, "c", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_rope_args, cu_seqlens, OP_IN, OP_IS_INDEX, "e", .flags = OP_OPTIONAL),
};

static const op_tensor outputs[] = {OP_TENSOR(clm_rope_args, out, OP_OUT, OP_AS("x"), "b l h p", .may_be = "x")};

static const op_scalar scalars[] = {
    OP_SCALAR(clm_rope_args, rotary, OP_COUNT, .high = INFINITY, .expected = "0 or more"),
    OP_SCALAR(clm_rope_args, theta, OP_NUMBER, OP_NOT_NEGATIVE),
    OP_SCALAR(clm_rope_args, interleaved, OP_BOOL),
    OP_SCALAR(clm_rope_args, inverse, OP_BOOL),
    {0},
};
/* clang-format on */

const op_table rope_table = {
    .name = "rope", .main = "x", .dims = dims, .parts = {OP_PART(inputs), OP_PART(outputs)}, .scalars = scalars};

clm_status clm_rope(clm_context *context, const clm_rope_args *args) {
  op_call c;
  TRY(op_check(&c, context, &rope_table, args));
  TRY(check_sequences(&c, "x"));
  TRY(check_offsets(&c));
  const int64_t head_dim = op_length(&c, 'p'), rotary = args->rotary ? args->rotary : head_dim;
  if (rotary > head_dim || rotary % 2)
    return op_fail(&c, "rotary is %lld, expected an even number of at most head_dim %lld", (long long)rotary,
                   (long long)head_dim);
  if (args->theta != 0 && args->theta < 1)
    return op_fail(&c, "theta is %g, expected a number of at least 1", (double)args->theta);
  const rope_shape s = {.batch = op_length(&c, 'b'),
                        .length = op_length(&c, 'l'),
                        .n_heads = op_length(&c, 'h'),
                        .head_dim = head_dim,
                        .rotary = rotary,
                        .sequences = sequence_count(&c),
                        .packed = sequences_packed(&c),
                        .theta = args->theta != 0 ? (double)args->theta : 10000};
  return OP_RUN(&c, rope, &s, args);
}
