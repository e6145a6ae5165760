/* RMSNorm (Zhang & Sennrich 2019) and LayerNorm (Ba et al. 2016) over the last dimension, and RMSNorm with a gate.
 * Bitwise deterministic on a device. Thread safety: one call at a time per context. */
#ifndef CLMAMBA_NORM_H
#define CLMAMBA_NORM_H

#include <clmamba/tensor.h>

CLM_BEGIN_DECLS

typedef enum clm_norm_kind { CLM_RMS_NORM, CLM_LAYER_NORM } clm_norm_kind;

/*   rms:   out = s / sqrt(mean(s^2) + epsilon) * weight + bias                     with s = x + residual
 *   layer: out = (s - mean(s)) / sqrt(var(s) + epsilon) * weight + bias
 *
 * With residual_out it is the reference package's prenorm: the residual stream goes on as s, which is rounded to the
 * dtype of residual_out; the norm is of s before that. Matrices are f32, f16 or bf16, each its own. */
typedef struct clm_norm_args {
  clm_tensor x;      /* (rows, dim)                  */
  clm_tensor weight; /* optional (dim)   f32 or as x */
  clm_tensor bias;   /* optional (dim)   f32 or as x */
  clm_tensor out;    /* (rows, dim)      written; may be x */
  float epsilon;
  clm_norm_kind kind;

  clm_tensor residual;     /* optional (rows, dim)   added to x                          */
  clm_tensor residual_out; /* optional (rows, dim)   s, written; may be residual, or x   */
} clm_norm_args;

CLM_API clm_status clm_norm(clm_context *context, const clm_norm_args *args);

/* Gradients; optional ones are zeroed tensors, those given are overwritten. The statistics are recomputed from x and
 * residual, or from s alone where the caller kept residual_out: it is x then, without a residual. The gradient of s
 * is that of both x and residual. */
typedef struct clm_norm_backward_args {
  clm_norm_args forward; /* out and residual_out are not read                                         */
  clm_tensor dout;       /* (rows, dim)                                                               */
  clm_tensor residual;   /* optional (rows, dim)   added to dx: the skip connection's gradient, that of residual_out;
                            may be dx or dresidual                                                    */
  clm_tensor dx;         /* (rows, dim)            as x                                               */
  clm_tensor dweight;    /* (dim)                  f32 or as x                                        */
  clm_tensor dbias;      /* (dim)                  f32 or as x                                        */

  clm_tensor dresidual; /* (rows, dim)            as forward.residual                                */
} clm_norm_backward_args;

CLM_API clm_status clm_norm_backward(clm_context *context, const clm_norm_backward_args *args);

/* RMSNorm with a gate, of groups of neighbouring columns (Dao & Gu 2024, section 7: what Mamba-2 has before
 * out_proj).
 *
 *   out = norm(x * silu(z)) * weight                  norm(s) = s / sqrt(mean of its group(s^2) + epsilon)
 *   out = norm(x) * weight * silu(z)                  with norm_before_gate
 *
 * Any strides. All arithmetic is fp32 whatever the storage type. */
typedef struct clm_gated_norm_args {
  clm_tensor x;      /* (rows, dim)           f32, f16 or bf16                  */
  clm_tensor z;      /* (rows, dim)           as x                              */
  clm_tensor weight; /* optional (dim)        f32 or as x                       */
  clm_tensor out;    /* (rows, dim)           as x, written; may be x or z      */
  float epsilon;
  int64_t n_groups; /* a group has dim / n_groups columns; 0 means 1 */
  bool norm_before_gate;
} clm_gated_norm_args;

CLM_API clm_status clm_gated_norm(clm_context *context, const clm_gated_norm_args *args);

/* Gradients; optional ones are zeroed tensors, those given are overwritten. */
typedef struct clm_gated_norm_backward_args {
  clm_gated_norm_args forward; /* out is not read                                                     */
  clm_tensor dout;             /* (rows, dim)            as x                                         */
  clm_tensor dx, dz;           /* optional (rows, dim)   as x                                         */
  clm_tensor dweight;          /* optional (dim)         f32 or as x                                  */
  clm_tensor out;              /* optional (rows, dim)   as x: the forward output, recomputed on the way */
} clm_gated_norm_backward_args;

CLM_API clm_status clm_gated_norm_backward(clm_context *context, const clm_gated_norm_backward_args *args);

CLM_END_DECLS

#endif
