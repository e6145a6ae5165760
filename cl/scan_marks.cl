/* What each step of (batch, length) is by seq_idx, one byte each: it goes on, begins a sequence, or is padding. A step
 * is compared with the nearest one before it that is not padding.
 *   bytes per step: 5, and past padding what lies between */
#include "scan.h"
#include "scan_flags.h"

enum { AHEAD = 8 }; /* steps whose loads are under way at a time */

kernel void scan_marks(global const int *seq_idx, long seq_idx_offset, STRIDES2(seq_idx, batch, step), /* */
                       global uchar *marks, long marks_offset, long length) {
  const long i = (long)get_global_id(0), step = i % length;
  seq_idx += seq_idx_offset + i / length * seq_idx_batch;
  const int number = seq_idx[step * seq_idx_step];
  int before = -1;
  for (long t = step - 1; number >= 0 && before < 0 && t >= 0; t -= AHEAD)
    for (int k = AHEAD - 1; k >= 0; k--) {
      const int other = seq_idx[max(t - k, 0L) * seq_idx_step];
      if (other >= 0) before = other; /* the nearest one comes last */
    }
  marks[marks_offset + i] = number < 0 ? SCAN_PADDING : before >= 0 && before != number ? SCAN_BEGINS : SCAN_GOES_ON;
}
