/* Vectors of real or complex numbers under one set of names. `complex` is a constant wherever these are called, so
 * that nothing is left of the imaginary parts of real numbers. */
#ifndef CLM_CPU_NUMBER_H
#define CLM_CPU_NUMBER_H

#include "storage.h"

typedef struct number {
  vec re, im; /* im: unset where the numbers are real */
} number;

INLINE number number_set(float x) { return (number){vec_set(x), vec_set(0)}; }
INLINE number number_plus(bool complex, number x, number y) {
  return (number){x.re + y.re, complex ? x.im + y.im : x.im};
}
INLINE number number_minus(bool complex, number x, number y) {
  return (number){x.re - y.re, complex ? x.im - y.im : x.im};
}
INLINE number number_scale(bool complex, vec factor, number x) {
  return (number){factor * x.re, complex ? factor * x.im : x.im};
}
INLINE number number_times(bool complex, number x, number y) {
  if (!complex) return (number){x.re * y.re, x.im};
  return (number){x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re};
}
INLINE number number_conjugate(bool complex, number x) { return (number){x.re, complex ? -x.im : x.im}; }
INLINE number number_choose(bool complex, vec_i mask, number x, number y) {
  return (number){vec_choose(mask, x.re, y.re), complex ? vec_choose(mask, x.im, y.im) : x.im};
}
INLINE vec number_square(bool complex, number x) { return complex ? x.re * x.re + x.im * x.im : x.re * x.re; }
INLINE number number_inverse(bool complex, number x) {
  if (!complex) return (number){vec_set(1) / x.re, x.im};
  vec scale = vec_set(1) / number_square(true, x);
  return (number){x.re * scale, -x.im * scale};
}

/* Beyond this the reduction below loses digits: the library's functions take over. */
#define MAX_ANGLE 8192.0f

/* Cody and Waite's reduction to [-pi/4, pi/4], then minimax polynomials (Cephes). */
INLINE void vec_sincos(vec x, vec *sine, vec *cosine) {
  vec shifted = x * vec_set(0.636619772f) + vec_set(MAGIC), q = shifted - vec_set(MAGIC);
  vec y = ((x - q * vec_set(1.5703125f)) - q * vec_set(4.837512969970703e-4f)) - q * vec_set(7.549789954891882e-8f);
  vec z = y * y;
  vec s = y + y * z * ((vec_set(-1.9515295891e-4f) * z + vec_set(8.3321608736e-3f)) * z - vec_set(1.6666654611e-1f));
  vec c = (vec_set(2.443315711809948e-5f) * z - vec_set(1.388731625493765e-3f)) * z + vec_set(4.166664568298827e-2f);
  c = vec_set(1) - vec_set(0.5f) * z + z * z * c;
  vec_i quadrant = (vec_i)shifted, odd = (vec_i)((quadrant & 1) == 1);
  *sine = (vec)((vec_i)vec_choose(odd, c, s) ^ (quadrant & 2) << 30);
  *cosine = (vec)((vec_i)vec_choose(odd, s, c) ^ ((quadrant + 1) & 2) << 30);
  if (vec_largest(vec_abs(x)) <= MAX_ANGLE) return;
  for (int i = 0; i < LANES; i++) {
    (*sine)[i] = sinf(x[i]);
    (*cosine)[i] = cosf(x[i]);
  }
}

INLINE number number_exp(bool complex, number x) {
  vec size = vec_exp(x.re), sine, cosine;
  if (!complex) return (number){size, x.im};
  vec_sincos(x.im, &sine, &cosine);
  return (number){size * cosine, size * sine};
}

/* Numbers of a tensor along one dimension, from element `at` on. */
typedef struct number_line {
  line re, im;
} number_line;

INLINE number_line number_line_at(bool complex, const clm_tensor *t, int64_t at, int64_t stride) {
  if (!complex) return (number_line){.re = line_at(t, at, stride)};
  return (number_line){line_part(t, at, stride, 0), line_part(t, at, stride, 1)};
}

#define NUMBER_BLOCK 64 /* maximum of numbers loaded at a time */

/* `parts` are NULL where the tensor is absent. */
typedef struct number_block {
  const float *re, *im;
  float scratch[2][NUMBER_BLOCK];
} number_block;

INLINE void number_load(bool complex, number_line l, int64_t from, int64_t n, number_block *b) {
  b->re = line_load(line_from(l.re, from), n, b->scratch[0]);
  b->im = complex ? line_load(line_from(l.im, from), n, b->scratch[1]) : NULL;
}
INLINE number number_of(bool complex, const number_block *b, int64_t i, int64_t n) {
  if (!b->re) return number_set(0);
  return (number){vec_load_part(b->re + i, n - i), complex ? vec_load_part(b->im + i, n - i) : vec_set(0)};
}

INLINE void number_keep(bool complex, number_block *b, int64_t i, number x) {
  vec_store_part(b->scratch[0] + i, x.re, NUMBER_BLOCK - i);
  if (complex) vec_store_part(b->scratch[1] + i, x.im, NUMBER_BLOCK - i);
}
INLINE void number_write(bool complex, number_line l, int64_t from, int64_t n, const number_block *b) {
  if (!l.re.data) return;
  line_write(line_from(l.re, from), n, b->scratch[0]);
  if (complex) line_write(line_from(l.im, from), n, b->scratch[1]);
}

#endif
