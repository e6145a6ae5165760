/* Discretization of a diagonal system: with x = dt A,  A_bar = f(x) and B_bar = dt g(x) B, where (f, g) is
 *   zoh (e^x, (e^x - 1)/x)    euler (e^x, 1)    bilinear ((1 + x/2)/(1 - x/2), 1/(1 - x/2)). */
#include "reference.h"
#include <stdlib.h>

typedef struct pair {
  complex_double f, g, df, dg; /* values and derivatives at x */
} pair;

/* (e^x - 1)/x and its derivative by the series sum x^k/(k+1)! where the closed forms would cancel. */
static void expm1_over_x(complex_double x, complex_double *g, complex_double *dg) {
  if (cabs(x) > 0.5) {
    complex_double e = ref_exp(x);
    *g = (e - 1) / x;
    *dg = (e - *g) / x;
    return;
  }
  complex_double term = 1; /* x^k/k! */
  *g = *dg = 0;
  for (int k = 0; k < 20; k++) {
    *g += term / (k + 1);
    *dg += term / (k + 2); /* derivative: sum x^k (k+1)/(k+2)! */
    term *= x / (k + 1);
  }
}

static pair evaluate(clm_discretization method, complex_double x) {
  pair p = {0};
  if (method == CLM_BILINEAR) {
    complex_double r = 1 / (1 - x / 2);
    return (pair){.f = (1 + x / 2) * r, .g = r, .df = r * r, .dg = r * r / 2};
  }
  p.f = p.df = ref_exp(x);
  if (method == CLM_ZOH) expm1_over_x(x, &p.g, &p.dg);
  else p.g = 1;
  return p;
}

clm_status ref_discretize(clm_context *ctx, const discretize_shape *s, const clm_discretize_args *a) {
  for (int64_t b = 0; b < s->batch; b++)
    for (int64_t t = 0; t < s->length; t++)
      for (int64_t d = 0; d < s->d_inner; d++) {
        double dt = GET(a->delta, b, t, d);
        for (int64_t n = 0; n < s->d_state; n++) {
          pair p = evaluate(a->method, dt * GET_COMPLEX(a->A, d, n));
          complex_double B = s->B_varies ? GET_COMPLEX(a->B, b, t, n) : GET_COMPLEX(a->B, d, n);
          SET_COMPLEX(a->A_bar, p.f, b, t, d, n);
          SET_COMPLEX(a->B_bar, dt * p.g * B, b, t, d, n);
        }
      }
  context_explain(ctx, "discretize: cpu reference, in double");
  return CLM_OK;
}

clm_status ref_discretize_backward(clm_context *ctx, const discretize_shape *s,
                                   const clm_discretize_backward_args *a) {
  const clm_discretize_args *f = &a->forward;
  int64_t fixed = s->d_inner * s->d_state, varying = s->batch * s->length * s->d_state;
  complex_double *dA = ref_alloc(ctx, "discretize_backward", fixed, sizeof *dA);
  complex_double *dB = ref_alloc(ctx, "discretize_backward", s->B_varies ? varying : fixed, sizeof *dB);
  if (!dA || !dB) {
    free(dA);
    free(dB);
    return CLM_OUT_OF_MEMORY;
  }
  for (int64_t b = 0; b < s->batch; b++)
    for (int64_t t = 0; t < s->length; t++)
      for (int64_t d = 0; d < s->d_inner; d++) {
        double dt = GET(f->delta, b, t, d), ddt = 0;
        for (int64_t n = 0; n < s->d_state; n++) {
          complex_double A = GET_COMPLEX(f->A, d, n);
          complex_double B = s->B_varies ? GET_COMPLEX(f->B, b, t, n) : GET_COMPLEX(f->B, d, n);
          complex_double dA_bar = GET_COMPLEX(a->dA_bar, b, t, d, n), dB_bar = GET_COMPLEX(a->dB_bar, b, t, d, n);
          pair p = evaluate(f->method, dt * A);
          complex_double dx = conj(p.df) * dA_bar + conj(dt * p.dg * B) * dB_bar;
          ddt += creal(conj(A) * dx + conj(p.g * B) * dB_bar);
          dA[d * s->d_state + n] += dt * dx;
          dB[s->B_varies ? (b * s->length + t) * s->d_state + n : d * s->d_state + n] += conj(dt * p.g) * dB_bar;
        }
        SET(a->ddelta, ddt, b, t, d);
      }
  for (int64_t i = 0; i < fixed; i++) SET_COMPLEX(a->dA, dA[i], i / s->d_state, i % s->d_state);
  if (s->B_varies)
    for (int64_t i = 0; i < varying; i++)
      SET_COMPLEX(a->dB, dB[i], i / s->d_state / s->length, i / s->d_state % s->length, i % s->d_state);
  else
    for (int64_t i = 0; i < fixed; i++) SET_COMPLEX(a->dB, dB[i], i / s->d_state, i % s->d_state);
  free(dA);
  free(dB);
  context_explain(ctx, "discretize_backward: cpu reference, in double");
  return CLM_OK;
}
