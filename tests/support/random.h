/* Seeded random numbers for tests: the same on every machine. */
#ifndef TEST_RANDOM_H
#define TEST_RANDOM_H

#include <stdint.h>

typedef struct test_random {
  uint64_t state;
} test_random;

test_random random_seeded(uint64_t seed, const char *name);
double random_uniform(test_random *); /* in (0, 1) */
double random_normal(test_random *);  /* mean 0, deviation 1 */
int64_t random_below(test_random *, int64_t bound);

/* What the inputs of operations look like. */
double draw_normal(test_random *);
double draw_decay(test_random *);         /* -exp(n): A of a stable system       */
double draw_log_decay(test_random *);     /* n: log(-A)                          */
double draw_complex_decay(test_random *); /* -exp(n / 2) / 2: both parts of A, stable, oscillating */
double draw_step(test_random *);          /* exp(n - 2): a positive step, delta  */
double draw_raw_step(test_random *);      /* n - 1: delta before softplus        */
double draw_factor(test_random *);        /* in (-1, 1): a of a recurrence       */
double draw_small(test_random *);         /* 0.4 n: weights of a projection      */
double draw_positive(test_random *);      /* n^2: a second moment                */
double draw_integer(test_random *);       /* -127 to 127: a quantised weight     */
double draw_scale(test_random *);         /* of such, so that they are as draw_small gives them */

#endif
