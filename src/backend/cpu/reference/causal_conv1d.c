/* Causal convolution. With e = the width - 1 steps before the sequence followed by the sequence itself,
 *   s[t] = bias + sum_k weight[k] e[t + k]     final_state[j] = e[length + j]
 * and backwards  de[i] = sum_k weight[k] ds[i - k] + dfinal_state[i - length]. */
#include "reference.h"
#include <stdlib.h>

static double extended(const causal_conv1d_shape *s, const clm_causal_conv1d_args *a, int64_t b, int64_t c,
                       int64_t i) {
  int64_t before = s->width - 1;
  return i < before ? GET(a->initial_state, b, c, i) : GET(a->x, b, i - before, c);
}

static double weighted(const causal_conv1d_shape *s, const clm_causal_conv1d_args *a, int64_t b, int64_t c,
                       int64_t t) {
  double sum = GET(a->bias, c);
  for (int64_t k = 0; k < s->width; k++) sum += GET(a->weight, c, k) * extended(s, a, b, c, t + k);
  return sum;
}

clm_status ref_causal_conv1d(clm_context *ctx, const causal_conv1d_shape *s, const clm_causal_conv1d_args *a) {
  for (int64_t b = 0; b < s->batch; b++)
    for (int64_t c = 0; c < s->channels; c++) {
      for (int64_t t = 0; t < s->length; t++) {
        double sum = weighted(s, a, b, c, t);
        SET(a->out, a->silu ? ref_silu(sum) : sum, b, t, c);
      }
      /* In place is allowed: element j comes from a later one. */
      for (int64_t j = 0; j < s->width - 1; j++) SET(a->final_state, extended(s, a, b, c, s->length + j), b, c, j);
    }
  context_explain(ctx, "causal_conv1d: cpu reference, in double");
  return CLM_OK;
}

clm_status ref_causal_conv1d_backward(clm_context *ctx, const causal_conv1d_shape *s,
                                      const clm_causal_conv1d_backward_args *a) {
  const clm_causal_conv1d_args *f = &a->forward;
  int64_t before = s->width - 1;
  double *ds = ref_alloc(ctx, "causal_conv1d_backward", s->length, sizeof *ds);
  if (!ds) return CLM_OUT_OF_MEMORY;
  for (int64_t c = 0; c < s->channels; c++) {
    double dbias = 0, dweight[32] = {0};
    for (int64_t b = 0; b < s->batch; b++) {
      for (int64_t t = 0; t < s->length; t++) {
        ds[t] = GET(a->dout, b, t, c) * (f->silu ? ref_silu_gradient(weighted(s, f, b, c, t)) : 1);
        dbias += ds[t];
        for (int64_t k = 0; k < s->width; k++) dweight[k] += ds[t] * extended(s, f, b, c, t + k);
      }
      for (int64_t i = 0; i < before + s->length; i++) {
        double de = i >= s->length ? GET(a->dfinal_state, b, c, i - s->length) : 0;
        for (int64_t k = 0; k < s->width; k++)
          if (i - k >= 0 && i - k < s->length) de += GET(f->weight, c, k) * ds[i - k];
        if (i < before) SET(a->dinitial_state, de, b, c, i);
        else SET(a->dx, de, b, i - before, c);
      }
    }
    SET(a->dbias, dbias, c);
    for (int64_t k = 0; k < s->width; k++) SET(a->dweight, dweight[k], c, k);
  }
  free(ds);
  context_explain(ctx, "causal_conv1d_backward: cpu reference, in double");
  return CLM_OK;
}

clm_status ref_causal_conv1d_update(clm_context *ctx, const causal_conv1d_shape *s,
                                    const clm_causal_conv1d_update_args *a) {
  int64_t before = s->width - 1;
  for (int64_t b = 0; b < s->batch; b++)
    for (int64_t c = 0; c < s->channels; c++) {
      double x = GET(a->x, b, c), sum = GET(a->bias, c) + GET(a->weight, c, before) * x;
      for (int64_t k = 0; k < before; k++) sum += GET(a->weight, c, k) * GET(a->state, b, c, k);
      for (int64_t k = 0; k + 1 < before; k++) SET(a->state, GET(a->state, b, c, k + 1), b, c, k);
      if (before > 0) SET(a->state, x, b, c, before - 1);
      SET(a->out, a->silu ? ref_silu(sum) : sum, b, c);
    }
  context_explain(ctx, "causal_conv1d_update: cpu reference, in double");
  return CLM_OK;
}
