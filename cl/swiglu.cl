/* The gate of an MLP, out = activation(gate) up, and its gradients: a work-item per element of (rows, dim), any
 * strides. GATE_ACTIVATION counts like clm_gate_activation.
 *   bytes per element: each input read once, each output written once */
#include "common.h"
#include "storage.h"

#ifndef X_TYPE /* of all tensors; arithmetic is f32 */
#define X_TYPE f32
#endif
typedef STORAGE(X_TYPE) x_t;

#ifndef GATE_ACTIVATION
#define GATE_ACTIVATION 0
#endif

#if GATE_ACTIVATION == 1
static inline float activate(float x) { return x * (0.5f * erfc(-0.70710678f * x)); }
static inline float activation_slope(float x) {
  return 0.5f * erfc(-0.70710678f * x) + x * (0.39894228f * exp(-0.5f * x * x));
}
#elif GATE_ACTIVATION == 2
#define FACTOR 1.59576912f /* 2 sqrt(2 / pi): 1 + tanh(y) is twice a sigmoid of 2 y */
#define CUBE   0.044715f
static inline float gelu_open(float x) { return sigmoid(FACTOR * (x + CUBE * x * x * x)); }
static inline float activate(float x) { return x * gelu_open(x); }
static inline float activation_slope(float x) {
  const float open = gelu_open(x);
  return open + x * open * (1.0f - open) * FACTOR * (1.0f + 3.0f * CUBE * x * x);
}
#elif GATE_ACTIVATION == 3
static inline float activate(float x) { return x < 0.0f ? 0.0f : x * x; }
static inline float activation_slope(float x) { return x < 0.0f ? 0.0f : 2.0f * x; }
#else
static inline float activate(float x) { return silu(x); }
static inline float activation_slope(float x) { return silu_gradient(x); }
#endif

__kernel void swiglu(__global const x_t *gate, long gate_offset, long gate_row, long gate_column,
                     __global const x_t *up, long up_offset, long up_row, long up_column, int has_up, __global x_t *out,
                     long out_offset, long out_row, long out_column, long count, long dim) {
  const long number = (long)get_global_id(0);
  if (number >= count) return;
  const long i = number / dim, j = number % dim;
  float y = activate(LOAD(X_TYPE, gate, gate_offset + i * gate_row + j * gate_column));
  if (has_up) y *= LOAD(X_TYPE, up, up_offset + i * up_row + j * up_column);
  STORE(X_TYPE, out, out_offset + i * out_row + j * out_column, y);
}

__kernel void swiglu_backward(__global const x_t *gate, long gate_offset, long gate_row, long gate_column,
                              __global const x_t *up, long up_offset, long up_row, long up_column, int has_up,
                              __global const x_t *dout, long dout_offset, long dout_row, long dout_column,
                              __global x_t *dgate, long dgate_offset, long dgate_row, long dgate_column, int has_dgate,
                              __global x_t *dup, long dup_offset, long dup_row, long dup_column, int has_dup,
                              long count, long dim) {
  const long number = (long)get_global_id(0);
  if (number >= count) return;
  const long i = number / dim, j = number % dim;
  const float x = LOAD(X_TYPE, gate, gate_offset + i * gate_row + j * gate_column),
              y = has_up ? LOAD(X_TYPE, up, up_offset + i * up_row + j * up_column) : 1.0f,
              d = LOAD(X_TYPE, dout, dout_offset + i * dout_row + j * dout_column);
  if (has_dgate) STORE(X_TYPE, dgate, dgate_offset + i * dgate_row + j * dgate_column, d * y * activation_slope(x));
  if (has_dup) STORE(X_TYPE, dup, dup_offset + i * dup_row + j * dup_column, d * activate(x));
}
