#include "ops/sequences.h"

static const op_dim dims[] = {SEQUENCE_DIMS,
                              OP_DIM('h', "n_heads"),
                              OP_DIM('p', "head_dim"),
                              OP_DIM('k', "keys"),
                              OP_DIM('g', "kv_heads"),
                              OFFSETS_DIM,
                              {0}};

/* clang-format off */
OP_FORWARD_FIRST(attention);
static const op_tensor inputs[] = {
    OP_TENSOR(clm_attention_args, q, OP_IN, OP_IS_FLOAT, "b l h p"),
    OP_TENSOR(clm_attention_args, k, OP_IN, OP_AS("q"), "c k g p"),
    OP_TENSOR(clm_attention_args, v, OP_IN, OP_AS("q"), "c k g p"),
    OP_TENSOR(clm_attention_args, offsets, OP_IN, OP_IS_INDEX, "c", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_attention_args, cu_seqlens, OP_IN, OP_IS_INDEX, "e", .flags = OP_OPTIONAL),
};

static const op_tensor outputs[] = {
    OP_TENSOR(clm_attention_args, out, OP_OUT, OP_AS("q"), "b l h p"),
    OP_TENSOR(clm_attention_args, lse, OP_OUT, OP_IS_REAL, "b l h", .flags = OP_OPTIONAL),
};

static const op_tensor kept[] = {
    OP_TENSOR(clm_attention_args, out, OP_IN, OP_AS("q"), "b l h p"),
    OP_TENSOR(clm_attention_args, lse, OP_IN, OP_IS_REAL, "b l h"),
};

static const op_tensor gradients[] = {
    OP_TENSOR(clm_attention_backward_args, dout, OP_IN, OP_AS("q"), "b l h p"),
    OP_TENSOR(clm_attention_backward_args, dq, OP_OUT, OP_AS("q"), "b l h p", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_attention_backward_args, dk, OP_OUT, OP_AS("q"), "c k g p", .flags = OP_OPTIONAL),
    OP_TENSOR(clm_attention_backward_args, dv, OP_OUT, OP_AS("q"), "c k g p", .flags = OP_OPTIONAL),
};

static const op_scalar scalars[] = {
    OP_SCALAR(clm_attention_args, scale, OP_NUMBER, OP_NOT_NEGATIVE),
    OP_SCALAR(clm_attention_args, window, OP_COUNT, .high = INFINITY, .expected = "0 or more"),
    {0},
};
/* clang-format on */

const op_table attention_table = {
    .name = "attention", .main = "q", .dims = dims, .parts = {OP_PART(inputs), OP_PART(outputs)}, .scalars = scalars};
const op_table attention_backward_table = {.name = "attention_backward",
                                           .main = "q",
                                           .dims = dims,
                                           .parts = {OP_PART(inputs), OP_PART(kept), OP_PART(gradients)},
                                           .scalars = scalars};

static clm_status shape_of(const op_call *c, const clm_attention_args *a, attention_shape *s) {
  const op_size *kv_heads = op_size_of(c, 'g'), *keys = op_size_of(c, 'k');
  const int64_t n_heads = op_length(c, 'h'), length = op_length(c, 'l'), head_dim = op_length(c, 'p');
  if (n_heads % kv_heads->size)
    return op_fail(c, "%s has kv_heads %lld, which does not divide n_heads %lld", kv_heads->from,
                   (long long)kv_heads->size, (long long)n_heads);
  TRY(check_sequences(c, "q"));
  TRY(check_offsets(c));
  const bool cached = sequences_packed(c) && a->offsets.buffer;
  if (sequences_packed(c) && !cached && keys->size != length)
    return op_fail(c, "%s has keys %lld, expected %lld as length with cu_seqlens", keys->from, (long long)keys->size,
                   (long long)length);
  *s = (attention_shape){
      .batch = op_length(c, 'b'),
      .length = length,
      .keys = keys->size,
      .n_heads = n_heads,
      .kv_heads = kv_heads->size,
      .head_dim = head_dim,
      .dtype = c->main,
      .sequences = sequence_count(c),
      .packed = sequences_packed(c),
      .scale = a->scale != 0 ? (double)a->scale : 1 / sqrt((double)head_dim),
      .window = a->window > 0 ? a->window : INT64_MAX,
      .cached = cached,
  };
  return CLM_OK;
}

clm_status clm_attention(clm_context *context, const clm_attention_args *args) {
  op_call c;
  attention_shape s;
  TRY(op_check(&c, context, &attention_table, args));
  TRY(shape_of(&c, args, &s));
  return OP_RUN(&c, attention, &s, args);
}

clm_status clm_attention_backward(clm_context *context, const clm_attention_backward_args *args) {
  op_call c;
  attention_shape s;
  TRY(op_check(&c, context, &attention_backward_table, args));
  TRY(shape_of(&c, &args->forward, &s));
  if (s.cached) return op_fail(&c, "offsets and cu_seqlens are both given: there is no gradient of that");
  return OP_RUN(&c, attention_backward, &s, args);
}
