#include "reference.h"

#define SQRT_HALF   0.70710678118654752440
#define SQRT_2_PI   2.50662827463100050242 /* sqrt(2 pi) */
#define GELU_FACTOR 0.79788456080286535588 /* sqrt(2 / pi) */
#define GELU_CUBE   0.044715

static double normal_distribution(double x) { return erfc(-x * SQRT_HALF) / 2; }

/* 1 + tanh(y) is twice a sigmoid of 2 y: exact where tanh is near -1. */
static double gelu_open(double x) { return ref_sigmoid(2 * GELU_FACTOR * (x + GELU_CUBE * x * x * x)); }

static double activate(clm_gate_activation activation, double x) {
  switch (activation) {
  case CLM_GATE_GELU: return x * normal_distribution(x);
  case CLM_GATE_GELU_TANH: return x * gelu_open(x);
  case CLM_GATE_RELU_SQUARED: return x < 0 ? 0 : x * x;
  case CLM_GATE_SILU: break;
  }
  return ref_silu(x);
}

static double slope(clm_gate_activation activation, double x) {
  const double open = gelu_open(x);
  switch (activation) {
  case CLM_GATE_GELU: return normal_distribution(x) + x * exp(-x * x / 2) / SQRT_2_PI;
  case CLM_GATE_GELU_TANH: return open + x * open * (1 - open) * 2 * GELU_FACTOR * (1 + 3 * GELU_CUBE * x * x);
  case CLM_GATE_RELU_SQUARED: return x < 0 ? 0 : 2 * x;
  case CLM_GATE_SILU: break;
  }
  return ref_silu_gradient(x);
}

static double up_of(const clm_swiglu_args *a, int64_t i, int64_t j) { return present(a->up) ? GET(a->up, i, j) : 1; }

clm_status ref_swiglu(clm_context *ctx, const matrix_shape *s, const clm_swiglu_args *a) {
  for (int64_t i = 0; i < s->rows; i++)
    for (int64_t j = 0; j < s->dim; j++)
      SET(a->out, activate(a->activation, GET(a->gate, i, j)) * up_of(a, i, j), i, j);
  context_explain(ctx, "swiglu: cpu reference, in double");
  return CLM_OK;
}

clm_status ref_swiglu_backward(clm_context *ctx, const matrix_shape *s, const clm_swiglu_backward_args *b) {
  const clm_swiglu_args *a = &b->forward;
  for (int64_t i = 0; i < s->rows; i++)
    for (int64_t j = 0; j < s->dim; j++) {
      const double gate = GET(a->gate, i, j), up = up_of(a, i, j), dout = GET(b->dout, i, j);
      SET(b->dgate, dout * up * slope(a->activation, gate), i, j);
      SET(b->dup, dout * activate(a->activation, gate), i, j);
    }
  context_explain(ctx, "swiglu_backward: cpu reference, in double");
  return CLM_OK;
}
