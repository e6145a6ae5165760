/* What the kernel of rope is told besides its buffers: one struct, read by host and kernel. */
#ifndef CLM_ROPE_ARGS_H
#define CLM_ROPE_ARGS_H

#include "kernel_args.h"

#define ROPE_HAS_OFFSETS 1
#define ROPE_IS_PACKED   2 /* with cu_seqlens */
#define ROPE_INTERLEAVED 4
#define ROPE_INVERSE     8

/* Views: (batch, step, head, dim), offsets and cu_seqlens (number). */
typedef struct rope_args {
  kernel_view x, out, offsets, ends;
  kernel_long batch, length, heads, head_dim, rotary, sequences;
  kernel_long ratio, whole; /* theta^(-2 / rotary), and the turns of pair 0 for each position: units of 2^-64 */
  kernel_int flags, unused;
} rope_args;
KERNEL_ARGS(rope_args, 4 * 5 + 8, 2);

#endif
