/* Small operations that hold the larger ones together.
 * Bitwise deterministic on a device. Thread safety: one call at a time per context. */
#ifndef CLMAMBA_ELEMENTWISE_H
#define CLMAMBA_ELEMENTWISE_H

#include <clmamba/tensor.h>

CLM_BEGIN_DECLS

/* out = alpha x + beta out; beta 0 does not read out, x absent means 0 (so that {.out, .beta = 0} clears). Same
 * shape, any strides; dtypes may differ, so this also copies and converts. */
typedef struct clm_axpby_args {
  clm_tensor x;   /* optional (...)            */
  clm_tensor out; /* (...)  written; may be x */
  float alpha, beta;
} clm_axpby_args;

CLM_API clm_status clm_axpby(clm_context *context, const clm_axpby_args *args);

/* out = x in another dtype, rounded once, to nearest even: any of f32, f16, bf16 and f64 to any. Numbers below
 * 2^-126, where f32 is subnormal, may become 0. */
typedef struct clm_cast_args {
  clm_tensor x;   /* (...)           */
  clm_tensor out; /* (...)  written  */
} clm_cast_args;

CLM_API clm_status clm_cast(clm_context *context, const clm_cast_args *args);

/* out = residual + x * mask / (1 - rate), mask drawn per element from (seed, element number); the same call with dout
 * for x and no residual is its gradient. */
typedef struct clm_dropout_args {
  clm_tensor x;        /* (...)                        */
  clm_tensor residual; /* optional (...)               */
  clm_tensor out;      /* (...)  written; may be x or residual */
  float rate;          /* 0 <= rate < 1                */
  uint64_t seed;
} clm_dropout_args;

CLM_API clm_status clm_dropout(clm_context *context, const clm_dropout_args *args);

/* The activation of a gate. */
typedef enum clm_gate_activation {
  CLM_GATE_SILU,        /* x / (1 + e^-x): SwiGLU                                                        */
  CLM_GATE_GELU,        /* x Phi(x), Phi the normal distribution: GELU-GLU                               */
  CLM_GATE_GELU_TANH,   /* its approximation, x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2          */
  CLM_GATE_RELU_SQUARED /* max(x, 0)^2                                                                   */
} clm_gate_activation;

/* out = activation(gate) up: the gate of an MLP (Shazeer 2020); without `up` the activation alone. Any strides. */
typedef struct clm_swiglu_args {
  clm_tensor gate; /* (rows, dim)          f32, f16 or bf16                    */
  clm_tensor up;   /* optional (rows, dim) as gate                             */
  clm_tensor out;  /* (rows, dim)          as gate, written; may be gate or up */
  clm_gate_activation activation;
} clm_swiglu_args;

CLM_API clm_status clm_swiglu(clm_context *context, const clm_swiglu_args *args);

/* Gradients; optional ones are zeroed tensors, those given are overwritten. */
typedef struct clm_swiglu_backward_args {
  clm_swiglu_args forward; /* out is not read                       */
  clm_tensor dout;         /* (rows, dim)                   as gate */
  clm_tensor dgate, dup;   /* optional (rows, dim)          as gate; dup only with up */
} clm_swiglu_backward_args;

CLM_API clm_status clm_swiglu_backward(clm_context *context, const clm_swiglu_backward_args *args);

/* out[j] = sum_i x[i][j], in a fixed order: the gradient of a bias. */
typedef struct clm_column_sum_args {
  clm_tensor x;   /* (rows, dim)            */
  clm_tensor out; /* (dim)     f32, written */
} clm_column_sum_args;

CLM_API clm_status clm_column_sum(clm_context *context, const clm_column_sum_args *args);

/* out[0] = sum of x^2 over all elements, in a fixed order: for clipping by the global norm. Of parameters that lie in
 * several buffers the sums are added up by calls with `accumulate`. */
typedef struct clm_sum_squares_args {
  clm_tensor x;    /* (count)                */
  clm_tensor out;  /* (1)       f32, written */
  bool accumulate; /* add to what out holds  */
} clm_sum_squares_args;

CLM_API clm_status clm_sum_squares(clm_context *context, const clm_sum_squares_args *args);

CLM_END_DECLS

#endif
