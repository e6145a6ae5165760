/* RMSNorm (Zhang & Sennrich 2019) and LayerNorm (Ba et al. 2016) over the last dimension.
 * Bitwise deterministic on a device. Thread safety: one call at a time per context. */
#ifndef CLMAMBA_NORM_H
#define CLMAMBA_NORM_H

#include <clmamba/tensor.h>

CLM_BEGIN_DECLS

typedef enum clm_norm_kind { CLM_RMS_NORM, CLM_LAYER_NORM } clm_norm_kind;

/*   rms:   out = x / sqrt(mean(x^2) + epsilon) * weight + bias
 *   layer: out = (x - mean(x)) / sqrt(var(x) + epsilon) * weight + bias */
typedef struct clm_norm_args {
  clm_tensor x;      /* (rows, dim)                  */
  clm_tensor weight; /* optional (dim)   f32 or as x */
  clm_tensor bias;   /* optional (dim)   f32 or as x */
  clm_tensor out;    /* (rows, dim)      as x, written; may be x */
  float epsilon;
  clm_norm_kind kind;
} clm_norm_args;

CLM_API clm_status clm_norm(clm_context *context, const clm_norm_args *args);

/* Gradients; optional ones are zeroed tensors, those given are overwritten. The statistics are recomputed from x. */
typedef struct clm_norm_backward_args {
  clm_norm_args forward; /* out is not read                                                           */
  clm_tensor dout;       /* (rows, dim)            as x                                               */
  clm_tensor residual;   /* optional (rows, dim)   as x: added to dx (the skip connection's gradient); may be dx */
  clm_tensor dx;         /* (rows, dim)            as x                                               */
  clm_tensor dweight;    /* (dim)                  f32 or as x                                        */
  clm_tensor dbias;      /* (dim)                  f32 or as x                                        */
} clm_norm_backward_args;

CLM_API clm_status clm_norm_backward(clm_context *context, const clm_norm_backward_args *args);

CLM_END_DECLS

#endif
