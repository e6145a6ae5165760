/* The mark (causal_conv1d.h) of every step, and of the one after the last, of every batch row. Whether two steps belong
 * together shows within the filter's width: what lies between them is of the same number or padding, which counts as 0
 * anyway. */
#include "causal_conv1d.h"

/* Of a step of the row that cu_seqlens cuts. */
static inline int4 packed_mark(const conv_args *a, global const int *ends, long t) {
  const long at = a->reversed ? a->length - 1 - t : t;
  int low = 0, high = a->sequences; /* the last sequence that begins at `at` or before */
  while (high - low > 1) {
    const int middle = low + (high - low) / 2;
    if ((long)ends[view_at(&a->numbers, middle, 0, 0, 0)] <= at) low = middle;
    else high = middle;
  }
  const span row = span_of(a, ends, low);
  const long begin = clamp(row.begin, 0L, t), end = max(row.end, t + 1);
  return (int4)((int)min((long)a->before, t - begin), low, end - t <= a->before ? (int)(end - t) : 0, 0);
}

/* How far before the end step t stands if the step to come sees it, else 0. */
static inline int before_end(const conv_args *a, global const int *numbers, long batch, long t) {
  int last = -1, left = (int)(a->length - t);
  for (long p = a->length - 1; p >= t; p--) {
    const int other = numbers[view_at(&a->numbers, batch, p, 0, 0)];
    if (last < 0) last = other;
    if (other >= 0 && other != last) left = 0;
  }
  return left;
}

/* Of a step of a batch row that seq_idx numbers. */
static inline int4 numbered_mark(const conv_args *a, global const int *numbers, long batch, long t) {
  int4 m = (int4)(a->before, (int)batch, 0, 0);
  int number = t < a->length ? numbers[view_at(&a->numbers, batch, t, 0, 0)] : -1;
  if (number < 0 && t < a->length) m.x = -1;
  for (int j = 1; j <= m.x; j++) {
    const int other = t - j >= 0 ? numbers[view_at(&a->numbers, batch, t - j, 0, 0)] : number;
    if (other >= 0 && number < 0) number = other; /* the step to come is of the last sequence */
    if (other >= 0 && other != number) m.x = j - 1;
  }
  if (m.x >= 0 && a->length - t <= a->before) m.z = before_end(a, numbers, batch, t);
  return m;
}

kernel void causal_conv1d_marks(const conv_args a, global const int *restrict numbers, global int4 *restrict marks) {
  const long t = (long)get_global_id(0), batch = (long)get_global_id(1);
  marks[batch * (a.length + 1) + t] =
      a.sequences > 0 ? packed_mark(&a, numbers, t) : numbered_mark(&a, numbers, batch, t);
}
