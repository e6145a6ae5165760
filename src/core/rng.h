/* Random numbers that are the same on every platform: xoshiro256** (Blackman & Vigna 2018), seeded by splitmix64. */
#ifndef CLM_CORE_RNG_H
#define CLM_CORE_RNG_H

#include <stdint.h>

typedef struct rng {
  uint64_t s[4];
} rng;

/* Independent sequences for different (seed, stream). */
rng rng_seed(uint64_t seed, uint64_t stream);

uint64_t rng_next(rng *r);
uint64_t rng_below(rng *r, uint64_t n); /* uniform in [0, n), n at least 1 */
double rng_uniform(rng *r);             /* [0, 1), 53 bits                 */
double rng_normal(rng *r);              /* mean 0, variance 1              */

#endif
