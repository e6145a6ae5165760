/* Causal depthwise convolution along the sequence (the semantics of the reference package's causal_conv1d_fn). */
#ifndef CLMAMBA_CAUSAL_CONV1D_H
#define CLMAMBA_CAUSAL_CONV1D_H

#include <clmamba/tensor.h>

CLM_BEGIN_DECLS

/*   s[t] = bias + sum_k weight[k] x[t - (width - 1) + k]     x before the sequence: initial_state, else 0
 *   out  = silu(s) or s
 *
 * Several sequences in one row, and padding, as clmamba/selective_scan.h says for the same members. An input of
 * another sequence counts as 0, and so does padding, which keeps its place: its neighbours do not move together.
 * States are the last width - 1 inputs of the last sequence, as its next step would see them; with cu_seqlens each
 * sequence has its own, (sequences, channels, width - 1).
 *
 * All arithmetic is fp32 whatever the storage type. Optional members are left zeroed. Outputs may not overlap inputs.
 * Bitwise deterministic on a device. Thread safety: one call at a time per context. */
typedef struct clm_causal_conv1d_args {
  clm_tensor x;             /* (batch, length, channels)                                          */
  clm_tensor weight;        /* (channels, width)               f32 or as x, width 1 to 32         */
  clm_tensor bias;          /* optional (channels)             f32 or as x                        */
  clm_tensor initial_state; /* optional (batch, channels, width - 1)  f32 or as x: the steps before */
  clm_tensor out;           /* (batch, length, channels)       as x, written                      */
  clm_tensor final_state;   /* optional (batch, channels, width - 1)  f32 or as x, written; may be
                               initial_state */
  bool silu;

  clm_tensor seq_idx;    /* optional (batch, length)        i32: which sequence a step belongs to */
  clm_tensor cu_seqlens; /* optional (sequences + 1)        i32: where packed sequences begin     */
  bool reverse;          /* from the last step to the first: "before" means "after" throughout    */
} clm_causal_conv1d_args;

CLM_API clm_status clm_causal_conv1d(clm_context *context, const clm_causal_conv1d_args *args);

/* Gradients; `forward` as in the forward call (out and final_state are not read). Optional gradients are zeroed
 * tensors; those given are overwritten. */
typedef struct clm_causal_conv1d_backward_args {
  clm_causal_conv1d_args forward;
  clm_tensor dout;           /* (batch, length, channels)                 as x                     */
  clm_tensor dfinal_state;   /* optional (batch, channels, width - 1)     f32 or as x: coming in */
  clm_tensor dx;             /* (batch, length, channels)                 as x                     */
  clm_tensor dweight;        /* (channels, width)                         f32 or as x              */
  clm_tensor dbias;          /* (channels)                                f32 or as x              */
  clm_tensor dinitial_state; /* (batch, channels, width - 1)              f32 or as x              */
} clm_causal_conv1d_backward_args;

CLM_API clm_status clm_causal_conv1d_backward(clm_context *context, const clm_causal_conv1d_backward_args *args);

/* One step, or several in one call, with the state updated in place. The state is the last `size` inputs, oldest
 * first; size is at least width - 1, and the filter sees the last width - 1 of them. With cache_seqlens the state is
 * circular: step number p of a sequence is at place p mod size, and this call's first step is number
 * cache_seqlens (which the caller moves on).
 * With state_indices row i works on state state_indices[i] of a pool, no state twice; a number outside the pool, as a
 * negative one, makes the row padding: out is 0, no state is touched. */
typedef struct clm_causal_conv1d_update_args {
  clm_tensor state;  /* (batch or pool, channels, size)               f32 or as x, read and written */
  clm_tensor x;      /* (batch, channels) or (batch, steps, channels)                        */
  clm_tensor weight; /* (channels, width)                             f32 or as x            */
  clm_tensor bias;   /* optional (channels)                           f32 or as x            */
  clm_tensor out;    /* shape of x                                    as x, written          */
  bool silu;

  clm_tensor cache_seqlens; /* optional (batch)   i32: steps before this call, 0 or more; the state is circular */
  clm_tensor state_indices; /* optional (batch)   i32: which state of the pool                                  */
} clm_causal_conv1d_update_args;

CLM_API clm_status clm_causal_conv1d_update(clm_context *context, const clm_causal_conv1d_update_args *args);

CLM_END_DECLS

#endif
