/* What cl/gated_norm.cl gets in addition to its buffers, read by host and kernel. */
#ifndef CLM_GATED_NORM_ARGS_H
#define CLM_GATED_NORM_ARGS_H

#include "kernel_args.h"

/* Where a (rows, dim) tensor lies, in elements. Of the weight, the same for all rows, `row` is 0. */
typedef struct gated_norm_view {
  kernel_long offset, row, column;
} gated_norm_view;

typedef struct gated_norm_args {
  gated_norm_view x, z, weight, out, dout, dx, dz;
  kernel_long scales_offset;  /* (rows, groups): 1 / sqrt(mean + epsilon) of each, for the weight's gradient */
  kernel_long partial_offset; /* (chunks, dim): sums of the weight's gradient over chunk_rows rows each      */
  kernel_int has_weight, has_out, has_dx, has_dz;
  kernel_int rows, dim;
  kernel_int width; /* columns of a group */
  kernel_int chunk_rows;
  kernel_float epsilon;
  kernel_int unused;
} gated_norm_args;
KERNEL_ARGS(gated_norm_args, 7 * 3 + 2, 10);

#endif
