/* The carry between chunks of a selective scan: states holds (batch, chunks, d_inner, d_state) each chunk's final state
 * from zero, and gets each chunk's initial state; a left fold, h = exp(A sum dt) h + states[chunk]. With SCAN_REVERSE
 * the same for gradients, from the last chunk to the first. One work-item for each (channel, state) of a batch row.
 *   bytes per chunk and state: read and written once; special functions: one */
#include "scan.h"

enum { AHEAD = 4 }; /* chunks whose loads are under way at a time: the fold itself waits for nothing but memory */

kernel void scan_carry(global float *states, long states_offset, global const float *sums, long sums_offset, /* */
                       TENSOR_F32(A), STRIDES2(A, channel, state),                                         /* */
                       global const float *initial, long initial_offset, STRIDES3(initial, batch, channel, state),
                       global float *final, long final_offset, STRIDES3(final, batch, channel, state), /* or initial */
                       int has_initial, int has_final, int A_is_log, int chunks, int d_inner, int d_state) {
  const long batch = (long)get_global_id(1);
  if ((long)get_global_id(0) >= (long)d_inner * d_state) return;
  const int channel = (int)(get_global_id(0) / d_state), n = (int)(get_global_id(0) % d_state);
  states += states_offset;
  float a = A[A_offset + channel * A_channel + n * A_state];
  if (A_is_log) a = -exp(a);
  a *= LOG2_E;
  float h = 0.0f;
  if (has_initial) h = initial[initial_offset + batch * initial_batch + channel * initial_channel + n * initial_state];
  for (int first = 0; first < chunks; first += AHEAD) {
    float state[AHEAD], sum[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      const int k = min(first + i, chunks - 1);
      const long row = (batch * chunks + (SCAN_REVERSE ? chunks - 1 - k : k)) * d_inner + channel;
      state[i] = states[row * d_state + n];
      sum[i] = sums[sums_offset + row];
    }
#pragma unroll
    for (int i = 0; i < AHEAD; i++) {
      const int k = first + i;
      if (k >= chunks) break;
      const long row = (batch * chunks + (SCAN_REVERSE ? chunks - 1 - k : k)) * d_inner + channel;
      states[row * d_state + n] = h;
      h = exp2_fast(sum[i] * a) * h + state[i];
    }
  }
  if (has_final) final[final_offset + batch * final_batch + channel * final_channel + n * final_state] = h;
}
