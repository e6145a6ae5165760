#include "reference.h"

clm_status ref_adamw(clm_context *ctx, const elementwise_shape *s, const clm_adamw_args *a) {
  double scale = a->gradient_scale == 0 ? 1 : (double)a->gradient_scale;
  context_explain(ctx, "adamw: cpu reference, in double");
  if (present(a->sum_squares)) {
    double squares = GET(a->sum_squares, 0);
    if (!isfinite(squares)) return CLM_OK;
    if (a->max_norm > 0) scale *= fmin(1, (double)a->max_norm / (scale * sqrt(squares) + 1e-6));
  }
  double beta1 = (double)a->beta1, beta2 = (double)a->beta2;
  double correction1 = 1 - pow(beta1, (double)a->step), correction2 = 1 - pow(beta2, (double)a->step);
  for (int64_t i = 0; i < s->count; i++) {
    double g = GET(a->gradient, i) * scale, p = GET(a->parameter, i);
    double m = beta1 * GET(a->m, i) + (1 - beta1) * g, v = beta2 * GET(a->v, i) + (1 - beta2) * g * g;
    double direction = m / correction1 / (sqrt(v / correction2) + (double)a->epsilon);
    SET(a->m, m, i);
    SET(a->v, v, i);
    double moved = p - (double)a->lr * (direction + (double)a->weight_decay * p);
    SET(a->parameter, moved, i);
    SET(a->copy, moved, i);
  }
  return CLM_OK;
}
