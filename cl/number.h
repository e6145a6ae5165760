/* Real or complex arithmetic under one set of names: NUMBER_COMPLEX makes number_t a float2 (real, imaginary). */
#if NUMBER_COMPLEX
typedef float2 number_t;
#define NUMBER(x) ((float2)((x), 0.0f))
static inline float2 times(float2 x, float2 y) { return (float2)(x.x * y.x - x.y * y.y, x.x * y.y + x.y * y.x); }
static inline float2 conjugate(float2 x) { return (float2)(x.x, -x.y); }
static inline float real_part(float2 x) { return x.x; }
static inline float magnitude(float2 x) { return hypot(x.x, x.y); }
static inline float2 inverse(float2 x) { /* scaled, so that nothing overflows on the way */
  const float scale = 1.0f / fmax(fabs(x.x), fabs(x.y));
  const float2 s = x * scale;
  return (float2)(s.x, -s.y) * (scale / (s.x * s.x + s.y * s.y));
}
static inline float2 exponential(float2 x) {
  float cosine;
  const float sine = sincos(x.y, &cosine);
  return exp(x.x) * (float2)(cosine, sine);
}
#else
typedef float number_t;
#define NUMBER(x) ((float)(x))
static inline float times(float x, float y) { return x * y; }
static inline float conjugate(float x) { return x; }
static inline float real_part(float x) { return x; }
static inline float magnitude(float x) { return fabs(x); }
static inline float inverse(float x) { return 1.0f / x; }
static inline float exponential(float x) { return exp(x); }
#endif

/* A tensor of numbers: the buffer and the offset of element 0, in numbers. */
#define NUMBERS(name)        global const number_t *restrict name, long name##_offset
#define NUMBERS_OUT(name)    global number_t *restrict name, long name##_offset
