/* Caches of keys and values. */
#include "ops/sequences.h"

/* clang-format off */
static const op_dim append_dims[] = {SEQUENCE_DIMS,             OP_DIM('k', "keys"), OP_DIM('g', "kv_heads"),
                                     OP_DIM('p', "head_dim"), OFFSETS_DIM,         {0}};

static const op_tensor inputs[] = {
    OP_TENSOR(clm_kv_append_args, k, OP_IN, OP_IS_FLOAT, "b l g p"),
    OP_TENSOR(clm_kv_append_args, v, OP_IN, OP_AS("k"), "b l g p"),
    OP_TENSOR(clm_kv_append_args, offsets, OP_IN, OP_IS_INDEX, "c"),
    OP_TENSOR(clm_kv_append_args, cu_seqlens, OP_IN, OP_IS_INDEX, "e", .flags = OP_OPTIONAL),
};

static const op_tensor caches[] = {
    OP_TENSOR(clm_kv_append_args, k_cache, OP_INOUT, OP_IS_STORAGE, "c k g p"),
    OP_TENSOR(clm_kv_append_args, v_cache, OP_INOUT, OP_AS("k_cache"), "c k g p"),
};

static const op_dim advance_dims[] = {OP_DIM('c', "sequences"), OP_DIM('e', "sequences + 1"), {0}};

static const op_tensor positions[] = {
    OP_TENSOR(clm_kv_advance_args, offsets, OP_INOUT, OP_IS_INDEX, "c"),
    OP_TENSOR(clm_kv_advance_args, cu_seqlens, OP_IN, OP_IS_INDEX, "e", .flags = OP_OPTIONAL),
};

static const op_scalar steps[] = {
    OP_SCALAR(clm_kv_advance_args, steps, OP_COUNT, .high = INFINITY, .expected = "0 or more"),
    {0},
};
/* clang-format on */

const op_table kv_append_table = {
    .name = "kv_append", .main = "k", .dims = append_dims, .parts = {OP_PART(inputs), OP_PART(caches)}};
const op_table kv_advance_table = {
    .name = "kv_advance", .main = "offsets", .dims = advance_dims, .parts = {OP_PART(positions)}, .scalars = steps};

clm_status clm_kv_append(clm_context *context, const clm_kv_append_args *args) {
  op_call c;
  TRY(op_check(&c, context, &kv_append_table, args));
  TRY(check_sequences(&c, "k"));
  TRY(check_offsets(&c));
  const kv_shape s = {.batch = op_length(&c, 'b'),
                      .length = op_length(&c, 'l'),
                      .keys = op_length(&c, 'k'),
                      .kv_heads = op_length(&c, 'g'),
                      .head_dim = op_length(&c, 'p'),
                      .sequences = sequence_count(&c),
                      .packed = sequences_packed(&c)};
  return OP_RUN(&c, kv_append, &s, args);
}

clm_status clm_kv_advance(clm_context *context, const clm_kv_advance_args *args) {
  op_call c;
  TRY(op_check(&c, context, &kv_advance_table, args));
  const kv_advance_shape s = {op_length(&c, 'c')};
  if (args->cu_seqlens.buffer && op_length(&c, 'e') != s.sequences + 1)
    return op_fail(&c, "cu_seqlens has %lld elements, expected %lld as offsets has sequences %lld",
                   (long long)op_length(&c, 'e'), (long long)s.sequences + 1, (long long)s.sequences);
  return OP_RUN(&c, kv_advance, &s, args);
}
