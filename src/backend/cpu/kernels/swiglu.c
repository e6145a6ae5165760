/* The gate of an MLP, forward and backward: pieces of fixed size, element by element. */
#include "spans.h"

#define BLOCK       256 /* numbers converted at a time */

#define SQRT_HALF   0.70710678f
#define GELU_FACTOR 1.59576912f /* 2 sqrt(2 / pi) */
#define GELU_CUBE   0.044715f

enum { GATE, UP, OUT, DOUT = OUT, DGATE, DUP };

/* erfc(y) of y >= 0: t e^(-y^2 + P(t)) with t = 1 / (1 + y / 2), right to 1.2e-7 of its value (Press et al.,
 * Numerical Recipes, section 6.2). */
INLINE vec vec_erfc_positive(vec y) {
  static const float factors[] = {0.17087277f,  -0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f,
                                  -0.18628806f, 0.09678418f,  0.37409196f, 1.00002368f,  -1.26551223f};
  const vec t = vec_set(1) / (vec_set(1) + vec_set(0.5f) * y);
  vec p = vec_set(factors[0]);
  UNROLL for (int i = 1; i < 10; i++) p = p * t + vec_set(factors[i]);
  return t * vec_exp(p - y * y);
}

/* The normal distribution. */
INLINE vec vec_normal(vec x) {
  const vec tail = vec_set(0.5f) * vec_erfc_positive(vec_set(SQRT_HALF) * vec_abs(x));
  return vec_choose(x < vec_set(0), tail, vec_set(1) - tail);
}

INLINE vec vec_gelu_open(vec x) { return vec_sigmoid(vec_set(GELU_FACTOR) * (x + vec_set(GELU_CUBE) * x * x * x)); }

INLINE vec vec_positive(vec x) { return vec_choose(x < vec_set(0), vec_set(0), x); }

/* The activation, and where `slope` is not NULL its derivative. */
INLINE vec activate(clm_gate_activation activation, vec x, vec *slope) {
  const vec one = vec_set(1);
  if (activation == CLM_GATE_RELU_SQUARED) {
    const vec y = vec_positive(x);
    if (slope) *slope = vec_set(2) * y;
    return y * y;
  }
  vec open, steep; /* the activation is x open, its derivative open + x steep */
  if (activation == CLM_GATE_GELU) {
    open = vec_normal(x);
    steep = vec_set(0.39894228f) * vec_exp(vec_set(-0.5f) * x * x);
  } else if (activation == CLM_GATE_GELU_TANH) {
    open = vec_gelu_open(x);
    steep = open * (one - open) * vec_set(GELU_FACTOR) * (one + vec_set(3 * GELU_CUBE) * x * x);
  } else {
    open = vec_sigmoid(x);
    steep = open * (one - open);
  }
  if (slope) *slope = open + x * steep;
  return x * open;
}

INLINE void forward_block(clm_gate_activation activation, const float *gate, const float *up, int64_t count,
                          float *out) {
  for (int64_t i = 0; i < count; i += LANES) {
    vec y = activate(activation, vec_load_part(gate + i, count - i), NULL);
    if (up) y *= vec_load_part(up + i, count - i);
    vec_store_part(out + i, y, count - i);
  }
}

INLINE void backward_block(clm_gate_activation activation, const float *gate, const float *up, const float *dout,
                           int64_t count, float *dgate, float *dup) {
  for (int64_t i = 0; i < count; i += LANES) {
    const int64_t left = count - i;
    const vec d = vec_load_part(dout + i, left);
    vec slope, y = activate(activation, vec_load_part(gate + i, left), &slope);
    if (up) slope *= vec_load_part(up + i, left);
    vec_store_part(dgate + i, d * slope, left);
    vec_store_part(dup + i, d * y, left);
  }
}

static void forward_span(void *arg, const line *l, int64_t n, int64_t number) {
  const clm_gate_activation activation = *(const clm_gate_activation *)arg;
  float gate_scratch[BLOCK], up_scratch[BLOCK], out_scratch[BLOCK];
  (void)number;
  for (int64_t begin = 0; begin < n; begin += BLOCK) {
    const int64_t count = min_of(BLOCK, n - begin);
    const line result = line_from(l[OUT], begin);
    const float *gate = line_load(line_from(l[GATE], begin), count, gate_scratch),
                *up = line_load(line_from(l[UP], begin), count, up_scratch);
    float *out = line_target(result, out_scratch);
    switch (activation) {
    case CLM_GATE_SILU: forward_block(CLM_GATE_SILU, gate, up, count, out); break;
    case CLM_GATE_GELU: forward_block(CLM_GATE_GELU, gate, up, count, out); break;
    case CLM_GATE_GELU_TANH: forward_block(CLM_GATE_GELU_TANH, gate, up, count, out); break;
    case CLM_GATE_RELU_SQUARED: forward_block(CLM_GATE_RELU_SQUARED, gate, up, count, out); break;
    }
    line_store(result, count, out);
  }
}

clm_status KERNEL(swiglu)(clm_context *ctx, const matrix_shape *s, const clm_swiglu_args *a) {
  if (!ALL_STORAGE(a->gate, a->up, a->out)) return ref_swiglu(ctx, s, a);
  clm_gate_activation activation = a->activation;
  spans walk;
  spans_of(&walk, (const clm_tensor *const[]){&a->gate, &a->up, &a->out}, 3, &a->out);
  spans_run(ctx, &walk, forward_span, &activation);
  context_explain(ctx, "swiglu: cpu %s, spans of %lld", cpu_context_level(ctx), (long long)walk.length);
  return CLM_OK;
}

static void backward_span(void *arg, const line *l, int64_t n, int64_t number) {
  const clm_gate_activation activation = *(const clm_gate_activation *)arg;
  float scratch[5][BLOCK];
  (void)number;
  for (int64_t begin = 0; begin < n; begin += BLOCK) {
    const int64_t count = min_of(BLOCK, n - begin);
    const line to_gate = line_from(l[DGATE], begin), to_up = line_from(l[DUP], begin);
    const float *gate = line_load(line_from(l[GATE], begin), count, scratch[GATE]),
                *up = line_load(line_from(l[UP], begin), count, scratch[UP]),
                *dout = line_load(line_from(l[DOUT], begin), count, scratch[DOUT]);
    float *dgate = scratch[DGATE], *dup = scratch[DUP];
    switch (activation) {
    case CLM_GATE_SILU: backward_block(CLM_GATE_SILU, gate, up, dout, count, dgate, dup); break;
    case CLM_GATE_GELU: backward_block(CLM_GATE_GELU, gate, up, dout, count, dgate, dup); break;
    case CLM_GATE_GELU_TANH: backward_block(CLM_GATE_GELU_TANH, gate, up, dout, count, dgate, dup); break;
    case CLM_GATE_RELU_SQUARED: backward_block(CLM_GATE_RELU_SQUARED, gate, up, dout, count, dgate, dup); break;
    }
    if (to_gate.data) line_write(to_gate, count, dgate);
    if (to_up.data) line_write(to_up, count, dup);
  }
}

clm_status KERNEL(swiglu_backward)(clm_context *ctx, const matrix_shape *s, const clm_swiglu_backward_args *b) {
  const clm_swiglu_args *a = &b->forward;
  if (!ALL_STORAGE(a->gate, a->up, b->dout, b->dgate, b->dup)) return ref_swiglu_backward(ctx, s, b);
  clm_gate_activation activation = a->activation;
  spans walk;
  spans_of(&walk, (const clm_tensor *const[]){&a->gate, &a->up, &b->dout, &b->dgate, &b->dup}, 5, &a->gate);
  spans_run(ctx, &walk, backward_span, &activation);
  context_explain(ctx, "swiglu_backward: cpu %s, spans of %lld", cpu_context_level(ctx), (long long)walk.length);
  return CLM_OK;
}
