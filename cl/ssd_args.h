/* What the kernels of SSD are told besides their buffers: one struct, read by host and kernels. */
#ifndef CLM_SSD_ARGS_H
#define CLM_SSD_ARGS_H

#include "kernel_args.h"

#define SSD_HAS_D       1
#define SSD_HAS_Z       2
#define SSD_HAS_BIAS    4
#define SSD_SOFTPLUS    8
#define SSD_A_LOG       16
#define SSD_LIMITED     32
#define SSD_HAS_INITIAL 64  /* or a gradient that comes in through the final state */
#define SSD_HAS_FINAL   128 /* or the gradient of the initial state is wanted      */
#define SSD_WANT_OUT    256 /* backward: out                                       */
#define SSD_WANT_DZ     512
#define SSD_WANT_DX     1024
#define SSD_WANT_DDT    2048
#define SSD_WIDE_D      4096 /* D of (heads, head_dim) */

#define SSD_STEP_ITEMS  64 /* of ssd_steps: work-items, and heads, of a work-group */
#define SSD_STEP_HEADS  8

/* Views: (batch, step, head or group, dim or n), states (row, head, dim, n), weights (head, dim). */
typedef struct ssd_args {
  kernel_view x, dt, B, C, z, out; /* out is dx in the backward                       */
  kernel_view dout, dz, ddt;
  kernel_view state_in, state_out; /* initial and final state, or their gradients     */
  kernel_view A, D, bias;
  kernel_long seq_offset, seq_batch, seq_step;
  kernel_long ends_offset, ends_stride;
  kernel_long length, chunk;
  kernel_long slots, slots_of_row;
  /* places in the workspace, in floats */
  kernel_long marks;                     /* (batch, length) bytes                           */
  kernel_long segments;                  /* (slots, steps) ints                             */
  kernel_long d, sum, rest;              /* (slots, heads, steps)                           */
  kernel_long total;                     /* (slots, heads): decay of a piece; -1: a sequence begins in it */
  kernel_long between;                   /* (slots, groups, steps, steps): C B^T            */
  kernel_long states, dstates;           /* (slots, heads, head_dim, d_state)               */
  kernel_long dbetween;                  /* (parts, slots, groups, steps, steps)            */
  kernel_long inner, from, to, crossing; /* (slots, heads, steps)                  */
  kernel_long inputs;                    /* (parts, batch, length, groups, d_state)         */
  kernel_long dA, dbias;                 /* (slots, heads)                                  */
  kernel_long dD;                        /* (slots, heads), SSD_WIDE_D: (slots, heads, head_dim) */
  kernel_int pieces_of_chunk, steps;     /* pieces in a chunk, steps in one at most    */
  kernel_int batch, rows, reversed;
  kernel_int heads, head_dim, groups, d_state;
  kernel_int parts; /* of the heads of a group                         */
  kernel_int flags;
  kernel_float dt_min, dt_max;
  kernel_int unused;
} ssd_args;
KERNEL_ARGS(ssd_args, 14 * 5 + 27, 14);

#endif
