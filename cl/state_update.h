/* Shared by the state update and its gradients: their inputs, the rates of decay, which state a row has. Types:
 * X_TYPE of u, S_TYPE of the state, those below of what is stored otherwise than u; NUMBER_COMPLEX makes A, B, C and
 * the states complex. */
#include "scan.h"
#include "inline.h"
#include "number.h"
#include "state_update_args.h"
#include "view.h"

#if NUMBER_COMPLEX
#define A_TYPE c64
#define B_TYPE c64
#define C_TYPE c64
#else
#define A_TYPE f32
#ifndef B_TYPE
#define B_TYPE X_TYPE
#endif
#ifndef C_TYPE
#define C_TYPE X_TYPE
#endif
#endif
#ifndef DELTA_TYPE
#define DELTA_TYPE X_TYPE
#endif
#ifndef Z_TYPE
#define Z_TYPE X_TYPE
#endif
typedef STORAGE(X_TYPE) x_t;
typedef STORAGE(DELTA_TYPE) delta_t;
typedef STORAGE(Z_TYPE) z_t;

/* A as the decay is computed from it. */
static inline number_t rate_of(number_t a, int flags) {
  if (flags & UPDATE_A_LOG) a = -exponential(a);
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

/* The state of batch row b, whose number is at index[at]; -1: the row is padding. */
static inline long row_of(global const int *index, long at, int b, long pool) {
  if (!index) return b;
  const long row = index[at];
  return row < pool ? max(row, -1L) : -1L;
}
