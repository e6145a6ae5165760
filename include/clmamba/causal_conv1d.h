/* Causal depthwise convolution along the sequence (the semantics of the reference package's causal_conv1d_fn). */
#ifndef CLMAMBA_CAUSAL_CONV1D_H
#define CLMAMBA_CAUSAL_CONV1D_H

#include <clmamba/tensor.h>

CLM_BEGIN_DECLS

/*   s[t] = bias + sum_k weight[k] x[t - (width - 1) + k]     x before the sequence: initial_state, else 0
 *   out  = silu(s) or s
 * Optional members are left zeroed. Outputs may not overlap inputs. */
typedef struct clm_causal_conv1d_args {
  clm_tensor x;             /* (batch, length, channels)                                          */
  clm_tensor weight;        /* (channels, width)               f32, width 1 to 32                 */
  clm_tensor bias;          /* optional (channels)             f32                                */
  clm_tensor initial_state; /* optional (batch, channels, width - 1)  as x: the steps before      */
  clm_tensor out;           /* (batch, length, channels)       as x, written                      */
  clm_tensor final_state;   /* optional (batch, channels, width - 1)  as x, written; may be initial_state */
  bool silu;
} clm_causal_conv1d_args;

CLM_API clm_status clm_causal_conv1d(clm_context *context, const clm_causal_conv1d_args *args);

/* Gradients; `forward` as in the forward call (out and final_state are not read). Optional gradients are zeroed
 * tensors; those given are overwritten. */
typedef struct clm_causal_conv1d_backward_args {
  clm_causal_conv1d_args forward;
  clm_tensor dout;           /* (batch, length, channels)                 as x                     */
  clm_tensor dfinal_state;   /* optional (batch, channels, width - 1)     as x: gradient coming in */
  clm_tensor dx;             /* (batch, length, channels)                 as x                     */
  clm_tensor dweight;        /* (channels, width)                         f32                      */
  clm_tensor dbias;          /* (channels)                                f32                      */
  clm_tensor dinitial_state; /* (batch, channels, width - 1)              as x                     */
} clm_causal_conv1d_backward_args;

CLM_API clm_status clm_causal_conv1d_backward(clm_context *context, const clm_causal_conv1d_backward_args *args);

/* One step with the state, the last width - 1 inputs oldest first, updated in place. */
typedef struct clm_causal_conv1d_update_args {
  clm_tensor state;  /* (batch, channels, width - 1)   as x, read and written */
  clm_tensor x;      /* (batch, channels)                                     */
  clm_tensor weight; /* (channels, width)              f32                    */
  clm_tensor bias;   /* optional (channels)            f32                    */
  clm_tensor out;    /* (batch, channels)              as x, written          */
  bool silu;
} clm_causal_conv1d_update_args;

CLM_API clm_status clm_causal_conv1d_update(clm_context *context, const clm_causal_conv1d_update_args *args);

CLM_END_DECLS

#endif
