/* Exponentials in as few special functions as there are, and what is made of them. */
#define LOG2_E 1.44269504088896340736f

static inline float exp2_fast(float x) {
#ifdef CLM_PTX
  float r;
  __asm__("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
#else
  return exp2(x);
#endif
}

static inline float reciprocal(float x) {
#ifdef CLM_PTX
  float r;
  __asm__("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
#else
  return 1.0f / x;
#endif
}

static inline float fast_sigmoid(float x) { return reciprocal(1.0f + exp2_fast(-LOG2_E * x)); }
static inline float swish(float x) { return x * fast_sigmoid(x); }
static inline float swish_gradient(float x) {
  const float s = fast_sigmoid(x);
  return s * (1.0f + x * (1.0f - s));
}

/* max(x, 0) + log1p(e) with e = exp(-|x|) in [0, 1]: log1p(e) = 2 atanh(s), s = e / (2 + e) <= 1/3, as an odd
 * polynomial with a relative error of 4e-9. Two special functions, and exact to rounding down to the smallest dt. */
static inline float fast_softplus(float x) {
  float e = exp2_fast(-LOG2_E * fabs(x));
  float s = e * reciprocal(2.0f + e);
  float q = s * s;
  float p = 1.0f + q * (0.333331608f + q * (0.200122976f + q * (0.139825789f + q * 0.140788892f)));
  float r = fmax(x, 0.0f) + 2.0f * s * p;
  return x <= 20.0f ? r : x;
}
