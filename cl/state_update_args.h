/* What the kernels of the state update's gradients are told besides their buffers: structs read by host and kernels;
 * the flags are those of both directions. */
#ifndef CLM_STATE_UPDATE_ARGS_H
#define CLM_STATE_UPDATE_ARGS_H

#include "kernel_args.h"

#define UPDATE_HAS_D    1
#define UPDATE_HAS_Z    2
#define UPDATE_HAS_BIAS 4
#define UPDATE_SOFTPLUS 8
#define UPDATE_A_LOG    16
#define UPDATE_PARTS_A  32 /* gradients that are wanted */
#define UPDATE_PARTS_B  64
#define UPDATE_PARTS_C  128
#define UPDATE_PARTS_D  256
#define UPDATE_PARTS_DT 512

/* Views: (batch, step, head, dim), B and C (batch, step, group, n), states (row, head, dim, n), A (head, dim, n), weights
 * (head, dim), index (batch). */
typedef struct update_args {
  kernel_view state, u, delta, A, B, C, D, z, bias, index;
  kernel_long pool; /* states                */
  kernel_int batch, steps;
  kernel_int channels, head_dim, d_state;
  kernel_int group_heads; /* heads of a group      */
  kernel_int flags;
  kernel_int unused;
} update_args;
KERNEL_ARGS(update_args, 10 * 5 + 1, 8);

/* Of the gradients: views, and places in the workspace, in numbers. */
typedef struct update_gradient_args {
  kernel_view dout, dnew, du, ddelta, dz, dstate;
  kernel_long A;      /* (batch, channels, d_state)                        */
  kernel_long B, C;   /* (chunks of channels, batch, steps, groups, d_state) */
  kernel_long D, dt;  /* (batch, channels)                                 */
  kernel_long starts; /* (blocks - 1, batch, channels, d_state)            */
} update_gradient_args;
KERNEL_ARGS(update_gradient_args, 6 * 5 + 6, 0);

/* out, four dimensions, = the sums of parts. */
typedef struct update_sum_args {
  kernel_view out;
  kernel_long size[4];
  kernel_long parts, stride; /* the first in the workspace, from one to the next */
  kernel_int count, unused;
} update_sum_args;
KERNEL_ARGS(update_sum_args, 5 + 6, 2);

#endif
