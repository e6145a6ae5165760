#include "reference.h"
#include <stdlib.h>

static double input(const clm_norm_args *a, int64_t i, int64_t j) { return GET(a->x, i, j) + GET(a->residual, i, j); }

static void statistics(const matrix_shape *s, const clm_norm_args *a, int64_t i, double *mean, double *scale) {
  double sum = 0, squares = 0;
  if (a->kind == CLM_LAYER_NORM)
    for (int64_t j = 0; j < s->dim; j++) sum += input(a, i, j);
  *mean = sum / (double)s->dim;
  for (int64_t j = 0; j < s->dim; j++) {
    double x = input(a, i, j) - *mean;
    squares += x * x;
  }
  *scale = 1 / sqrt(squares / (double)s->dim + (double)a->epsilon);
}

static double weight_of(const clm_norm_args *a, int64_t j) { return present(a->weight) ? GET(a->weight, j) : 1; }

clm_status ref_norm(clm_context *ctx, const matrix_shape *s, const clm_norm_args *a) {
  for (int64_t i = 0; i < s->rows; i++) {
    double mean, scale;
    statistics(s, a, i, &mean, &scale);
    for (int64_t j = 0; j < s->dim; j++) {
      double x = input(a, i, j);
      SET(a->out, (x - mean) * scale * weight_of(a, j) + GET(a->bias, j), i, j);
      SET(a->residual_out, x, i, j);
    }
  }
  context_explain(ctx, "norm: cpu reference, in double");
  return CLM_OK;
}

/* With x^ = (x - mean) scale and g = dout weight:  dx = scale (g - x^ mean(g x^) - mean(g)), the last for layer only.
 */
static void row_gradient(const matrix_shape *s, const clm_norm_backward_args *a, int64_t i) {
  const clm_norm_args *f = &a->forward;
  double mean, scale, along = 0, level = 0;
  statistics(s, f, i, &mean, &scale);
  for (int64_t j = 0; j < s->dim; j++) {
    double g = GET(a->dout, i, j) * weight_of(f, j);
    along += g * (input(f, i, j) - mean) * scale;
    level += g;
  }
  along /= (double)s->dim;
  level = f->kind == CLM_LAYER_NORM ? level / (double)s->dim : 0;
  for (int64_t j = 0; j < s->dim; j++) {
    double g = GET(a->dout, i, j) * weight_of(f, j), x = (input(f, i, j) - mean) * scale;
    double gradient = scale * (g - x * along - level) + GET(a->residual, i, j);
    SET(a->dx, gradient, i, j);
    SET(a->dresidual, gradient, i, j);
  }
}

clm_status ref_norm_backward(clm_context *ctx, const matrix_shape *s, const clm_norm_backward_args *a) {
  const clm_norm_args *f = &a->forward;
  double *sums = ref_alloc(ctx, "norm_backward", 2 * s->dim, sizeof *sums), *dweight = sums;
  if (!sums) return CLM_OUT_OF_MEMORY;
  double *dbias = sums + s->dim;
  for (int64_t i = 0; i < s->rows; i++) {
    double mean, scale;
    statistics(s, f, i, &mean, &scale);
    for (int64_t j = 0; j < s->dim; j++) {
      dweight[j] += GET(a->dout, i, j) * (input(f, i, j) - mean) * scale;
      dbias[j] += GET(a->dout, i, j);
    }
  }
  if (present(a->dx) || present(a->dresidual))
    for (int64_t i = 0; i < s->rows; i++) row_gradient(s, a, i);
  for (int64_t j = 0; j < s->dim; j++) {
    SET(a->dweight, dweight[j], j);
    SET(a->dbias, dbias[j], j);
  }
  free(sums);
  context_explain(ctx, "norm_backward: cpu reference, in double");
  return CLM_OK;
}
