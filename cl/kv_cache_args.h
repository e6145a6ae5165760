/* What the kernel of kv_append is told besides its buffers: one struct, read by host and kernel. */
#ifndef CLM_KV_CACHE_ARGS_H
#define CLM_KV_CACHE_ARGS_H

#include "kernel_args.h"

#define KV_IS_PACKED 1 /* with cu_seqlens */

/* Views: (batch, step, head, dim), offsets and cu_seqlens (number). */
typedef struct kv_args {
  kernel_view k, v, k_cache, v_cache, offsets, ends;
  kernel_long batch, length, keys, heads, head_dim, sequences;
  kernel_int flags, unused;
} kv_args;
KERNEL_ARGS(kv_args, 6 * 5 + 6, 2);

#endif
