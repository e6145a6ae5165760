/* Partial sums of work-groups -> a gradient, in a fixed order: element i of out = sum over p of parts[p][i].
 *   bytes per element: parts read once, out written; one work-item for each element of out */
#include "scan.h"

#ifndef PART_TYPE
#define PART_TYPE f32 /* or c64 */
#endif
typedef STORAGE(PART_TYPE) part_t;

kernel void scan_reduce(global const part_t *restrict parts, long parts_offset, long count, long part_stride,
                        OUTPUT(out), long shape1, long shape2, long shape3, STRIDES4(out, 0, 1, 2, 3)) {
  const long i = (long)get_global_id(0);
  parts += parts_offset + i;
  part_t sum[4]; /* four chains, so that loads overlap */
  for (int j = 0; j < 4; j++) sum[j] = (part_t)(0.0f);
  long p = 0;
  for (; p + 4 <= count; p += 4)
#pragma unroll
    for (int j = 0; j < 4; j++) sum[j] += parts[(p + j) * part_stride];
  for (; p < count; p++) sum[0] += parts[p * part_stride];
  const long i3 = i % shape3, i2 = i / shape3 % shape2, i1 = i / shape3 / shape2 % shape1,
             i0 = i / shape3 / shape2 / shape1;
  store(out, out_offset + i0 * out_0 + i1 * out_1 + i2 * out_2 + i3 * out_3, (sum[0] + sum[1]) + (sum[2] + sum[3]));
}
