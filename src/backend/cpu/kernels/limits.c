/* How fast this instruction set computes exponentials and goes through memory: what times are fractions of. */
#include "kernels.h"

/* Eight vectors in flight; each result feeds the next exponential of its chain. */
double KERNEL(limits_exponentials)(int64_t steps, double *sum) {
  enum { CHAINS = 8 };
  vec x[CHAINS];
  UNROLL for (int i = 0; i < CHAINS; i++) x[i] = vec_set(0.1f * (float)i);
  for (int64_t step = 0; step < steps; step++) {
    UNROLL for (int i = 0; i < CHAINS; i++) x[i] = vec_exp2_near(x[i], vec_set(-0.5f));
  }
  *sum = 0;
  for (int i = 0; i < CHAINS; i++) *sum += (double)vec_sum(x[i]);
  return (double)steps * CHAINS * LANES;
}

/* Whole vectors of `bytes` bytes, whose beginning is a multiple of one. Narrower loads get less out of the memory:
 * two threads of a Xeon 19 GB/s by 16 bytes, 22 by 32, 26 by 64. */
double KERNEL(limits_read)(const char *from, size_t bytes) {
  enum { SUMS = 8 };
  const vec_u *vectors = (const vec_u *)(const void *)from;
  vec_u sum[SUMS] = {0};
  for (size_t i = 0; i + SUMS <= bytes / sizeof *vectors; i += SUMS)
    UNROLL for (size_t k = 0; k < SUMS; k++) sum[k] += vectors[i + k];
  for (size_t k = 1; k < SUMS; k++) sum[0] += sum[k];
  return sum[0][0];
}
