/* One single-threaded product: out = alpha a b + beta out (beta 0 does not read it). Of a and b one stride is 1 and
 * the other the length of what it steps over, or more; out has column stride 1. `scratch` has GEMM_SCRATCH floats. */
#define GEMM_ROWS    240 /* maximum of m     */
#define GEMM_DEPTH   192
#define GEMM_SCRATCH (GEMM_DEPTH * (4 * LANES + GEMM_ROWS))
#ifndef CLM_CPU_GEMM_H
#define CLM_CPU_GEMM_H

#include "kernels.h"

typedef struct matrix {
  float *data;
  int64_t row, column; /* strides */
} matrix;

/* x, as it is and turned: rows of `columns` floats. */
INLINE matrix gemm_rows(const float *x, int64_t columns) { return (matrix){(float *)(uintptr_t)x, columns, 1}; }
INLINE matrix gemm_turned(const float *x, int64_t columns) { return (matrix){(float *)(uintptr_t)x, 1, columns}; }

/* out has m rows and n columns, each a sum of k products. */
typedef struct gemm_size {
  int64_t m, n, k;
} gemm_size;

typedef void gemm_fn(gemm_size, float alpha, matrix a, matrix b, float beta, matrix out, float *scratch);

#define gemm_own KERNEL(gemm_own)
gemm_fn gemm_own;

typedef struct gemm_choice {
  gemm_fn *run;
  const char *name;
} gemm_choice;

/* The product of this instruction set, for `threads` threads that call it at once. */
#define gemm_choose KERNEL(gemm_choose)
gemm_choice gemm_choose(int threads);

#endif
