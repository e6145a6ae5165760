/* Selective scan: the operation at the heart of Mamba (Gu & Dao 2023, section 3.2; the semantics of the reference
 * package's selective_scan_fn), and its single-step form for generation. */
#ifndef CLMAMBA_SELECTIVE_SCAN_H
#define CLMAMBA_SELECTIVE_SCAN_H

#include <clmamba/tensor.h>

CLM_BEGIN_DECLS

/*   dt   = softplus(delta + delta_bias)              softplus only if asked for, and only where its argument <= 20
 *   h[t] = exp(dt[t] A) h[t-1] + dt[t] B[t] u[t]      h[-1] = initial_state
 *   out  = (sum_n C[t] h[t] + D u[t]) * silu(z[t])
 *
 * Complex A (c64) represents itself and its conjugate: y = 2 Re(sum_n C[t] h[t]); B and C that vary are c64 then.
 *
 * Several sequences in one row, and padding. Either, not both:
 *   seq_idx     which sequence a step belongs to. The state starts again from zero where the number differs from that
 *               of the nearest step before that has one; the first sequence of a row starts from initial_state. A
 *               negative number is padding: out is 0 there, the state stays as it is, gradients are 0.
 *   cu_seqlens  batch is 1, sequence i has the steps cu_seqlens[i] to cu_seqlens[i + 1] - 1 (it may be empty), the
 *               first number is 0, the last is length. initial_state, final_state and their gradients are then
 *               (sequences, d_inner, d_state). Other numbers make out wrong, but touch no memory outside the tensors.
 *
 * All arithmetic is fp32 whatever the storage type. Optional members are left zeroed. Nothing is written when the
 * status is not CLM_OK. Outputs may not overlap inputs. Bitwise deterministic on a device.
 * Thread safety: one call at a time per context. */
typedef struct clm_selective_scan_args {
  clm_tensor u;     /* (batch, length, d_inner)                                                             */
  clm_tensor delta; /* (batch, length, d_inner)                      as u                                   */
  clm_tensor A;     /* (d_inner, d_state)                            f32, as u or c64; log(-A) if A_is_log  */
  clm_tensor B, C;  /* (batch, length, n_groups, d_state) as u, or the same for all steps, (d_inner, d_state): f32 or
                       as u; all c64 with a complex A                                                        */
  clm_tensor D;     /* optional (d_inner)                            f32 or as u                            */
  clm_tensor z;     /* optional (batch, length, d_inner)             as u                                   */
  clm_tensor delta_bias;    /* optional (d_inner)                            f32 or as u                            */
  clm_tensor initial_state; /* optional (batch, d_inner, d_state)            f32; c64 with a complex A              */
  clm_tensor out;           /* (batch, length, d_inner)                      as u, written                          */
  clm_tensor final_state;   /* optional (batch, d_inner, d_state)            as that, written; may be initial_state */
  int64_t chunk;            /* steps in a chunk; 0: the scheduler's choice. With an equal non-zero chunk, a sequence
                               split at its multiples gives the same bits as one call                               */
  bool delta_softplus;
  bool A_is_log; /* A holds log(-A), as Mamba's parameter A_log does; its gradient is that of A_log       */

  clm_tensor gate;       /* optional (batch, length, d_inner)             as u: g, the decay is exp(dt g A)       */
  clm_tensor seq_idx;    /* optional (batch, length)                      i32: packed sequences and padding, below  */
  clm_tensor cu_seqlens; /* optional (sequences + 1)                      i32: packed sequences, below              */
  bool reverse;          /* from the last step to the first: "before" means "after" throughout                      */
} clm_selective_scan_args;

CLM_API clm_status clm_selective_scan(clm_context *context, const clm_selective_scan_args *args);

/* Gradients of the above. `forward` as in the forward call (out, final_state and chunk are not read: the gradient
 * cuts the sequence as it likes, so that no chunk makes it split bit for bit; the recomputed out is that of another
 * chunk, within rounding). Every gradient is optional (zeroed: not computed), has the shape of what it is the
 * gradient of, and is overwritten. With a complex A those of A, B, C and the states are c64. Bitwise deterministic
 * on a device. */
typedef struct clm_selective_scan_backward_args {
  clm_selective_scan_args forward;
  clm_tensor dout;         /* (batch, length, d_inner)                     as u                                    */
  clm_tensor dfinal_state; /* optional (batch, d_inner, d_state)           f32: gradient coming in                 */
  clm_tensor du, ddelta, dz; /* (batch, length, d_inner)                     as u */
  clm_tensor dA;     /* (d_inner, d_state)                           f32 or as u                             */
  clm_tensor dB, dC; /* shape of B, C                                f32 or as u                             */
  clm_tensor dD, ddelta_bias; /* (d_inner)                                   f32 or as u */
  clm_tensor dinitial_state;  /* (batch, d_inner, d_state)                    f32  */
  clm_tensor out;             /* (batch, length, d_inner)                     as u: the forward output, recomputed on
                                 the way (saves a caller that recomputes activations a whole pass)                    */
  clm_tensor dgate; /* (batch, length, d_inner)                     as u                                    */
} clm_selective_scan_backward_args;

CLM_API clm_status clm_selective_scan_backward(clm_context *context, const clm_selective_scan_backward_args *args);

/* Bytes of the context's workspace that a call with these arguments takes. 0 when the arguments are invalid. */
CLM_API size_t clm_selective_scan_workspace_size(clm_context *context, const clm_selective_scan_args *args);
CLM_API size_t clm_selective_scan_backward_workspace_size(clm_context *context,
                                                          const clm_selective_scan_backward_args *args);

/* One step of the scan, or several in one call, with the state updated in place (the reference's
 * selective_state_update): members as above, in one of two forms.
 *   channels   state has rank 3, sizes as below. Group g of B and C serves channels g d_inner / n_groups and on.
 *   heads      state has rank 4, and n_heads, head_dim stand wherever d_inner does; groups serve heads. What a head
 *              shares (Mamba-2: A, delta, D and delta_bias) is a view with strides 0.
 * Several steps are a dimension after batch in u, delta, B, C, z and out.
 * With state_indices row i works on state state_indices[i] of a pool, no state twice; a number outside the pool, as a
 * negative one, makes the row padding: out is 0, no state is touched.
 * Every tensor but out may be f32, f16 or bf16, each its own. A complex A (c64) makes state, B and C c64. The state
 * is rounded to its dtype once a call. Optional members are left zeroed. Bitwise deterministic on a device. Thread
 * safety: one call at a time per context. */
typedef struct clm_selective_state_update_args {
  clm_tensor state;      /* (batch or pool, d_inner, d_state)       read and written       */
  clm_tensor u, delta;   /* (batch, d_inner) or (batch, steps, d_inner)                    */
  clm_tensor A;          /* (d_inner, d_state)                      or c64                 */
  clm_tensor B, C;       /* (batch, n_groups, d_state) or (batch, steps, n_groups, d_state) */
  clm_tensor D;          /* optional (d_inner)                                             */
  clm_tensor z;          /* optional, shape of u                                           */
  clm_tensor delta_bias; /* optional (d_inner)                                             */
  clm_tensor out;        /* shape of u                              as u, written          */
  bool delta_softplus;
  bool A_is_log;

  clm_tensor state_indices; /* optional (batch)                     i32                           */
} clm_selective_state_update_args;

CLM_API clm_status clm_selective_state_update(clm_context *context, const clm_selective_state_update_args *args);

/* Gradients of the above. `forward` as in that call, with the state from before it, which is only read; out is not
 * read. Every gradient is optional (zeroed: not computed) and overwritten, and has the shape of what it is the
 * gradient of; those of states have batch rows also where state_indices is given. Padding rows have gradients 0. What
 * a head shares gets its gradient element by element: the caller adds them up. Bitwise deterministic on a device. */
typedef struct clm_selective_state_update_backward_args {
  clm_selective_state_update_args forward;
  clm_tensor dout;            /* shape of u                                   as u                       */
  clm_tensor dnew_state;      /* optional (batch, d_inner, d_state)           f32 or c64: coming in      */
  clm_tensor du, ddelta, dz;  /* shape of u                                   as u, as delta, as z       */
  clm_tensor dA;              /* (d_inner, d_state)                           f32, f16, bf16; or c64     */
  clm_tensor dB, dC;          /* shape of B, C                                f32, f16, bf16; or c64     */
  clm_tensor dD, ddelta_bias; /* (d_inner)                                    f32, f16, bf16             */
  clm_tensor dstate;          /* (batch, d_inner, d_state)                    f32 or c64: of that before */
} clm_selective_state_update_backward_args;

CLM_API clm_status clm_selective_state_update_backward(clm_context *context,
                                                       const clm_selective_state_update_backward_args *args);

CLM_END_DECLS

#endif
