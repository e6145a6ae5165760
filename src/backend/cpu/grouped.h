/* Grouped products as products one after another: each expert's rows lie together, and no other weight is read. */
#ifndef CLM_CPU_GROUPED_H
#define CLM_CPU_GROUPED_H

#include "backend/backend.h"

typedef clm_status cpu_product(clm_context *, const matmul_shape *, const clm_matmul_args *);

clm_status cpu_grouped_matmul(clm_context *, const grouped_shape *, const clm_grouped_matmul_args *, cpu_product *);
clm_status cpu_grouped_matmul_backward(clm_context *, const grouped_shape *, const clm_grouped_matmul_backward_args *,
                                       cpu_product *);

#endif
