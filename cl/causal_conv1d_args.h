/* What the kernels of the causal convolution are told besides their buffers: one struct, read by host and kernels. */
#ifndef CLM_CAUSAL_CONV1D_ARGS_H
#define CLM_CAUSAL_CONV1D_ARGS_H

#include "kernel_args.h"

#define CONV_SILU    1
#define CONV_BIAS    2
#define CONV_INITIAL 4
#define CONV_DFINAL  8
#define CONV_DX      16
#define CONV_PARTS   32
#define CONV_PACKED  64

/* Views: (batch, step, channel), states (row, channel, k), weights (channel, k), biases (channel). What a kernel has
 * no use for is zero. */
typedef struct conv_args {
  kernel_view x, weight, bias, out;
  kernel_view initial; /* states before the sequences, or the state that an update changes   */
  kernel_view final;   /* states after them, or their gradient                               */
  kernel_view dout, dx, dweight, dbias, dinitial;
  kernel_view numbers;         /* seq_idx (batch, step), or cu_seqlens (number)              */
  kernel_view position, index; /* (batch): of an update                                      */
  kernel_long length;          /* steps                                                      */
  kernel_long pool;            /* states that an update chooses from                         */
  kernel_long run;             /* steps of a run                                             */
  kernel_long parts;           /* (batch, runs, width + 1, channels): place in the workspace, floats   */
  kernel_int runs;
  kernel_int sequences; /* of cu_seqlens; 0: the numbers are seq_idx                         */
  kernel_int reversed;
  kernel_int before;       /* width - 1                                                      */
  kernel_int size, places; /* of an update's ring of inputs; of a state that has them in order */
  kernel_int channels;
  kernel_int flags;
} conv_args;
KERNEL_ARGS(conv_args, 14 * 5 + 4, 8);

#endif
