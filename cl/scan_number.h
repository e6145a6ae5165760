/* What a selective scan's states, A, and beside a complex A its B and C are made of: float, or with SCAN_COMPLEX
 * float2 (real, imaginary). Macros where they are real, so that products and sums stay one expression that may be
 * fused. A rate is A as the kernels keep it: the real part times log2(e). */
#define LN_2 0.69314718055994530942f

/* A rate stays finite, so that a step of dt = 0, which pads a tile, decays nothing. NaN stays NaN. */
static inline float finite_rate(float x) { return fabs(x) > FLT_MAX ? copysign(FLT_MAX, x) : x; }

#if SCAN_COMPLEX
#define NUMBER_TYPE  c64
#define NUMBER_PARTS 2
typedef float2 number;
#define ZERO     ((float2)(0.0f))
#define ONE      ((float2)(1.0f, 0.0f))
#define twice(x) (2.0f * (x)) /* a complex A stands for itself and its conjugate */

static inline float2 conjugate(float2 x) { return (float2)(x.x, -x.y); }
static inline float2 times(float2 x, float2 y) { return (float2)(x.x * y.x - x.y * y.y, x.x * y.y + x.y * y.x); }
static inline float2 conjugate_times(float2 x, float2 y) {
  return (float2)(x.x * y.x + x.y * y.y, x.x * y.y - x.y * y.x);
}
static inline float real_of_product(float2 x, float2 y) { return x.x * y.x - x.y * y.y; }
static inline float real_of_conjugate_product(float2 x, float2 y) { return x.x * y.x + x.y * y.y; }

static inline float2 direction(float angle) {
  float cosine;
  const float sine = sincos(angle, &cosine);
  return (float2)(cosine, sine);
}
static inline float2 negated_exp(float2 x) { return -exp(x.x) * direction(x.y); }
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
#define NUMBER_TYPE                     f32
#define NUMBER_PARTS                    1
typedef float number;
#define ZERO                            0.0f
#define ONE                             1.0f
#define twice(x)                        (x)
#define conjugate(x)                    (x)
#define times(x, y)                     ((x) * (y))
#define conjugate_times(x, y)           ((x) * (y))
#define real_of_product(x, y)           ((x) * (y))
#define real_of_conjugate_product(x, y) ((x) * (y))
#define negated_exp(x)                  (-exp(x))
#define rate_of(a)                      finite_rate((a)*LOG2_E)
#define of_rate(rate)                   ((rate)*LN_2)
#define decay_after(dt, rate)           exp2_fast((dt) * (rate))
#define along_rate(rate, x)             ((rate) * (x))
#endif
