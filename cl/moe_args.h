/* What the kernels of a mixture of experts are told besides their buffers: structs read by host and kernels. */
#ifndef CLM_MOE_ARGS_H
#define CLM_MOE_ARGS_H

#include "kernel_args.h"

#define ROUTE_SIGMOID   1 /* else softmax */
#define ROUTE_NORMALIZE 2
#define ROUTE_HAS_BIAS  4

/* Views: logits and dlogits (token, expert), bias (expert), ids, weights and dweights (token, place). */
typedef struct route_args {
  kernel_view logits, bias, ids, weights, dweights, dlogits;
  kernel_int experts, chosen;
  kernel_int groups, top_groups;
  kernel_int flags;
  kernel_float scale;
} route_args;
KERNEL_ARGS(route_args, 6 * 5, 6);

/* Views: vectors, and places and ids (token, place). */
typedef struct expert_rows_args {
  kernel_view offsets, order, tokens, places, counts;
  kernel_int rows, chosen, experts;
  kernel_int has_counts;
} expert_rows_args;
KERNEL_ARGS(expert_rows_args, 5 * 5, 4);

/* A product of each expert's rows with its matrix: a (row, k), b (expert, n, k), out (row, n), scale (expert, n). Of
 * the gradient of b: a (row, n), b (row, k), out (expert, n, k). */
typedef struct grouped_args {
  kernel_view a, b, offsets, out, scale;
  kernel_int rows, experts, n, k;
} grouped_args;
KERNEL_ARGS(grouped_args, 5 * 5, 4);

#define COMBINE_HAS_WEIGHTS  1
#define COMBINE_HAS_RESIDUAL 2

/* Views: y and dy (row, dim), places, weights and dweights (token, place), residual, out and dout (token, dim). */
typedef struct combine_args {
  kernel_view y, places, weights, residual, out, order, dout, dy, dweights;
  kernel_int rows, tokens, chosen, dim;
  kernel_int flags, unused;
} combine_args;
KERNEL_ARGS(combine_args, 9 * 5, 6);

#endif
