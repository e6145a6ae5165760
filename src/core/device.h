/* How a context comes into being: shared by core/context.c and the OpenCL backend's entry for a host's own queue. */
#ifndef CLM_CORE_DEVICE_H
#define CLM_CORE_DEVICE_H

#include <clmamba/context.h>

#define OPENCL_FIRST    (-1) /* the first GPU or accelerator, else the first usable device */
#define OPENCL_GPU_ONLY (-2) /* the first GPU or accelerator, else CLM_NO_DEVICE           */

/* An empty context with log and options kept; context_made frees it again if `status` says that creation failed. */
clm_status context_new(const clm_context_options *options, clm_context **context);
clm_status context_made(clm_status status, const clm_context_options *options, clm_context **context);

#endif
