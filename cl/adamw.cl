/* AdamW in one pass: 28 bytes per parameter (four reads, three writes).
 *
 * The factor that clips by the global norm is worked out by every work-item from the one float that sum_squares left on
 * the device, so that no value travels to the host; a sum that is not finite leaves everything as it was. */
#include "storage.h"

#define ELEMENTS 4
#ifndef GRADIENT_TYPE
#define GRADIENT_TYPE f32
#endif
#ifndef COPY_TYPE
#define COPY_TYPE f32
#endif

__kernel void adamw(__global float *parameter, long parameter_offset, long parameter_stride,
                    __global const STORAGE(GRADIENT_TYPE) *gradient, long gradient_offset, long gradient_stride, __global float *m,
                    long m_offset, long m_stride, __global float *v, long v_offset, long v_stride,
                    __global STORAGE(COPY_TYPE) *copy, long copy_offset, long copy_stride, int has_copy,
                    __global const float *sum_squares, long sum_offset, int has_sum, long count, float lr, float beta1,
                    float beta2, float epsilon, float weight_decay, float gradient_scale, float max_norm,
                    float correction1, float correction2) {
  float scale = gradient_scale;
  if (has_sum) {
    float squares = sum_squares[sum_offset];
    if (!isfinite(squares)) return;
    if (max_norm > 0.0f) scale *= fmin(1.0f, max_norm / (gradient_scale * sqrt(squares) + 1e-6f));
  }
  long i = (long)get_group_id(0) * (long)get_local_size(0) * ELEMENTS + (long)get_local_id(0);
#pragma unroll
  for (int k = 0; k < ELEMENTS; k++, i += (long)get_local_size(0)) {
    if (i < count) {
      long pi = parameter_offset + i * parameter_stride, mi = m_offset + i * m_stride, vi = v_offset + i * v_stride;
      float g = LOAD(GRADIENT_TYPE, gradient, gradient_offset + i * gradient_stride) * scale, p = parameter[pi];
      float new_m = beta1 * m[mi] + (1.0f - beta1) * g;
      float new_v = beta2 * v[vi] + (1.0f - beta2) * g * g;
      m[mi] = new_m;
      v[vi] = new_v;
      float step = new_m / correction1 / (sqrt(new_v / correction2) + epsilon);
      p -= lr * (step + weight_decay * p);
      parameter[pi] = p;
      if (has_copy) STORE(COPY_TYPE, copy, copy_offset + i * copy_stride, p);
    }
  }
}
