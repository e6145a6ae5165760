/* The functions of kernels/simd.h, compiled once per instruction set, over arrays. */
#ifndef TEST_FUNCTIONS_H
#define TEST_FUNCTIONS_H

#include <stdint.h>

/* name, the vector function of x */
#define FUNCTIONS(X)                                                                                                 \
  X(exp, vec_exp(x))                                                                                                 \
  X(exp_bounded, vec_exp_bounded(x))                                                                                 \
  X(exp2_product, vec_exp2_product(x, vec_set(LOG2E)))                                                               \
  X(exp2_near, vec_exp2_near(x, vec_set(LOG2E)))                                                                     \
  X(sigmoid, vec_sigmoid(x))                                                                                         \
  X(silu, x *vec_sigmoid(x))                                                                                         \
  X(softplus, vec_softplus(x))                                                                                       \
  X(softplus_slope, vec_softplus_slope(x))

typedef enum function_name {
#define X(name, value) FUNCTION_##name,
  FUNCTIONS(X)
#undef X
      FUNCTION_COUNT
} function_name;

/* y[i] = f(x[i]); count is a multiple of 16. */
typedef void (*functions_fn)(function_name, const float *x, float *y, int64_t count);

#endif
