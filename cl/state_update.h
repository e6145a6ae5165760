/* Shared by the state update and its gradients: their inputs, the rates of decay, which state a row has. Types:
 * X_TYPE of u, S_TYPE of the state, those below of what is stored otherwise than u; NUMBER_COMPLEX makes A, B, C and
 * the states complex. */
#include "number.h"

#if NUMBER_COMPLEX
#define A_TYPE c64
#define B_TYPE c64
#define C_TYPE c64
#define TWICE  2.0f /* a complex A stands for itself and its conjugate */
#else
#define A_TYPE f32
#ifndef B_TYPE
#define B_TYPE X_TYPE
#endif
#ifndef C_TYPE
#define C_TYPE X_TYPE
#endif
#define TWICE 1.0f
#endif
#ifndef DELTA_TYPE
#define DELTA_TYPE X_TYPE
#endif
#ifndef Z_TYPE
#define Z_TYPE X_TYPE
#endif

#define HAS_D    1
#define HAS_Z    2
#define HAS_BIAS 4
#define SOFTPLUS 8
#define A_LOG    16

#define UPDATE_INPUTS                                                                                                \
  TENSOR_OF(X_TYPE, u), STRIDES4(u, batch, step, head, dim), TENSOR_OF(DELTA_TYPE, delta),                               \
      STRIDES4(delta, batch, step, head, dim), TENSOR_OF(A_TYPE, A), STRIDES3(A, head, dim, n),                      \
      TENSOR_OF(B_TYPE, B), STRIDES4(B, batch, step, group, n), TENSOR_OF(C_TYPE, C),                              \
      STRIDES4(C, batch, step, group, n), TENSOR_F32(D), STRIDES2(D, head, dim), TENSOR_OF(Z_TYPE, z),               \
      STRIDES4(z, batch, step, head, dim), TENSOR_F32(bias), STRIDES2(bias, head, dim),                              \
      global const int *restrict index, long index_offset, STRIDES1(index, batch), int flags, int channels,          \
      int head_dim, int d_state, int group_heads, int steps, long pool

#define AT_STEP(name)  (name##_offset + b * name##_batch + t * name##_step + head * name##_head + dim * name##_dim)
#define AT_INPUT(name) (name##_offset + b * name##_batch + t * name##_step + group * name##_group)

/* A as the decay is computed from it. */
static inline number_t rate_of(number_t a, int flags) {
  if (flags & A_LOG) a = -exponential(a);
#if NUMBER_COMPLEX
  return a;
#else
  return a * LOG2_E;
#endif
}

static inline number_t decay_of(float dt, number_t rate) {
#if NUMBER_COMPLEX
  return exponential(dt * rate);
#else
  return exp2_fast(dt * rate);
#endif
}

/* -1: the row is padding. */
static inline long row_of(global const int *index, long at, int b, long pool) {
  if (!index) return b;
  const long row = index[at];
  return row < pool ? max(row, -1L) : -1L;
}
