/* The inside of a Mamba block in one call (the reference package's mamba_inner_fn): everything between in_proj's
 * output and the residual stream, with recomputation in the backward pass.
 * Bitwise deterministic on a device. Thread safety: one call at a time per context. */
#ifndef CLMAMBA_MAMBA_INNER_H
#define CLMAMBA_MAMBA_INNER_H

#include <clmamba/matmul.h>

CLM_BEGIN_DECLS

/*   (x, z)     = both parts of xz
 *   u          = silu(causal_conv1d(x, conv_weight, conv_bias))
 *   (dt, B, C) = parts of dbc = u x_proj^T                         features = dt_rank + 2 n_groups d_state
 *   dt, B, C   = each its RMS norm, where asked for                (FalconMamba: all three, without weights)
 *   delta      = dt dt_proj^T
 *   y          = selective_scan(u, delta, A, B, C, D, z, delta_bias)
 *   out        = y out_proj^T + out_bias + residual                or y, without out_proj
 *
 * B and C may each be given instead, the same for all steps; x_proj then has no rows for it, and no norm is taken of
 * it. With both given n_groups is 1. A complex A (c64) makes the states and what is given of B and C c64; what x_proj
 * makes of them are pairs of real and imaginary part, so that d_state counts twice in the features. No norms then.
 *
 * The backward pass needs u, dbc and delta. Each that is given here is written by the forward pass and read by the
 * backward pass; each that is absent is computed again there: from all three (fastest) to none (minimum memory).
 * Arithmetic is fp32 whatever the storage. Except in xz and dxz, batch and length must be contiguous together, so
 * that they are the rows of a matrix. Optional members are left zeroed. Nothing is written when an argument is
 * refused or a device lacks a piece. */
typedef struct clm_mamba_inner_args {
  clm_tensor xz;          /* (batch, length, 2 d_inner)           f32, f16 or bf16                     */
  clm_tensor conv_weight; /* (d_inner, width)                     f32 or as xz                         */
  clm_tensor conv_bias;   /* optional (d_inner)                   f32 or as xz                         */
  clm_tensor x_proj;      /* (features, d_inner)                  f32, 16-bit or i8                    */
  clm_tensor dt_proj;     /* (d_inner, dt_rank)                   f32, 16-bit or i8                    */
  clm_tensor delta_bias;  /* optional (d_inner)                   f32 or as xz                         */
  clm_tensor A;           /* (d_inner, d_state)                   f32, as xz or c64; log(-A) if A_is_log */
  clm_tensor D;           /* optional (d_inner)                   f32 or as xz                         */
  clm_tensor out_proj;    /* optional (d_model, d_inner)          f32, 16-bit or i8                    */
  clm_tensor out_bias;    /* optional (d_model)                   f32 or as xz; only with out_proj     */
  clm_tensor residual;    /* optional (batch, length, d_model)    as out; only with out_proj           */
  clm_tensor out;         /* (batch, length, d_model or d_inner)  as xz, with out_proj also f32 or 16-bit;
                             written; may be residual                                                  */
  clm_tensor delta_norm, B_norm, C_norm; /* optional (dt_rank), (d_state) x 2    f32 or as xz: of the norms */
  clm_tensor conv_initial, conv_final;   /* optional (batch, d_inner, width - 1) f32 or as xz; final written, may be
                                            initial */
  clm_tensor scan_initial, scan_final;   /* optional (batch, d_inner, d_state)   f32, c64 with a complex A; final
                                            written, may be initial */
  clm_tensor u, delta; /* optional (batch, length, d_inner)    as xz: kept for the backward pass    */
  clm_tensor dbc;      /* optional (batch, length, features)   as xz: kept for the backward pass    */
  float norm_epsilon;
  bool norm_delta, norm_B, norm_C;
  bool delta_softplus;
  bool A_is_log;
  clm_tensor seq_idx;    /* optional (batch, length)      i32: packed sequences and padding,              */
  clm_tensor cu_seqlens; /* optional (sequences + 1)      i32: packed sequences; states then (sequences, ...) */
  bool reverse;          /* all three as convolution and scan have them (clmamba/selective_scan.h)        */
  clm_tensor x_proj_scale, dt_proj_scale, out_proj_scale; /* (features), (d_inner), (d_model)  f32: of each row of a
                            matrix in i8, and only there (clmamba/matmul.h); the backward pass takes no i8 */

  clm_tensor B, C; /* optional (d_inner, d_state)          f32 or as xz, c64 with a complex A: instead of x_proj's */

  clm_math math; /* of the products: how f32 weights, beside an xz in 16 bits, may be multiplied */
} clm_mamba_inner_args;

CLM_API clm_status clm_mamba_inner(clm_context *context, const clm_mamba_inner_args *args);

/* Gradients; each is optional (zeroed: not computed), has the shape of what it is the gradient of, and is
 * overwritten. The residual's is dout. `forward` as in the forward call; out and the final states are not read, the
 * initial states must be what they were. */
typedef struct clm_mamba_inner_backward_args {
  clm_mamba_inner_args forward;
  clm_tensor dout;                     /* as xz, with out_proj also f32 or 16-bit   */
  clm_tensor dconv_final;              /* optional, f32 or as xz: coming in         */
  clm_tensor dscan_final;              /* optional, as scan_final: coming in        */
  clm_tensor dxz;                      /* as xz                                     */
  clm_tensor dconv_weight, dconv_bias; /* f32 or as xz, as all that follow but initial states; dA as A is complex */
  clm_tensor dx_proj, ddt_proj, ddelta_bias, dA, dD;
  clm_tensor dout_proj, dout_bias;
  clm_tensor ddelta_norm, dB_norm, dC_norm;
  clm_tensor dconv_initial; /* f32 or as xz                              */
  clm_tensor dscan_initial; /* f32, c64 with a complex A                 */

  clm_tensor dB, dC; /* of the B and C that are given; c64 with a complex A */
} clm_mamba_inner_backward_args;

CLM_API clm_status clm_mamba_inner_backward(clm_context *context, const clm_mamba_inner_backward_args *args);

/* Bytes of the context's workspace that a call takes, the scan's inside it included. 0 if the arguments are invalid.
 */
CLM_API size_t clm_mamba_inner_workspace_size(clm_context *context, const clm_mamba_inner_args *args);
CLM_API size_t clm_mamba_inner_backward_workspace_size(clm_context *context,
                                                       const clm_mamba_inner_backward_args *args);

CLM_END_DECLS

#endif
