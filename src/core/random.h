/* Random numbers that are the same on every platform: xoshiro256** (Blackman & Vigna 2018), seeded by splitmix64. */
#ifndef CLM_CORE_RANDOM_H
#define CLM_CORE_RANDOM_H

#include <stdint.h>

typedef struct random_state {
  uint64_t s[4];
} random_state;

/* Independent sequences for different (seed, stream). */
random_state random_seed(uint64_t seed, uint64_t stream);

uint64_t random_next(random_state *r);
uint64_t random_below(random_state *r, uint64_t n); /* uniform in [0, n), n at least 1 */
double random_uniform(random_state *r);             /* [0, 1), 53 bits                 */
double random_normal(random_state *r);              /* mean 0, variance 1              */

#endif
