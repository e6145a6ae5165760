/* Partial sums of work-groups -> a gradient, in a fixed order: element i of out = sum over p of parts[p][i].
 *   bytes per element: parts read once, out written; one work-item for each element of out */
#include "scan.h"
#include "scan_reduce_args.h"

#ifndef PART_TYPE
#define PART_TYPE f32 /* or c64 */
#endif
typedef STORAGE(PART_TYPE) part_t;

kernel void scan_reduce(global const part_t *restrict parts, global storage_t *restrict out,
                        const scan_reduce_args args) {
  const long i = (long)get_global_id(0), count = args.count, part_stride = args.part_stride;
  parts += args.parts_offset + i;
  part_t sum[4]; /* four chains, so that loads overlap */
  for (int j = 0; j < 4; j++) sum[j] = (part_t)(0.0f);
  long p = 0;
  for (; p + 4 <= count; p += 4)
#pragma unroll
    for (int j = 0; j < 4; j++) sum[j] += parts[(p + j) * part_stride];
  for (; p < count; p++) sum[0] += parts[p * part_stride];
  long at = args.out.offset, rest = i;
#pragma unroll
  for (int k = 3; k >= 0; k--) {
    at += rest % args.shape[k] * args.out.stride[k];
    rest /= args.shape[k];
  }
  store(out, at, (sum[0] + sum[1]) + (sum[2] + sum[3]));
}
