/* Sums over rows for each column, in two stages and a fixed order. First stage: a work-group of (columns, lanes) owns
 * as many columns as it is wide and a chunk of the rows; its lanes take every lanes-th row and are summed as a tree.
 * Each chunk leaves one partial sum per column; `column_finish` adds the chunks in order. */
#include "barrier.h"

/* Sum of `value` over dimension 1 of the work-group, valid in lane 0. Sizes: powers of two. */
static inline float lane_sum(float value, __local float *scratch) {
  int x = (int)get_local_id(0), y = (int)get_local_id(1), columns = (int)get_local_size(0);
  local_barrier();
  scratch[y * columns + x] = value;
  for (int step = (int)get_local_size(1) / 2; step > 0; step /= 2) {
    local_barrier();
    if (y < step) scratch[y * columns + x] += scratch[(y + step) * columns + x];
  }
  local_barrier();
  return scratch[x];
}
