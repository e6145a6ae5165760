/* How fast this instruction set computes exponentials: what a scan's time is a fraction of. */
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
