/* What a selective scan's states, A, and beside a complex A its B and C are made of: float, or with SCAN_COMPLEX
 * float2 (real, imaginary). Macros where they are real, so that products and sums stay one expression that may be
 * fused. A rate is A as the kernels keep it: the real part times log2(e). */
#define LN_2 0.69314718055994530942f

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
static inline float2 rate_of(float2 a) { return (float2)(a.x * LOG2_E, a.y); }
static inline float2 of_rate(float2 rate) { return (float2)(rate.x * LN_2, rate.y); }
static inline float2 decay_after(float dt, float2 rate) { return exp2_fast(dt * rate.x) * direction(dt * rate.y); }
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
#define rate_of(a)                      ((a)*LOG2_E)
#define of_rate(rate)                   ((rate)*LN_2)
#define decay_after(dt, rate)           exp2_fast((dt) * (rate))
#define along_rate(rate, x)             ((rate) * (x))
#endif
