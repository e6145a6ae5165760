/* Embedding and softmax cross-entropy. */
#include "reference.h"
#include <stdlib.h>

static int64_t id_of(clm_tensor ids, int64_t i) { return (int64_t)GET(ids, i); }

clm_status ref_embedding(clm_context *ctx, const embedding_shape *s, const clm_embedding_args *a) {
  for (int64_t i = 0; i < s->count; i++) {
    int64_t id = id_of(a->ids, i);
    bool known = id >= 0 && id < s->vocab;
    double scale = known && present(a->table_scale) ? GET(a->table_scale, id) : 1;
    for (int64_t j = 0; j < s->dim; j++) SET(a->out, known ? scale * GET(a->table, id, j) : 0, i, j);
  }
  context_explain(ctx, "embedding: cpu reference");
  return CLM_OK;
}

clm_status ref_embedding_backward(clm_context *ctx, const embedding_shape *s, const clm_embedding_backward_args *a) {
  double *sum = ref_alloc(ctx, "embedding_backward", s->vocab * s->dim, sizeof *sum);
  if (!sum) return CLM_OUT_OF_MEMORY;
  if (a->accumulate)
    for (int64_t v = 0; v < s->vocab; v++)
      for (int64_t j = 0; j < s->dim; j++) sum[v * s->dim + j] = GET(a->dtable, v, j);
  for (int64_t i = 0; i < s->count; i++) {
    int64_t id = id_of(a->ids, i);
    if (id < 0 || id >= s->vocab) continue;
    for (int64_t j = 0; j < s->dim; j++) sum[id * s->dim + j] += GET(a->dout, i, j);
  }
  for (int64_t v = 0; v < s->vocab; v++)
    for (int64_t j = 0; j < s->dim; j++) SET(a->dtable, sum[v * s->dim + j], v, j);
  free(sum);
  context_explain(ctx, "embedding_backward: cpu reference, in double");
  return CLM_OK;
}

/* A target outside the vocabulary ignores its row, like -1. */
clm_status ref_cross_entropy(clm_context *ctx, const matrix_shape *s, const clm_cross_entropy_args *a) {
  for (int64_t i = 0; i < s->rows; i++) {
    int64_t target = id_of(a->targets, i);
    bool ignored = target < 0 || target >= s->dim;
    double largest = -INFINITY, sum = 0;
    for (int64_t j = 0; j < s->dim; j++) largest = fmax(largest, GET(a->logits, i, j));
    for (int64_t j = 0; j < s->dim; j++) sum += exp(GET(a->logits, i, j) - largest);
    SET(a->losses, ignored ? 0 : log(sum) + largest - GET(a->logits, i, target), i);
    for (int64_t j = 0; j < s->dim; j++) {
      double p = exp(GET(a->logits, i, j) - largest) / sum;
      SET(a->dlogits, ignored ? 0 : (double)a->scale * (p - (j == target ? 1 : 0)), i, j);
    }
  }
  context_explain(ctx, "cross_entropy: cpu reference, in double");
  return CLM_OK;
}
