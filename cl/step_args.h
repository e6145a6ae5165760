/* The table that the step program (step.cl) walks. */
#ifndef CLM_STEP_ARGS_H
#define CLM_STEP_ARGS_H

#include "kernel_args.h"

/* Sums that are cut into slices, of a work-group at once. */
#define STEP_PARTS 512

/* A plan's tensors lie in a few buffers, which are the kernel's arguments. */
#define STEP_BUFFERS 6

/* What the work-groups share begins with the count of their meetings, and whether one was missed; the stages begin
 * here. */
#define STEP_TABLE 256

/* Where a tensor lies: its buffer's number + 1 in the highest byte, 0 of an absent one; the place of element 0 there
 * in bytes; and the elements between neighbours of each dimension. */
#define STEP_BUFFER_SHIFT 56
typedef struct step_view {
  kernel_long at;
  kernel_int stride[4];
} step_view;

/* What a stage does, in this order. */
#define STEP_NORM    1 /* of a product's input; alone: of `product.in`, into `product.out` */
#define STEP_PRODUCT 2 /* beside STEP_UPDATE: of its step sizes                            */
#define STEP_CONV    4 /* of the product's first columns                                   */
#define STEP_UPDATE  8

#define STEP_NORM_LAYER       1
#define STEP_NORM_GATED_FIRST 2 /* x silu(z) is normed */
#define STEP_NORM_GATED_LAST  4 /* what is normed is multiplied with silu(z) */

#define STEP_UPDATE_SOFTPLUS 1
#define STEP_UPDATE_A_LOG    2

typedef struct step_norm {
  step_view weight, bias, z; /* (k), (k), (row, k)                          */
  kernel_float epsilon;
  kernel_int flags, width, padding; /* width: columns that are normed together */
} step_norm;

/* out = activation(in weight^T scale + bias) + residual, with `rows` of in. */
typedef struct step_product {
  step_view in, weight, scale, bias, residual, out; /* (row, k), (n, k), (n), (n), (row, n), (row, n) */
  kernel_int n, k, activation;
  kernel_int slices, each; /* k is cut into slices of `each` numbers, added in order */
  kernel_int padding;
} step_product;

/* Columns [begin, begin + channels) of a product go through it; the state has the last `places` inputs. */
typedef struct step_conv {
  step_view state, weight, bias, out; /* (row, channel, place), (channel, width), (channel), (row, channel) */
  kernel_int begin, channels, width, places, silu, padding;
} step_conv;

/* Tensors have the dimensions (row, head, dim) of what they have; the states and A end with (state), B and C are (row,
 * group, state). */
typedef struct step_update {
  step_view state, u, delta, A, B, C, D, z, bias, out;
  kernel_int heads, head_dim, group_heads, d_state, flags, padding;
} step_update;

typedef struct step_stage {
  step_norm norm;
  step_product product;
  step_conv conv;
  step_update update;
  kernel_int parts, padding;
} step_stage;
KERNEL_ARGS(step_stage, 23, 4 * 23 + 4 + 6 + 6 + 6 + 2);

#endif
