/* Attention query by query, forward and backward. */
#include "ops/attention_rows.h"
#include "reference.h"
#include <stdlib.h>

static double score_of(const attention_shape *s, const clm_attention_args *a, const attention_row *r, int64_t i,
                       int64_t head, int64_t j) {
  const int64_t kv = head / (s->n_heads / s->kv_heads);
  double sum = 0;
  for (int64_t p = 0; p < s->head_dim; p++)
    sum += GET(a->q, r->batch, r->query + i, head, p) * GET(a->k, r->key_batch, r->key + j, kv, p);
  return s->scale * sum;
}

static void one_query(const attention_shape *s, const clm_attention_args *a, const attention_row *r, int64_t i,
                      int64_t head, double *weight) {
  const int64_t first = attention_first_key(s, r, i), end = attention_end_key(r, i);
  const int64_t b = r->batch, t = r->query + i, kv = head / (s->n_heads / s->kv_heads);
  double most = -(double)INFINITY, sum = 0;
  for (int64_t j = first; j < end; j++) {
    weight[j] = score_of(s, a, r, i, head, j);
    if (weight[j] > most) most = weight[j];
  }
  for (int64_t j = first; j < end; j++) sum += weight[j] = exp(weight[j] - most);
  for (int64_t p = 0; p < s->head_dim; p++) {
    double out = 0;
    for (int64_t j = first; j < end; j++) out += weight[j] / sum * GET(a->v, r->key_batch, r->key + j, kv, p);
    SET(a->out, out, b, t, head, p);
  }
  SET(a->lse, first < end ? most + log(sum) : -(double)INFINITY, b, t, head);
}

clm_status ref_attention(clm_context *ctx, const attention_shape *s, const clm_attention_args *a) {
  double *weight = ref_alloc(ctx, "attention", s->keys, sizeof *weight);
  if (!weight) return CLM_OUT_OF_MEMORY;
  for (int64_t row = 0; row < s->sequences; row++) {
    const attention_row r = attention_row_of(s, a, row);
    for (int64_t head = 0; head < s->n_heads; head++)
      for (int64_t i = 0; i < r.queries; i++) one_query(s, a, &r, i, head, weight);
  }
  free(weight);
  context_explain(ctx, "attention: cpu reference, query by query in double");
  return CLM_OK;
}

/* ---- Gradients ---- */

/* Adds what a query gives to dk and dv, (batch, keys, kv_heads, head_dim); its dq. */
static void query_backward(const attention_shape *s, const clm_attention_backward_args *a, const attention_row *r,
                           int64_t i, int64_t head, double *dk, double *dv, double *dq) {
  const clm_attention_args *f = &a->forward;
  const int64_t b = r->batch, t = r->query + i, kv = head / (s->n_heads / s->kv_heads), P = s->head_dim;
  const double lse = GET(f->lse, b, t, head);
  double common = 0;
  for (int64_t p = 0; p < P; p++) {
    common += GET(a->dout, b, t, head, p) * GET(f->out, b, t, head, p);
    dq[p] = 0;
  }
  for (int64_t j = attention_first_key(s, r, i); j < attention_end_key(r, i); j++) {
    const int64_t at = ((b * s->keys + r->key + j) * s->kv_heads + kv) * P;
    const double weight = exp(score_of(s, f, r, i, head, j) - lse);
    double dweight = 0;
    for (int64_t p = 0; p < P; p++) {
      const double dout = GET(a->dout, b, t, head, p);
      dweight += dout * GET(f->v, b, r->key + j, kv, p);
      dv[at + p] += weight * dout;
    }
    const double dscore = weight * (dweight - common) * s->scale;
    for (int64_t p = 0; p < P; p++) {
      dq[p] += dscore * GET(f->k, b, r->key + j, kv, p);
      dk[at + p] += dscore * GET(f->q, b, t, head, p);
    }
  }
  for (int64_t p = 0; p < P; p++) SET(a->dq, dq[p], b, t, head, p);
}

static void store(const clm_tensor *t, const double *sum) {
  if (!t->buffer) return;
  for (int64_t i = 0; i < clm_tensor_count(*t); i++) element_store(t, element_number(t, i), sum[i]);
}

clm_status ref_attention_backward(clm_context *ctx, const attention_shape *s, const clm_attention_backward_args *a) {
  static const char op[] = "attention_backward";
  const int64_t numbers = s->batch * s->keys * s->kv_heads * s->head_dim;
  double *dk = ref_alloc(ctx, op, numbers, sizeof *dk), *dv = ref_alloc(ctx, op, numbers, sizeof *dv);
  double *dq = ref_alloc(ctx, op, s->head_dim, sizeof *dq);
  const bool room = dk && dv && dq;
  for (int64_t row = 0; room && row < s->sequences; row++) {
    const attention_row r = attention_row_of(s, &a->forward, row);
    for (int64_t head = 0; head < s->n_heads; head++)
      for (int64_t i = 0; i < r.queries; i++) query_backward(s, a, &r, i, head, dk, dv, dq);
  }
  if (room) {
    store(&a->dk, dk);
    store(&a->dv, dv);
    context_explain(ctx, "attention_backward: cpu reference, query by query in double");
  }
  free(dk);
  free(dv);
  free(dq);
  return room ? CLM_OK : CLM_OUT_OF_MEMORY;
}
