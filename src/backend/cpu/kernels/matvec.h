/* Products of few rows of a with a matrix that is stored along k: what a step of generation does. */
#ifndef CLM_CPU_MATVEC_H
#define CLM_CPU_MATVEC_H

#include "kernels.h"

#define matvec_fits KERNEL(matvec_fits)
bool matvec_fits(const matmul_shape *s, const clm_matmul_args *args);

#define matvec KERNEL(matvec)
clm_status matvec(clm_context *, const matmul_shape *, const clm_matmul_args *);

#endif
