/* Causal convolution. With e = the width - 1 steps before the sequence followed by the sequence itself,
 *   s[t] = bias + sum_k weight[k] e[t + k]     final_state[j] = e[length + j]
 * and backwards  de[i] = sum_k weight[k] ds[i - k] + dfinal_state[i - length].
 * What step t may not see, of another sequence or padding, counts as 0 in all of them. */
#include "ops/rows.h"
#include "reference.h"
#include <stdlib.h>

typedef struct conv_row {
  const causal_conv1d_shape *s;
  const clm_causal_conv1d_args *a;
  seq_row row;
  int64_t length;    /* of the row                                                                          */
  int64_t *earliest; /* [length + 1]: the first input that step t may see, -(width - 1) if nothing began before */
  bool *padding;     /* [length]                                                                            */
  double *ds;        /* [length]: backward only                                                             */
} conv_row;

static void free_row(conv_row *r) {
  free(r->earliest);
  free(r->padding);
  free(r->ds);
}

static clm_status alloc_row(clm_context *ctx, const causal_conv1d_shape *s, const clm_causal_conv1d_args *a,
                            conv_row *r) {
  static const char op[] = "causal_conv1d";
  *r = (conv_row){
      .s = s,
      .a = a,
      .earliest = ref_alloc(ctx, op, s->length + 1, sizeof *r->earliest),
      .padding = ref_alloc(ctx, op, s->length, sizeof *r->padding),
      .ds = ref_alloc(ctx, op, s->length, sizeof *r->ds),
  };
  if (r->earliest && r->padding && r->ds) return CLM_OK;
  free_row(r);
  return CLM_OUT_OF_MEMORY;
}

static void begin_row(conv_row *r, int64_t row) {
  r->row = seq_row_of(&r->a->cu_seqlens, r->s->reversed, r->s->length, row);
  r->length = r->row.end - r->row.begin;
  int32_t last = -1;
  int64_t earliest = 1 - r->s->width;
  for (int64_t t = 0; t < r->length; t++) {
    seq_step kind = seq_step_of(&r->a->seq_idx, r->row.batch, r->row.begin + t, &last);
    if (kind == SEQ_BEGINS) earliest = t;
    r->earliest[t] = earliest;
    r->padding[t] = kind == SEQ_PADDING;
  }
  r->earliest[r->length] = earliest;
}

static bool sees(const conv_row *r, int64_t t, int64_t p) {
  return p >= r->earliest[t] && p <= t && (p < 0 || p == r->length || !r->padding[p]);
}

/* The input of step p of the row, negative before it, as step t sees it. */
static double seen(const conv_row *r, int64_t c, int64_t t, int64_t p) {
  if (!sees(r, t, p)) return 0;
  if (p < 0) return GET(r->a->initial_state, r->row.state, c, p + r->s->width - 1);
  return GET(r->a->x, r->row.batch, r->row.begin + p, c);
}

static double weighted(const conv_row *r, int64_t c, int64_t t) {
  double sum = GET(r->a->bias, c);
  for (int64_t k = 0; k < r->s->width; k++) sum += GET(r->a->weight, c, k) * seen(r, c, t, t - r->s->width + 1 + k);
  return sum;
}

clm_status ref_causal_conv1d(clm_context *ctx, const causal_conv1d_shape *s, const clm_causal_conv1d_args *a) {
  conv_row r;
  clm_status status = alloc_row(ctx, s, a, &r);
  if (status) return status;
  int64_t before = s->width - 1;
  for (int64_t row = 0; row < s->sequences; row++) {
    begin_row(&r, row);
    for (int64_t c = 0; c < s->channels; c++) {
      for (int64_t t = 0; t < r.length; t++) {
        double sum = r.padding[t] ? 0 : weighted(&r, c, t);
        SET(a->out, a->silu ? ref_silu(sum) : sum, r.row.batch, r.row.begin + t, c);
      }
      /* In place is allowed: element j comes from a later one. */
      for (int64_t j = 0; j < before; j++)
        SET(a->final_state, seen(&r, c, r.length, r.length - before + j), r.row.state, c, j);
    }
  }
  free_row(&r);
  context_explain(ctx, "causal_conv1d: cpu reference, in double");
  return CLM_OK;
}

/* One channel of a row; dweight and dbias (its last element) are added to. */
static void channel_backward(conv_row *r, const clm_causal_conv1d_backward_args *a, int64_t c, double *dweight) {
  const clm_causal_conv1d_args *f = &a->forward;
  int64_t width = r->s->width, before = width - 1, b = r->row.batch;
  for (int64_t t = 0; t < r->length; t++) {
    r->ds[t] = 0;
    if (r->padding[t]) continue;
    r->ds[t] = GET(a->dout, b, r->row.begin + t, c) * (f->silu ? ref_silu_gradient(weighted(r, c, t)) : 1);
    dweight[width] += r->ds[t];
    for (int64_t k = 0; k < width; k++) dweight[k] += r->ds[t] * seen(r, c, t, t - before + k);
  }
  for (int64_t p = -before; p < r->length; p++) {
    double de = p + before >= r->length && sees(r, r->length, p)
                    ? GET(a->dfinal_state, r->row.state, c, p + before - r->length)
                    : 0;
    for (int64_t k = 0; k < width; k++) {
      int64_t t = p + before - k;
      if (t >= 0 && t < r->length && !r->padding[t] && sees(r, t, p)) de += GET(f->weight, c, k) * r->ds[t];
    }
    if (p < 0) SET(a->dinitial_state, de, r->row.state, c, p + before);
    else SET(a->dx, de, b, r->row.begin + p, c);
  }
}

clm_status ref_causal_conv1d_backward(clm_context *ctx, const causal_conv1d_shape *s,
                                      const clm_causal_conv1d_backward_args *a) {
  conv_row r;
  clm_status status = alloc_row(ctx, s, &a->forward, &r);
  if (status) return status;
  int64_t numbers = s->width + 1; /* of a channel: dweight, then dbias */
  double *sums = ref_alloc(ctx, "causal_conv1d_backward", s->channels * numbers, sizeof *sums);
  for (int64_t row = 0; sums && row < s->sequences; row++) {
    begin_row(&r, row);
    for (int64_t c = 0; c < s->channels; c++) channel_backward(&r, a, c, sums + c * numbers);
  }
  for (int64_t c = 0; sums && c < s->channels; c++) {
    for (int64_t k = 0; k < s->width; k++) SET(a->dweight, sums[c * numbers + k], c, k);
    SET(a->dbias, sums[c * numbers + s->width], c);
  }
  free_row(&r);
  if (!sums) return CLM_OUT_OF_MEMORY;
  free(sums);
  context_explain(ctx, "causal_conv1d_backward: cpu reference, in double");
  return CLM_OK;
}

static int64_t index_of(const clm_tensor *t, int64_t b, int64_t otherwise) {
  return t->buffer ? (int64_t)GET(*t, b) : otherwise;
}

/* The filter sees the last inputs of a plain state, which moves on at the end; a circular one is written on the way.
 */
static void update_channel(const conv_update_shape *s, const clm_causal_conv1d_update_args *a, int64_t b, int64_t row,
                           int64_t c, double *history) {
  int64_t before = s->width - 1, size = s->size;
  const bool circular = present(a->cache_seqlens) && present(a->state);
  int64_t now = circular ? (index_of(&a->cache_seqlens, b, 0) % size + size) % size : 0;
  for (int64_t k = 0; k < before; k++)
    history[k] = GET(a->state, row, c, circular ? (now - before + k + size) % size : size - before + k);
  for (int64_t t = 0; t < s->steps; t++) {
    double *e = history + t;
    e[before] = GET(a->x, b, t, c);
    double sum = GET(a->bias, c);
    for (int64_t k = 0; k < s->width; k++) sum += GET(a->weight, c, k) * e[k];
    SET(a->out, a->silu ? ref_silu(sum) : sum, b, t, c);
    if (circular) SET(a->state, e[before], row, c, (now + t) % size);
  }
  for (int64_t k = 0; k < size && !circular; k++) {
    const int64_t from = k + s->steps;
    SET(a->state, from < size ? GET(a->state, row, c, from) : GET(a->x, b, from - size, c), row, c, k);
  }
}

clm_status ref_causal_conv1d_update(clm_context *ctx, const conv_update_shape *s,
                                    const clm_causal_conv1d_update_args *a) {
  double *history = ref_alloc(ctx, "causal_conv1d_update", s->width - 1 + s->steps, sizeof *history);
  if (!history) return CLM_OUT_OF_MEMORY;
  for (int64_t b = 0; b < s->batch; b++) {
    int64_t row = index_of(&a->state_indices, b, b);
    const bool padding = row < 0 || row >= s->pool;
    for (int64_t c = 0; c < s->channels; c++) {
      if (!padding) update_channel(s, a, b, row, c, history);
      for (int64_t t = 0; t < s->steps && padding; t++) SET(a->out, 0, b, t, c);
    }
  }
  free(history);
  context_explain(ctx, "causal_conv1d_update: cpu reference, in double");
  return CLM_OK;
}
