/* Matrix product with an epilogue, so that a block needs no separate elementwise pass.
 * Bitwise deterministic on a device. Thread safety: one call at a time per context. */
#ifndef CLMAMBA_MATMUL_H
#define CLMAMBA_MATMUL_H

#include <clmamba/tensor.h>

CLM_BEGIN_DECLS

typedef enum clm_activation { CLM_ACTIVATION_NONE, CLM_ACTIVATION_SILU, CLM_ACTIVATION_SOFTPLUS } clm_activation;

/* How f32 operands may be multiplied. Operands of 16 bits are multiplied exactly in any case. */
typedef enum clm_math {
  CLM_MATH_F32,  /* errors no larger than twice those of a chain of f32 fused multiply-adds     */
  CLM_MATH_TF32, /* f32 operands may be rounded to 10 bits of fraction, where that is faster    */
  CLM_MATH_BF16, /* likewise, to bf16: as for f32 weights beside activations in bf16            */
  CLM_MATH_F16   /* likewise, to f16; what f16 cannot hold becomes infinite                     */
} clm_math;

/*   out = activation(scale (a b) + bias) + residual        (accumulate: out is added to what it held)
 * A batch of products has a leading dimension in out, in residual, and in a or b or both; an operand without it, or
 * with stride 0 along it, is shared by all products.
 * Of a b in i8 column j is b_scale[j] times its integers: a weight of (n, k) quantised by rows, transposed.
 * A transposed operand is a transposed view (clm_tensor_transpose). Products accumulate in fp32.
 * Fast where each matrix has one dimension of stride 1; correct for any strides. */
typedef struct clm_matmul_args {
  clm_tensor a;        /* (m, k) or (batch, m, k)                   */
  clm_tensor b;        /* (k, n) or (batch, k, n)   f32, 16-bit or i8 */
  clm_tensor bias;     /* optional (n)      f32                     */
  clm_tensor residual; /* optional          as out; may be out      */
  clm_tensor out;      /* (m, n) or (batch, m, n)   written         */
  float scale;         /* 0 means 1                                 */
  clm_activation activation;
  bool accumulate;    /* only with no bias, activation or residual */
  clm_tensor b_scale; /* (n)               f32; where b is i8, and only there */
  clm_math math;
} clm_matmul_args;

CLM_API clm_status clm_matmul(clm_context *context, const clm_matmul_args *args);

CLM_END_DECLS

#endif
