#include "random.h"
#include <math.h>

/* splitmix64 (Steele et al. 2014) */
static uint64_t next(test_random *r) {
  uint64_t z = r->state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

test_random random_seeded(uint64_t seed, const char *name) {
  uint64_t hash = 0xcbf29ce484222325u ^ seed;
  for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
  test_random r = {hash};
  next(&r);
  return r;
}

double random_uniform(test_random *r) { return ((double)(next(r) >> 11) + 0.5) * 0x1p-53; }

double random_normal(test_random *r) {
  double radius = sqrt(-2 * log(random_uniform(r)));
  return radius * cos(6.283185307179586 * random_uniform(r));
}

int64_t random_below(test_random *r, int64_t bound) { return (int64_t)(next(r) % (uint64_t)bound); }

double draw_normal(test_random *r) { return random_normal(r); }
double draw_decay(test_random *r) { return -exp(random_normal(r)); }
double draw_complex_decay(test_random *r) { return -0.5 * exp(0.5 * random_normal(r)); }
double draw_log_decay(test_random *r) { return random_normal(r); }
double draw_step(test_random *r) { return exp(random_normal(r) - 2); }
double draw_raw_step(test_random *r) { return random_normal(r) - 1; }
double draw_factor(test_random *r) { return 2 * random_uniform(r) - 1; }
double draw_small(test_random *r) { return 0.4 * random_normal(r); }
double draw_positive(test_random *r) {
  double n = random_normal(r);
  return n * n;
}
double draw_integer(test_random *r) { return (double)random_below(r, 255) - 127; }
double draw_scale(test_random *r) { return (0.2 + random_uniform(r)) / 127; }
