/* The end of every matrix product: out = activation(scale sum + bias) + residual, or out += scale sum; sum times
 * b_scale of its column where b is i8. */
#include "common.h"
#include "storage.h"

/* f32 sums whatever the storage. */
#ifndef A_TYPE
#define A_TYPE f32
#endif
#ifndef B_TYPE
#define B_TYPE f32
#endif
#ifndef OUT_TYPE /* of residual and out */
#define OUT_TYPE f32
#endif
typedef STORAGE(A_TYPE) a_t;
typedef STORAGE(B_TYPE) b_t;
typedef STORAGE(OUT_TYPE) out_t;

/* `activation` counts like clm_activation. */
static inline float activate(float x, int activation) {
  if (activation == 1) return silu(x);
  if (activation == 2) return softplus(x);
  return x;
}

/* Where and how a result is written: the last parameters of each kernel. */
#define EPILOGUE_PARAMETERS                                                                                          \
  __global const float *bias, long bias_offset, long bias_stride, int has_bias, __global const out_t *residual,      \
      long residual_offset, long residual_row, long residual_column, int has_residual, __global out_t *out,          \
      long out_offset, long out_row, long out_column, __global const float *b_scale, long b_scale_offset,            \
      long b_scale_stride, float scale, int activation, int accumulate

#define EPILOGUE(sum, i, j)                                                                                          \
  do {                                                                                                               \
    long at_ = out_offset + (long)(i)*out_row + (long)(j)*out_column;                                                \
    float value_ = scale * (sum);                                                                                    \
    if (SCALED(B_TYPE)) value_ *= b_scale[b_scale_offset + (long)(j)*b_scale_stride];                                \
    if (has_bias) value_ += bias[bias_offset + (long)(j)*bias_stride];                                               \
    value_ = activate(value_, activation);                                                                           \
    if (has_residual)                                                                                                \
      value_ += LOAD(OUT_TYPE, residual, residual_offset + (long)(i)*residual_row + (long)(j)*residual_column);      \
    if (accumulate) value_ += LOAD(OUT_TYPE, out, at_);                                                              \
    STORE(OUT_TYPE, out, at_, value_);                                                                               \
  } while (0)
