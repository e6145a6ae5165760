/* The rates of decay of a selective scan: A as the kernels keep it, the real part times log2(e). */
#include "number.h"

#define LN_2 0.69314718055994530942f

/* A rate stays finite, so that a step of dt = 0, which pads a tile, decays nothing. NaN stays NaN. */
static inline float finite_rate(float x) { return fabs(x) > FLT_MAX ? copysign(FLT_MAX, x) : x; }

#if NUMBER_COMPLEX
static inline float2 rate_of(float2 a) { return (float2)(finite_rate(a.x * LOG2_E), a.y); }
static inline float2 of_rate(float2 rate) { return (float2)(rate.x * LN_2, rate.y); }

/* exp(dt A). The angle less k pi is cut to a quarter turn either way, pi in two parts; polynomials of degrees 9 and
 * 10 there, minimax but for the first coefficients: off by 1.4e-7 at most, on the average by less than 1e-8. */
#define PI_HIGH    3.14159274101257324219f
#define PI_LOW     -8.74227800037248e-8f
#define INVERSE_PI 0.31830988618379067154f
#define TO_INTEGER 12582912.0f /* 1.5 2^23: what is added to it ends at the units */
static inline float2 decay_after(float dt, float2 rate) {
  const float angle = dt * rate.y, shifted = mad(angle, INVERSE_PI, TO_INTEGER), k = shifted - TO_INTEGER;
  const float x = clamp(mad(-k, PI_LOW, mad(-k, PI_HIGH, angle)), -1.6f, 1.6f), q = x * x; /* past 2^22 pi no angle */
  const float sine = mad(mad(mad(mad(2.6000243e-6f, q, -1.9806602e-4f), q, 8.333017e-3f), q, -0.16666657f), x * q, x);
  const float cosine =
      mad(mad(mad(mad(mad(-2.619355e-7f, q, 2.4769291e-5f), q, -1.3888569e-3f), q, 0.041666657f), q, -0.5f), q, 1.0f);
  const float size = as_float(as_uint(exp2_fast(dt * rate.x)) ^ as_uint(shifted) << 31); /* odd k: the other way */
  return (float2)(size * cosine, size * sine);
}
/* Re(conj(A) x) log2(e) */
static inline float along_rate(float2 rate, float2 x) { return rate.x * x.x + LOG2_E * rate.y * x.y; }
#else
#define rate_of(a)            finite_rate((a)*LOG2_E)
#define of_rate(rate)         ((rate)*LN_2)
#define decay_after(dt, rate) exp2_fast((dt) * (rate))
#define along_rate(rate, x)   ((rate) * (x))
#endif
