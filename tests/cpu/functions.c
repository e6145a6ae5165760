#include "functions.h"
#include "backend/cpu/kernels/simd.h"

void SIMD_PASTE(functions, SIMD_SUFFIX)(function_name, const float *, float *, int64_t);

void SIMD_PASTE(functions, SIMD_SUFFIX)(function_name name, const float *from, float *to, int64_t count) {
  for (int64_t i = 0; i < count; i += LANES) {
    vec x = vec_load(from + i), y = x;
    switch (name) {
#define X(function, value)                                                                                           \
  case FUNCTION_##function: y = value; break;
      FUNCTIONS(X)
#undef X
    case FUNCTION_COUNT: break;
    }
    vec_store(to + i, y);
  }
}
