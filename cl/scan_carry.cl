/* The carry between chunks of a selective scan: states holds (slots, d_inner, d_state) each chunk's final state from
 * zero, and gets each chunk's initial state; a left fold, h = exp(A sum dt) h + states[chunk]. With SCAN_REVERSE the same
 * for gradients, from the last chunk to the first. A chunk in which a sequence begins (drops) hands nothing on of what
 * comes before. One work-item for each (row, channel, state).
 *   bytes per chunk and state: read and written once; special functions: one */
#include "scan.h"
#include "scan_number.h"
#include "scan_rows.h"

enum { AHEAD = 4 }; /* chunks whose loads are under way at a time: the fold itself waits for nothing but memory */

kernel void scan_carry(global float *work, long states_at, long sums_at, long drops_at, /* in floats */
                       TENSOR_OF(NUMBER_TYPE, A), STRIDES2(A, channel, state),          /* */
                       global const number_t *initial, long initial_offset, STRIDES3(initial, batch, channel, state),
                       global number_t *final, long final_offset, STRIDES3(final, batch, channel, state), /* or initial */
                       PACKED_PARAMETERS, long length, long chunk, int chunks, int has_initial, int has_final,
                       int A_is_log, int d_inner, int d_state) {
  const long matrix = (long)d_inner * d_state, number_of_row = (long)get_global_id(0) / matrix;
  const long i = (long)get_global_id(0) % matrix;
  const int channel = (int)(i / d_state), n = (int)(i % d_state);
#if SCAN_PACKED
  const scan_sequences sequences = {ends + ends_offset, ends_stride, rows, reversed};
  const scan_row r = packed_row(length, chunk, 1, (int)number_of_row, sequences);
  const long row = r.states, slot = r.slot, count = (r.end - r.begin + chunk - 1) / chunk;
#else
  const long row = number_of_row, slot = row * chunks, count = chunks;
#endif
  global number_t *const states = (global number_t *)(work + states_at);
  number_t a = A[A_offset + channel * A_channel + n * A_state];
  if (A_is_log) a = -exponential(a);
  a = rate_of(SCAN_REVERSE ? conjugate(a) : a);
  number_t h = ZERO;
  if (has_initial) h = initial[initial_offset + row * initial_batch + channel * initial_channel + n * initial_state];
  for (long first = 0; first < count; first += AHEAD) {
    number_t state[AHEAD];
    float sum[AHEAD];
#pragma unroll
    for (int j = 0; j < AHEAD; j++) {
      const long k = min(first + j, count - 1), at = (slot + (SCAN_REVERSE ? count - 1 - k : k)) * d_inner + channel;
      state[j] = states[at * d_state + n];
      sum[j] = work[sums_at + at];
    }
#pragma unroll
    for (int j = 0; j < AHEAD; j++) {
      const long k = first + j;
      if (k >= count) break;
      const long from = slot + (SCAN_REVERSE ? count - 1 - k : k);
      states[(from * d_inner + channel) * d_state + n] = h;
#if SCAN_RESETS
      if (((global const int *)(work + drops_at))[from]) {
        h = state[j]; /* not 0 times the decay, which a NaN of the sequence before may have spoilt */
        continue;
      }
#endif
      h = times(decay_after(sum[j], a), h) + state[j];
    }
  }
  if (has_final) final[final_offset + row * final_batch + channel * final_channel + n * final_state] = h;
}
