/* The operations that run on OpenCL; a slot left out is answered by src/ops with CLM_UNSUPPORTED. */
#include "backend/opencl/ops.h"
#include "backend/opencl/opencl.h"

const backend_ops opencl_ops = {
    .selective_scan = opencl_selective_scan,
    .selective_scan_workspace = opencl_selective_scan_workspace,
};
