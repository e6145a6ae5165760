/* Softmax cross-entropy, loss and gradient: one work-group per row.
 *
 * First pass: each work-item keeps the largest of its logits and the sum of exponentials relative to it (Milakov &
 * Gimelshein 2018), four logits for one rescaling; the work-group then combines them in a fixed order. Second pass, only
 * for the gradient: the softmax. So a row is read twice and written once, and dlogits may be the logits themselves. */
#include "common.h"
#include "storage.h"

#ifndef X_TYPE /* of logits and dlogits */
#define X_TYPE f32
#endif

#define LOWEST (-3.0e38f) /* not -inf: exp(-inf - -inf) would be NaN where a logit is masked by -inf */

static inline float work_group_max(float value, __local float *scratch) {
  int i = (int)get_local_id(0);
  local_barrier();
  scratch[i] = value;
  for (int step = (int)get_local_size(0) / 2; step > 0; step /= 2) {
    local_barrier();
    if (i < step) scratch[i] = fmax(scratch[i], scratch[i + step]);
  }
  local_barrier();
  return scratch[0];
}

__kernel void cross_entropy(__global const STORAGE(X_TYPE) *logits, long logits_offset, long logits_row, long logits_column,
                            __global const int *targets, long targets_offset, long targets_stride,
                            __global float *losses, long losses_offset, long losses_stride, int has_losses,
                            __global STORAGE(X_TYPE) *dlogits, long dlogits_offset, long dlogits_row, long dlogits_column,
                            int has_dlogits, int vocab, float scale, __local float *scratch) {
  long row = (long)get_group_id(0);
  int lid = (int)get_local_id(0), items = (int)get_local_size(0);
  __global const STORAGE(X_TYPE) *x = logits + logits_offset + row * logits_row;
  int target = targets[targets_offset + row * targets_stride];
  int ignored = target < 0 || target >= vocab;
  float at_target = ignored ? 0.0f : LOAD(X_TYPE, x, (long)target * logits_column); /* before the gradient may overwrite it */

  float largest = LOWEST, sum = 0.0f;
  for (int j = lid; j < vocab; j += 4 * items) {
    float value[4];
    float top = largest;
#pragma unroll
    for (int k = 0; k < 4; k++) {
      int at = j + k * items;
      value[k] = at < vocab ? LOAD(X_TYPE, x, (long)at * logits_column) : -INFINITY;
      top = fmax(top, value[k]);
    }
    sum *= exp(largest - top);
#pragma unroll
    for (int k = 0; k < 4; k++) sum += exp(value[k] - top);
    largest = top;
  }
  float top = work_group_max(largest, scratch);
  float total = work_group_sum(sum * exp(largest - top), scratch);
  if (lid == 0 && has_losses) losses[losses_offset + row * losses_stride] = ignored ? 0.0f : log(total) + (top - at_target);
  barrier(CLK_GLOBAL_MEM_FENCE); /* every logit has been read where dlogits are the logits themselves */
  ANCHOR
  if (!has_dlogits) return;

  __global STORAGE(X_TYPE) *dx = dlogits + dlogits_offset + row * dlogits_row;
  float factor = ignored ? 0.0f : scale / total;
  for (int j = lid; j < vocab; j += items) {
    float p = ignored ? 0.0f : factor * exp(LOAD(X_TYPE, x, (long)j * logits_column) - top);
    STORE(X_TYPE, dx, (long)j * dlogits_column, j == target ? p - scale : p);
  }
}
