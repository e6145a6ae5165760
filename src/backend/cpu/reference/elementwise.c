#include "cl/random.h"
#include "reference.h"

clm_status ref_axpby(clm_context *ctx, const elementwise_shape *s, const clm_axpby_args *a) {
  for (int64_t i = 0; i < s->count; i++) {
    int64_t at = element_number(&a->out, i);
    complex_double x = present(a->x) ? element_load_complex(&a->x, element_number(&a->x, i)) : 0;
    complex_double sum = (double)a->alpha * x;
    if (a->beta != 0) sum += (double)a->beta * element_load_complex(&a->out, at);
    element_store_complex(&a->out, at, sum);
  }
  context_explain(ctx, "axpby: cpu reference, in double");
  return CLM_OK;
}

clm_status ref_cast(clm_context *ctx, const elementwise_shape *s, const clm_cast_args *a) {
  for (int64_t i = 0; i < s->count; i++)
    element_store(&a->out, element_number(&a->out, i), element_load(&a->x, element_number(&a->x, i)));
  context_explain(ctx, "cast: cpu reference");
  return CLM_OK;
}

clm_status ref_dropout(clm_context *ctx, const elementwise_shape *s, const clm_dropout_args *a) {
  uint32_t threshold = random_threshold(a->rate);
  double scale = 1 / (1 - (double)a->rate);
  for (int64_t i = 0; i < s->count; i++) {
    double value = present(a->residual) ? element_load(&a->residual, element_number(&a->residual, i)) : 0;
    if (random_keep(random_bits(a->seed, (uint64_t)i), threshold))
      value += element_load(&a->x, element_number(&a->x, i)) * scale;
    element_store(&a->out, element_number(&a->out, i), value);
  }
  context_explain(ctx, "dropout: cpu reference, in double");
  return CLM_OK;
}

clm_status ref_column_sum(clm_context *ctx, const matrix_shape *s, const clm_column_sum_args *a) {
  for (int64_t j = 0; j < s->dim; j++) {
    double sum = 0;
    for (int64_t i = 0; i < s->rows; i++) sum += GET(a->x, i, j);
    SET(a->out, sum, j);
  }
  context_explain(ctx, "column_sum: cpu reference, in double");
  return CLM_OK;
}

clm_status ref_sum_squares(clm_context *ctx, const elementwise_shape *s, const clm_sum_squares_args *a) {
  double sum = a->accumulate ? GET(a->out, 0) : 0;
  for (int64_t i = 0; i < s->count; i++) {
    double x = element_load(&a->x, element_number(&a->x, i));
    sum += x * x;
  }
  SET(a->out, sum, 0);
  context_explain(ctx, "sum_squares: cpu reference, in double");
  return CLM_OK;
}
