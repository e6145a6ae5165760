/* The gate of a SwiGLU layer, out = silu(gate) up, and its gradients: a work-item per element of (rows, dim), any
 * strides.
 *   bytes per element: each input read once, each output written once */
#include "common.h"
#include "storage.h"

#ifndef X_TYPE /* of all tensors; arithmetic is f32 */
#define X_TYPE f32
#endif
typedef STORAGE(X_TYPE) x_t;

__kernel void swiglu(__global const x_t *gate, long gate_offset, long gate_row, long gate_column,
                     __global const x_t *up, long up_offset, long up_row, long up_column, __global x_t *out,
                     long out_offset, long out_row, long out_column, long count, long dim) {
  const long number = (long)get_global_id(0);
  if (number >= count) return;
  const long i = number / dim, j = number % dim;
  const float x = LOAD(X_TYPE, gate, gate_offset + i * gate_row + j * gate_column);
  STORE(X_TYPE, out, out_offset + i * out_row + j * out_column,
        silu(x) * LOAD(X_TYPE, up, up_offset + i * up_row + j * up_column));
}

__kernel void swiglu_backward(__global const x_t *gate, long gate_offset, long gate_row, long gate_column,
                              __global const x_t *up, long up_offset, long up_row, long up_column,
                              __global const x_t *dout, long dout_offset, long dout_row, long dout_column,
                              __global x_t *dgate, long dgate_offset, long dgate_row, long dgate_column, int has_dgate,
                              __global x_t *dup, long dup_offset, long dup_row, long dup_column, int has_dup,
                              long count, long dim) {
  const long number = (long)get_global_id(0);
  if (number >= count) return;
  const long i = number / dim, j = number % dim;
  const float x = LOAD(X_TYPE, gate, gate_offset + i * gate_row + j * gate_column),
              y = LOAD(X_TYPE, up, up_offset + i * up_row + j * up_column),
              d = LOAD(X_TYPE, dout, dout_offset + i * dout_row + j * dout_column);
  if (has_dgate) STORE(X_TYPE, dgate, dgate_offset + i * dgate_row + j * dgate_column, d * y * silu_gradient(x));
  if (has_dup) STORE(X_TYPE, dup, dup_offset + i * dup_row + j * dup_column, d * silu(x));
}
