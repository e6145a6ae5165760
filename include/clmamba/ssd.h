/* State space dual: the selective scan of Mamba-2 (Dao & Gu 2024; the semantics of the reference package's
 * mamba_chunk_scan_combined). A head shares its decay, so that chunks of steps become matrix products. */
#ifndef CLMAMBA_SSD_H
#define CLMAMBA_SSD_H

#include <clmamba/tensor.h>

CLM_BEGIN_DECLS

/* For each head h, with group g = h / (n_heads / n_groups):
 *
 *   d[t]    = clamp(softplus(dt[t] + dt_bias), dt_min, dt_max)     softplus only if asked for, and only where its
 *                                                                  argument <= 20; clamp only if there are limits
 *   S[t]    = exp(d[t] A) S[t-1] + d[t] x[t] B[t]^T                (head_dim, d_state), S[-1] = initial_state
 *   out[t]  = (S[t] C[t] + D x[t]) * silu(z[t])
 *
 * Several sequences in one row, and padding, by seq_idx or cu_seqlens: as in clmamba/selective_scan.h.
 *
 * All arithmetic is fp32 whatever the storage type. Optional members are left zeroed. Nothing is written when the
 * status is not CLM_OK. Outputs may not overlap inputs. Bitwise deterministic on a device.
 * Thread safety: one call at a time per context. */
typedef struct clm_ssd_args {
  clm_tensor x;             /* (batch, length, n_heads, head_dim)                                                   */
  clm_tensor dt;            /* (batch, length, n_heads)                     as x                                    */
  clm_tensor A;             /* (n_heads)                                    f32 or as x; log(-A) if A_is_log        */
  clm_tensor B, C;          /* (batch, length, n_groups, d_state)           as x                                    */
  clm_tensor D;             /* optional (n_heads) or (n_heads, head_dim)    f32 or as x                             */
  clm_tensor z;             /* optional (batch, length, n_heads, head_dim)  as x                                    */
  clm_tensor dt_bias;       /* optional (n_heads)                           f32 or as x                             */
  clm_tensor initial_state; /* optional (batch, n_heads, head_dim, d_state) f32                                     */
  clm_tensor seq_idx;       /* optional (batch, length)                     i32: packed sequences and padding       */
  clm_tensor cu_seqlens;    /* optional (sequences + 1)                     i32: packed sequences; batch is 1, states
                               have a row for each sequence                                                         */
  clm_tensor out;           /* (batch, length, n_heads, head_dim)           as x, written                           */
  clm_tensor final_state;   /* optional (batch, n_heads, head_dim, d_state) f32, written; may be initial_state      */
  float dt_min, dt_max;     /* limits of d; both 0: none                                                            */
  int64_t chunk;            /* steps in a chunk; 0: the backend's choice. With an equal non-zero chunk, a sequence
                               split at its multiples gives the same bits as one call                               */
  bool dt_softplus;
  bool A_is_log; /* A holds log(-A), as Mamba's parameter A_log does; its gradient is that of A_log       */
  bool reverse;  /* from the last step to the first                                                       */
} clm_ssd_args;

CLM_API clm_status clm_ssd(clm_context *context, const clm_ssd_args *args);

/* Gradients of the above. `forward` as in the forward call (out and final_state are not read). Every gradient is
 * optional (zeroed: not computed), has the shape of what it is the gradient of, and is overwritten. Where a limit
 * holds d, no gradient passes to dt. Bitwise deterministic on a device. */
typedef struct clm_ssd_backward_args {
  clm_ssd_args forward;
  clm_tensor dout;           /* (batch, length, n_heads, head_dim)           as x                       */
  clm_tensor dfinal_state;   /* optional (batch, n_heads, head_dim, d_state) f32: gradient coming in    */
  clm_tensor dx, dz;         /* (batch, length, n_heads, head_dim)           as x                       */
  clm_tensor ddt;            /* (batch, length, n_heads)                     as x                       */
  clm_tensor dB, dC;         /* (batch, length, n_groups, d_state)           f32 or as x                */
  clm_tensor dA, ddt_bias;   /* (n_heads)                                    f32 or as x                */
  clm_tensor dD;             /* (n_heads) or (n_heads, head_dim)             f32 or as x             */
  clm_tensor dinitial_state; /* (batch, n_heads, head_dim, d_state)          f32                        */
  clm_tensor out;            /* (batch, length, n_heads, head_dim)           as x: the forward output, recomputed on
                                the way                                                                     */
} clm_ssd_backward_args;

CLM_API clm_status clm_ssd_backward(clm_context *context, const clm_ssd_backward_args *args);

/* Bytes of the context's workspace that a call with these arguments takes. 0 when the arguments are invalid. */
CLM_API size_t clm_ssd_workspace_size(clm_context *context, const clm_ssd_args *args);
CLM_API size_t clm_ssd_backward_workspace_size(clm_context *context, const clm_ssd_backward_args *args);

CLM_END_DECLS

#endif
