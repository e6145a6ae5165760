/* What cl/scan_reduce.cl gets in addition to its buffers, read by host and kernel. */
#ifndef CLM_SCAN_REDUCE_ARGS_H
#define CLM_SCAN_REDUCE_ARGS_H

#include "kernel_args.h"

typedef struct scan_reduce_args {
  kernel_view out;
  kernel_long shape[4]; /* of out; 1 past its rank */
  kernel_long parts_offset, count, part_stride;
} scan_reduce_args;
KERNEL_ARGS(scan_reduce_args, 5 + 7, 0);

#endif
