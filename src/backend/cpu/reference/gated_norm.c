#include "reference.h"
#include <stdlib.h>

/* out = before * s^ * weight * after: one of the two is silu(z), the other 1; s = before * x is what is normed. */
typedef struct element {
  double x, before, after, weight;
} element;

static element element_of(const clm_gated_norm_args *a, int64_t i, int64_t j) {
  const double gate = ref_silu(GET(a->z, i, j));
  return (element){.x = GET(a->x, i, j),
                   .before = a->norm_before_gate ? 1 : gate,
                   .after = a->norm_before_gate ? gate : 1,
                   .weight = present(a->weight) ? GET(a->weight, j) : 1};
}

/* Of the group that begins at column `first`. */
static double scale_of(const gated_norm_shape *s, const clm_gated_norm_args *a, int64_t i, int64_t first) {
  double squares = 0;
  for (int64_t j = first; j < first + s->width; j++) {
    const element e = element_of(a, i, j);
    squares += e.x * e.before * e.x * e.before;
  }
  return 1 / sqrt(squares / (double)s->width + (double)a->epsilon);
}

static void norm_group(const gated_norm_shape *s, const clm_gated_norm_args *a, const clm_tensor *out, int64_t i,
                       int64_t first) {
  const double scale = scale_of(s, a, i, first);
  for (int64_t j = first; j < first + s->width; j++) {
    const element e = element_of(a, i, j);
    SET(*out, e.x * e.before * scale * e.weight * e.after, i, j);
  }
}

clm_status ref_gated_norm(clm_context *ctx, const gated_norm_shape *s, const clm_gated_norm_args *a) {
  for (int64_t i = 0; i < s->rows; i++)
    for (int64_t first = 0; first < s->dim; first += s->width) norm_group(s, a, &a->out, i, first);
  context_explain(ctx, "gated_norm: cpu reference, in double");
  return CLM_OK;
}

/* With s^ = s scale and g = dout weight after:  ds = scale (g - s^ mean(g s^)). */
static void group_gradient(const gated_norm_shape *s, const clm_gated_norm_backward_args *b, int64_t i, int64_t first,
                           double *dweight) {
  const clm_gated_norm_args *a = &b->forward;
  const double scale = scale_of(s, a, i, first);
  double along = 0;
  for (int64_t j = first; j < first + s->width; j++) {
    const element e = element_of(a, i, j);
    const double normed = e.x * e.before * scale, dout = GET(b->dout, i, j);
    along += dout * e.weight * e.after * normed;
    dweight[j] += dout * e.after * normed;
  }
  along /= (double)s->width;
  for (int64_t j = first; j < first + s->width; j++) {
    const element e = element_of(a, i, j);
    const double normed = e.x * e.before * scale, dout = GET(b->dout, i, j),
                 ds = scale * (dout * e.weight * e.after - normed * along),
                 dgate = a->norm_before_gate ? dout * e.weight * normed : ds * e.x;
    SET(b->dx, ds * e.before, i, j);
    SET(b->dz, dgate * ref_silu_gradient(GET(a->z, i, j)), i, j);
  }
  norm_group(s, a, &b->out, i, first);
}

clm_status ref_gated_norm_backward(clm_context *ctx, const gated_norm_shape *s,
                                   const clm_gated_norm_backward_args *b) {
  double *dweight = ref_alloc(ctx, "gated_norm_backward", s->dim, sizeof *dweight);
  if (!dweight) return CLM_OUT_OF_MEMORY;
  for (int64_t i = 0; i < s->rows; i++)
    for (int64_t first = 0; first < s->dim; first += s->width) group_gradient(s, b, i, first, dweight);
  for (int64_t j = 0; j < s->dim; j++) SET(b->dweight, dweight[j], j);
  free(dweight);
  context_explain(ctx, "gated_norm_backward: cpu reference, in double");
  return CLM_OK;
}
