#include "ops/check.h"

static clm_status check(checker *c, const clm_embedding_args *a, embedding_shape *s) {
  const unsigned real = CHECK_DTYPE(check_real_of(a->out.dtype));
  check_dim CHECK_NAMED(count), CHECK_NAMED(vocab), CHECK_NAMED(dim);
  clm_status status = CHECK_TENSORS(c, CHECK_ROW(a, ids, 0, .dtypes = CHECK_I32, .dims = {&count}),
                                    CHECK_ROW(a, table, 0, .dtypes = CHECK_FLOAT | CHECK_I8, .dims = {&vocab, &dim}),
                                    CHECK_ROW(a, out, CHECK_WRITTEN, .dtypes = CHECK_FLOAT, .dims = {&count, &dim}),
                                    CHECK_ROW(a, table_scale, CHECK_OPTIONAL, .dtypes = real, .dims = {&vocab}));
  if (!status) status = check_scale(c, "table_scale", &a->table_scale, "table", &a->table);
  *s = (embedding_shape){count.size, vocab.size, dim.size};
  return status;
}

static clm_status check_backward(checker *c, const clm_embedding_backward_args *a, embedding_shape *s) {
  const unsigned real = CHECK_DTYPE(check_real_of(a->dout.dtype));
  check_dim CHECK_NAMED(count), CHECK_NAMED(vocab), CHECK_NAMED(dim);
  clm_status status = CHECK_TENSORS(c, CHECK_ROW(a, ids, 0, .dtypes = CHECK_I32, .dims = {&count}),
                                    CHECK_ROW(a, dout, 0, .dtypes = CHECK_FLOAT, .dims = {&count, &dim}),
                                    CHECK_ROW(a, dtable, CHECK_WRITTEN, .dtypes = real, .dims = {&vocab, &dim}));
  *s = (embedding_shape){count.size, vocab.size, dim.size};
  return status;
}

clm_status clm_embedding(clm_context *context, const clm_embedding_args *args) {
  checker c;
  embedding_shape s;
  clm_status status = check_begin(&c, context, "embedding", args);
  if (!status) status = check(&c, args, &s);
  return status ? status : OPS_CALL(&c, embedding, &s, args);
}

clm_status clm_embedding_backward(clm_context *context, const clm_embedding_backward_args *args) {
  checker c;
  embedding_shape s;
  clm_status status = check_begin(&c, context, "embedding_backward", args);
  if (!status) status = check_backward(&c, args, &s);
  return status ? status : OPS_CALL(&c, embedding_backward, &s, args);
}
