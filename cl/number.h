/* Real or complex arithmetic under one set of names: NUMBER_COMPLEX makes number_t a float2 (real, imaginary). Macros
 * where numbers are real, so that products and sums stay one expression that may be fused. */
#include "storage.h"

#if NUMBER_COMPLEX
#define NUMBER_TYPE  c64
#define NUMBER_PARTS 2
typedef float2 number_t;
#define NUMBER(x) ((float2)((x), 0.0f))
#define twice(x)  (2.0f * (x)) /* a complex A stands for itself and its conjugate */

static inline float2 conjugate(float2 x) { return (float2)(x.x, -x.y); }
static inline float2 times(float2 x, float2 y) { return (float2)(x.x * y.x - x.y * y.y, x.x * y.y + x.y * y.x); }
static inline float2 conjugate_times(float2 x, float2 y) {
  return (float2)(x.x * y.x + x.y * y.y, x.x * y.y - x.y * y.x);
}
static inline float real_part(float2 x) { return x.x; }
static inline float real_of_product(float2 x, float2 y) { return x.x * y.x - x.y * y.y; }
static inline float real_of_conjugate_product(float2 x, float2 y) { return x.x * y.x + x.y * y.y; }
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
#define NUMBER_TYPE  f32
#define NUMBER_PARTS 1
typedef float number_t;
#define NUMBER(x)                       ((float)(x))
#define twice(x)                        (x)
#define conjugate(x)                    (x)
#define times(x, y)                     ((x) * (y))
#define conjugate_times(x, y)           ((x) * (y))
#define real_part(x)                    (x)
#define real_of_product(x, y)           ((x) * (y))
#define real_of_conjugate_product(x, y) ((x) * (y))
#define magnitude(x)                    fabs(x)
#define inverse(x)                      (1.0f / (x))
#define exponential(x)                  exp(x)
#endif
#define ZERO NUMBER(0.0f)
#define ONE  NUMBER(1.0f)

/* A tensor of numbers: the buffer and the offset of element 0, in numbers. NUMBERS_AS for real ones in storage of
 * any type (f32, f16, bf16); complex numbers are always pairs of f32. */
#define NUMBERS(name)     global const number_t *restrict name, long name##_offset
#define NUMBERS_OUT(name) global number_t *restrict name, long name##_offset

#if NUMBER_COMPLEX
#define NUMBER_STORAGE(type)        float2
#define NUMBER_LOAD(type, p, i)     (p)[i]
#define NUMBER_STORE(type, p, i, x) (p)[i] = (x)
#else
#define NUMBER_STORAGE(type)        STORAGE(type)
#define NUMBER_LOAD(type, p, i)     LOAD(type, p, i)
#define NUMBER_STORE(type, p, i, x) STORE(type, p, i, x)
#endif
#define NUMBERS_AS(type, name)     global const NUMBER_STORAGE(type) *restrict name, long name##_offset
#define NUMBERS_OUT_AS(type, name) global NUMBER_STORAGE(type) *restrict name, long name##_offset
