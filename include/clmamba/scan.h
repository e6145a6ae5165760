/* The two building blocks of a linear state-space model as operations of their own: discretization and the
 * associative scan (Blelloch 1990).
 * Bitwise deterministic on a device. Thread safety: one call at a time per context. */
#ifndef CLMAMBA_SCAN_H
#define CLMAMBA_SCAN_H

#include <clmamba/tensor.h>

CLM_BEGIN_DECLS

typedef enum clm_discretization {
  CLM_ZOH,      /* A_bar = exp(dt A)                       B_bar = dt expm1(dt A)/(dt A) B, dt B where A = 0 */
  CLM_EULER,    /* A_bar = exp(dt A)                       B_bar = dt B    (what Mamba uses)                */
  CLM_BILINEAR, /* A_bar = (1 + dt A/2)/(1 - dt A/2)       B_bar = dt/(1 - dt A/2) B                        */
} clm_discretization;

/* Diagonal (A, B) in continuous time and a step per (batch, length, channel) give the discrete pair. */
typedef struct clm_discretize_args {
  clm_tensor delta; /* (batch, length, d_inner)           f32, f16 or bf16                                    */
  clm_tensor A;     /* (d_inner, d_state)                 f32, as delta or c64                                */
  clm_tensor B;     /* (batch, length, d_state)           f32 or as delta; c64 with a complex A;
                       or (d_inner, d_state)              likewise                                            */
  clm_tensor A_bar; /* (batch, length, d_inner, d_state)  likewise, written                                   */
  clm_tensor B_bar; /* (batch, length, d_inner, d_state)  as A_bar, written                                   */
  clm_discretization method;
} clm_discretize_args;

CLM_API clm_status clm_discretize(clm_context *context, const clm_discretize_args *args);

/* Gradients; a complex gradient is dL/dRe + i dL/dIm. Optional gradients are zeroed; those given are overwritten. */
typedef struct clm_discretize_backward_args {
  clm_discretize_args forward; /* A_bar and B_bar are not read */
  clm_tensor dA_bar;           /* optional (batch, length, d_inner, d_state)  f32 or as delta; c64 with c64 A */
  clm_tensor dB_bar;           /* optional (batch, length, d_inner, d_state)  likewise                          */
  clm_tensor ddelta;           /* (batch, length, d_inner)                    as delta                          */
  clm_tensor dA;               /* (d_inner, d_state)                          f32 or as delta; c64 with c64 A */
  clm_tensor dB;               /* shape of B                                  f32, or as B                      */
} clm_discretize_backward_args;

CLM_API clm_status clm_discretize_backward(clm_context *context, const clm_discretize_backward_args *args);

/* First-order recurrence over `length`, independently for every (batch, channel):
 *     h[t] = a[t] h[t-1] + b[t],  h[-1] = initial (0 if absent)
 * by the associative operator (a1, b1) . (a2, b2) = (a1 a2, a2 b1 + b2). `reverse` runs from the last step to the
 * first; `exclusive` writes h[t-1] (in the direction of the run) at t. */
typedef struct clm_assoc_scan_args {
  clm_tensor a, b;    /* (batch, length, channels)   f32, f16, bf16 or c64    */
  clm_tensor initial; /* optional (batch, channels)  f32, c64 with c64        */
  clm_tensor h;       /* (batch, length, channels)   as a, written            */
  clm_tensor final;   /* optional (batch, channels)  as initial, written      */
  bool reverse;
  bool exclusive;
} clm_assoc_scan_args;

CLM_API clm_status clm_assoc_scan(clm_context *context, const clm_assoc_scan_args *args);

typedef struct clm_assoc_scan_backward_args {
  clm_assoc_scan_args forward; /* h is not read, final is not read              */
  clm_tensor dh;               /* (batch, length, channels)   as a              */
  clm_tensor dfinal;           /* optional (batch, channels)  as final: coming in */
  clm_tensor da, db;           /* (batch, length, channels)   as a              */
  clm_tensor dinitial;         /* (batch, channels)           as initial        */
} clm_assoc_scan_backward_args;

CLM_API clm_status clm_assoc_scan_backward(clm_context *context, const clm_assoc_scan_backward_args *args);

CLM_END_DECLS

#endif
