/* One function for each operation, opencl_<name>; each is in the launcher file of its family. */
#ifndef CLM_OPENCL_OPS_H
#define CLM_OPENCL_OPS_H

#include "backend/backend.h"

#define X(name, shape) clm_status opencl_##name(clm_context *, const shape *, const clm_##name##_args *);
BACKEND_OPS(X)
#undef X

clm_status opencl_matmul_batch(clm_context *, const matmul_shape *, const clm_matmul_args *);
size_t opencl_selective_scan_workspace(clm_context *, const selective_scan_shape *, const clm_selective_scan_args *);
size_t opencl_selective_scan_backward_workspace(clm_context *, const selective_scan_shape *,
                                                const clm_selective_scan_backward_args *);
size_t opencl_ssd_workspace(clm_context *, const ssd_shape *, const clm_ssd_args *);
size_t opencl_ssd_backward_workspace(clm_context *, const ssd_shape *, const clm_ssd_backward_args *);

#endif
