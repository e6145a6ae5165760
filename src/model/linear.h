/* A linear layer, as PyTorch keeps it: weight (outputs, inputs). Matrices are (rows, features) views. Beside an input
 * in 16 bits f32 weights and gradients may be multiplied as that (linear_math). */
#ifndef CLM_MODEL_LINEAR_H
#define CLM_MODEL_LINEAR_H

#include <clmamba/matmul.h>

typedef struct linear {
  clm_tensor input, weight;
  clm_tensor scale;          /* of each row of a weight in i8  */
  clm_tensor bias, residual; /* optional              */
  clm_tensor out;            /* factor input weight^T + bias + residual */
  float factor;              /* 0 means 1 */
} linear;

/* How products with activations of this dtype may be made. */
clm_math linear_math(clm_dtype activations);

clm_status linear_forward(clm_context *context, const linear *l);

typedef struct linear_gradients {
  clm_tensor dout;
  clm_tensor dinput;         /* optional                          */
  bool accumulate_dinput;    /* added to what dinput holds        */
  clm_tensor dweight, dbias; /* optional                          */
  bool accumulate_dweight;
} linear_gradients;

clm_status linear_backward(clm_context *context, const linear *l, const linear_gradients *g);

/* (..., features) as (rows, features); the tensor must be contiguous. */
clm_tensor rows_of(clm_tensor tensor);

#endif
