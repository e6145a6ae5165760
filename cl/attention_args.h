/* What the kernels of attention are told besides their buffers: one struct, read by host and kernels. */
#ifndef CLM_ATTENTION_ARGS_H
#define CLM_ATTENTION_ARGS_H

#include "kernel_args.h"

#define ATTENTION_HAS_OFFSETS 1
#define ATTENTION_WANT_LSE    2
#define ATTENTION_IS_PACKED   4 /* with cu_seqlens */
#define ATTENTION_OF_V        8 /* dv, not dk      */

/* Views: (batch, step, head, dim), lse (batch, step, head), offsets and cu_seqlens (number). */
typedef struct attention_args {
  kernel_view q, k, v, out, lse, offsets, ends;
  kernel_view dout, dq, dkv; /* dkv: dk or dv */
  kernel_long length, keys, window;
  kernel_long blocks_of_row; /* blocks of pairs or of keys in a batch row, where it is no packed one */
  kernel_int rows;           /* of the batch, or packed sequences                                    */
  kernel_int heads, kv_heads, head_dim;
  kernel_int flags;
  kernel_float scale;
} attention_args;
KERNEL_ARGS(attention_args, 10 * 5 + 4, 6);

#endif
