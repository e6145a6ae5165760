/* Discretization of a diagonal system: with x = dt A,  A_bar = f(x) and B_bar = dt g(x) B, where (f, g) is
 *   zoh (e^x, (e^x - 1)/x)    euler (e^x, 1)    bilinear ((1 + x/2)/(1 - x/2), 1/(1 - x/2))
 * Forward: one work-item for each element of A_bar and B_bar; bytes per element: both written, A and B from the cache.
 * Backward: each gradient has a kernel of its own that recomputes f and g and adds up over what it does not keep; sums
 * over batch and length leave one part per run of rows, added by scan_reduce in a fixed order. */
#include "scan.h"
#include "number.h"

#ifndef DELTA_TYPE
#define DELTA_TYPE f32
#endif
#ifndef B_TYPE
#define B_TYPE f32
#endif
#ifndef A_BAR_TYPE /* of A_bar, or of its gradient */
#define A_BAR_TYPE f32
#endif
#ifndef B_BAR_TYPE
#define B_BAR_TYPE f32
#endif
#ifndef DB_TYPE
#define DB_TYPE f32
#endif

#define ZOH      (DISCRETIZE_METHOD == 0)
#define BILINEAR (DISCRETIZE_METHOD == 2)

enum { SERIES_TERMS = 11 }; /* to rounding for |x| <= 0.5 */

typedef struct response { /* values and derivatives at x */
  number_t f, g, df, dg;
} response;

static inline response respond(number_t x) {
  response r;
#if BILINEAR
  const number_t q = inverse(ONE - 0.5f * x);
  r.f = times(ONE + 0.5f * x, q);
  r.g = q;
  r.df = times(q, q);
  r.dg = 0.5f * r.df;
#else
  r.f = r.df = exponential(x);
  r.g = ONE;
  r.dg = ZERO;
#if ZOH
  if (magnitude(x) > 0.5f) {
    const number_t q = inverse(x);
    r.g = times(r.f - ONE, q);
    r.dg = times(r.f - r.g, q);
  } else { /* where the closed forms would cancel: sum x^k/(k+1)! and its derivative sum x^k (k+1)/(k+2)! */
    number_t term = ONE;
    r.g = ZERO;
    for (int k = 0; k < SERIES_TERMS; k++) {
      r.g += term / (float)(k + 1);
      r.dg += term / (float)(k + 2);
      term = times(term, x) / (float)(k + 1);
    }
  }
#endif
#endif
  return r;
}

/* B is (batch, length, d_state) or (d_inner, d_state): whichever strides do not apply are 0. */
#define INPUTS                                                                                                        \
  global const STORAGE(DELTA_TYPE) *restrict delta, long delta_offset, STRIDES3(delta, batch, step, channel),         \
      NUMBERS(A), STRIDES2(A, channel, state), NUMBERS_AS(B_TYPE, B), STRIDES4(B, batch, step, channel, state)

#define DELTA(b, t, d) \
  LOAD(DELTA_TYPE, delta, delta_offset + (b) * delta_batch + (t) * delta_step + (d) * delta_channel)
#define A_AT(d, n)      A[A_offset + (d) * A_channel + (n) * A_state]
#define B_AT(b, t, d, n) \
  NUMBER_LOAD(B_TYPE, B, B_offset + (b) * B_batch + (t) * B_step + (d) * B_channel + (n) * B_state)
#define AT(name, b, t, d, n)                                                                                          \
  name##_offset + (b) * name##_batch + (t) * name##_step + (d) * name##_channel + (n) * name##_state

#ifdef DISCRETIZE_FORWARD
kernel void discretize(INPUTS, NUMBERS_OUT_AS(A_BAR_TYPE, A_bar), STRIDES4(A_bar, batch, step, channel, state), /* */
                       NUMBERS_OUT_AS(B_BAR_TYPE, B_bar), STRIDES4(B_bar, batch, step, channel, state), long length, int d_inner,
                       int d_state) {
  const long element = (long)get_global_id(0), t = (long)get_global_id(1), b = (long)get_global_id(2);
  const long d = element / d_state, n = element % d_state;
  const float dt = DELTA(b, t, d);
  const response r = respond(dt * A_AT(d, n));
  NUMBER_STORE(A_BAR_TYPE, A_bar, AT(A_bar, b, t, d, n), r.f);
  NUMBER_STORE(B_BAR_TYPE, B_bar, AT(B_bar, b, t, d, n), dt * times(r.g, B_AT(b, t, d, n)));
}
#endif

#ifdef DISCRETIZE_BACKWARD
#define GRADIENTS                                                                                                     \
  INPUTS, NUMBERS_AS(A_BAR_TYPE, dA_bar), STRIDES4(dA_bar, batch, step, channel, state),                              \
      NUMBERS_AS(B_BAR_TYPE, dB_bar), STRIDES4(dB_bar, batch, step, channel, state), int has_dA_bar, int has_dB_bar

typedef struct gradient { /* what one element adds to each sum */
  float delta;
  number_t A, B;
} gradient;

static inline gradient gradient_of(float dt, number_t a, number_t b, number_t dA_bar, number_t dB_bar) {
  const response r = respond(dt * a);
  const number_t dx = times(conjugate(r.df), dA_bar) + dt * times(conjugate(times(r.dg, b)), dB_bar);
  gradient g;
  g.delta = real_part(times(conjugate(a), dx)) + real_part(times(conjugate(times(r.g, b)), dB_bar));
  g.A = dt * dx;
  g.B = dt * times(conjugate(r.g), dB_bar);
  return g;
}

#define GRADIENT(b, t, d, n)                                                                                          \
  gradient_of(DELTA(b, t, d), A_AT(d, n), B_AT(b, t, d, n),                                          \
              has_dA_bar ? NUMBER_LOAD(A_BAR_TYPE, dA_bar, AT(dA_bar, b, t, d, n)) : ZERO,                         \
              has_dB_bar ? NUMBER_LOAD(B_BAR_TYPE, dB_bar, AT(dB_bar, b, t, d, n)) : ZERO)

/* ddelta: one work-item for each (channel, step, batch row) adds up its states. */
kernel void discretize_delta(GRADIENTS, global STORAGE(DELTA_TYPE) *restrict ddelta, long ddelta_offset, STRIDES3(ddelta, batch, step, channel), int d_state) {
  const long d = (long)get_global_id(0), t = (long)get_global_id(1), b = (long)get_global_id(2);
  float sum = 0.0f;
  for (int n = 0; n < d_state; n++) sum += GRADIENT(b, t, d, n).delta;
  STORE(DELTA_TYPE, ddelta, ddelta_offset + b * ddelta_batch + t * ddelta_step + d * ddelta_channel, sum);
}

/* dB for each step: one work-item for each (state, step, batch row) adds up its channels. */
kernel void discretize_input(GRADIENTS, NUMBERS_OUT_AS(DB_TYPE, dB), STRIDES3(dB, batch, step, state), int d_inner) {
  const long n = (long)get_global_id(0), t = (long)get_global_id(1), b = (long)get_global_id(2);
  number_t sum = ZERO;
  for (int d = 0; d < d_inner; d++) sum += GRADIENT(b, t, d, n).B;
  NUMBER_STORE(DB_TYPE, dB, dB_offset + b * dB_batch + t * dB_step + n * dB_state, sum);
}

/* dA, and dB that is the same for all steps: a work-item adds up one run of (batch row, step) for one (channel, state)
 * and leaves two numbers, parts[run][0: dA, 1: dB][channel][state]. */
kernel void discretize_parts(GRADIENTS, global number_t *restrict parts, long rows, long length, long run, int d_inner,
                             int d_state) {
  const long element = (long)get_global_id(0), number = (long)get_global_id(1), elements = (long)d_inner * d_state;
  const long d = element / d_state, n = element % d_state, end = min((number + 1) * run, rows);
  number_t sum_A = ZERO, sum_B = ZERO;
  for (long row = number * run; row < end; row++) {
    const long b = row / length, t = row % length;
    const gradient g = GRADIENT(b, t, d, n);
    sum_A += g.A;
    sum_B += g.B;
  }
  parts[2 * number * elements + element] = sum_A;
  parts[(2 * number + 1) * elements + element] = sum_B;
}
#endif
