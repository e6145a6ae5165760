#include "core/rng.h"
#include <math.h>

static uint64_t splitmix64(uint64_t *x) {
  uint64_t z = (*x += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

rng rng_seed(uint64_t seed, uint64_t stream) {
  rng r;
  uint64_t x = seed, y = stream;
  x = splitmix64(&x) ^ (splitmix64(&y) * 0xd1342543de82ef95u);
  for (int i = 0; i < 4; i++) r.s[i] = splitmix64(&x);
  return r;
}

static uint64_t rotate(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

uint64_t rng_next(rng *r) {
  uint64_t *s = r->s, result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = rotate(s[3], 45);
  return result;
}

uint64_t rng_below(rng *r, uint64_t n) {
  uint64_t limit = UINT64_MAX - UINT64_MAX % n, x; /* rejection: no bias towards small numbers */
  do x = rng_next(r);
  while (x >= limit);
  return x % n;
}

double rng_uniform(rng *r) { return (double)(rng_next(r) >> 11) * 0x1p-53; }

/* Marsaglia's polar method, the second value dropped so that the state is all there is to keep. */
double rng_normal(rng *r) {
  double u, v, s;
  do {
    u = 2 * rng_uniform(r) - 1;
    v = 2 * rng_uniform(r) - 1;
    s = u * u + v * v;
  } while (s >= 1 || s == 0);
  return u * sqrt(-2 * log(s) / s);
}
