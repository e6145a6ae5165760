#include "reference.h"

/* The row of y that is added `j`th; -1: none. */
static int64_t place_of(const combine_shape *s, const clm_combine_args *a, int64_t t, int64_t j) {
  const double row = GET(a->places, t, j);
  return row >= 0 && row < (double)s->rows ? (int64_t)row : -1;
}

static double weight_of(const clm_combine_args *a, int64_t t, int64_t j) {
  return present(a->weights) ? GET(a->weights, t, j) : 1;
}

clm_status ref_combine(clm_context *ctx, const combine_shape *s, const clm_combine_args *a) {
  for (int64_t t = 0; t < s->tokens; t++)
    for (int64_t d = 0; d < s->dim; d++) {
      double sum = 0;
      for (int64_t j = 0; j < s->chosen; j++) {
        const int64_t row = place_of(s, a, t, j);
        if (row >= 0) sum += weight_of(a, t, j) * GET(a->y, row, d);
      }
      SET(a->out, sum + GET(a->residual, t, d), t, d);
    }
  context_explain(ctx, "combine: cpu reference, in double");
  return CLM_OK;
}

clm_status ref_combine_backward(clm_context *ctx, const combine_shape *s, const clm_combine_backward_args *b) {
  const clm_combine_args *a = &b->forward;
  const int64_t pairs = s->tokens * s->chosen;
  for (int64_t row = 0; row < s->rows && present(b->dy); row++) {
    const int64_t pair = (int64_t)GET(b->order, row), t = pair / s->chosen;
    const bool is_pair = pair >= 0 && pair < pairs;
    const double weight = is_pair ? weight_of(a, t, pair % s->chosen) : 0;
    for (int64_t d = 0; d < s->dim; d++) SET(b->dy, is_pair ? weight * GET(b->dout, t, d) : 0, row, d);
  }
  for (int64_t i = 0; i < pairs && present(b->dweights); i++) {
    const int64_t t = i / s->chosen, row = place_of(s, a, t, i % s->chosen);
    double sum = 0;
    for (int64_t d = 0; d < s->dim && row >= 0; d++) sum += GET(a->y, row, d) * GET(b->dout, t, d);
    SET(b->dweights, sum, t, i % s->chosen);
  }
  context_explain(ctx, "combine_backward: cpu reference, in double");
  return CLM_OK;
}
