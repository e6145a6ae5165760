/* Shared by every family: activations as the public headers define them, and sums over a work-group in a fixed order.
 */
#include "barrier.h"

/* softplus only where the argument is at most 20, through log1p: log(1 + exp(x)) is 0 near x = -18. */
static inline float softplus(float x) { return x <= 20.0f ? log1p(exp(x)) : x; }

static inline float sigmoid(float x) { return 1.0f / (1.0f + exp(-x)); }

static inline float silu(float x) { return x / (1.0f + exp(-x)); }

static inline float silu_gradient(float x) {
  float s = sigmoid(x);
  return s * (1.0f + x * (1.0f - s));
}

/* Sum of `value` over the work-group, the same in every work-item. `scratch` has a float for each work-item of the
 * (one-dimensional) work-group, whose size must be a power of two. A tree, so the order never depends on timing.
 * No kernel may return before its last barrier, not even all work-items together: PoCL 3.1 then corrupts memory. */
static inline float work_group_sum(float value, __local float *scratch) {
  int i = (int)get_local_id(0);
  local_barrier(); /* the scratch may still be read from the call before */
  scratch[i] = value;
  for (int step = (int)get_local_size(0) / 2; step > 0; step /= 2) {
    local_barrier();
    if (i < step) scratch[i] += scratch[i + step];
  }
  local_barrier();
  return scratch[0];
}
