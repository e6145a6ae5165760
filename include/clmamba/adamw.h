/* AdamW (Loshchilov & Hutter 2017) with clipping by the global norm, all on the device.
 * Bitwise deterministic on a device. Thread safety: one call at a time per context. */
#ifndef CLMAMBA_ADAMW_H
#define CLMAMBA_ADAMW_H

#include <clmamba/tensor.h>

CLM_BEGIN_DECLS

/*   g = gradient * gradient_scale * min(1, max_norm / (gradient_scale sqrt(sum_squares) + 1e-6))
 *   m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2
 *   parameter -= lr (m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + epsilon) + weight_decay parameter)
 * (PyTorch's order.) Where sum_squares is not finite, nothing is written. */
typedef struct clm_adamw_args {
  clm_tensor parameter;   /* (count)  f32, read and written                                            */
  clm_tensor gradient;    /* (count)  f32, f16 or bf16                                                 */
  clm_tensor m, v;        /* (count)  f32, read and written                                            */
  clm_tensor sum_squares; /* optional (1)  f32: of all gradients, unscaled; absent: no clipping    */
  float lr, beta1, beta2, epsilon, weight_decay;
  float gradient_scale; /* 0 means 1; 1/k after accumulating k gradients                         */
  float max_norm;       /* 0: no clipping                                                        */
  int64_t step;         /* from 1                                                                */
  clm_tensor copy;      /* optional (count)  f32, f16 or bf16, written: parameter as it is after the step, rounded */
} clm_adamw_args;

CLM_API clm_status clm_adamw(clm_context *context, const clm_adamw_args *args);

CLM_END_DECLS

#endif
