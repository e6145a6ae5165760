/* Working inside a host program's own OpenCL objects. The only public header that needs the OpenCL headers. */
#ifndef CLMAMBA_OPENCL_H
#define CLMAMBA_OPENCL_H

#ifndef CL_TARGET_OPENCL_VERSION
#define CL_TARGET_OPENCL_VERSION 120
#endif
#include <CL/cl.h>
#include <clmamba/buffer.h>

CLM_BEGIN_DECLS

/* A context on the caller's objects, which are retained. `queue` must be in-order and belong to `context` and
 * `device`; with options.profiling it must have CL_QUEUE_PROFILING_ENABLE. options.device is ignored. */
CLM_API clm_status clm_context_create_opencl(cl_context context, cl_device_id device, cl_command_queue queue,
                                             const clm_context_options *options, clm_context **created);

/* A buffer over the caller's memory object, which is retained. */
CLM_API clm_status clm_buffer_wrap_cl_mem(clm_context *context, cl_mem memory, clm_buffer **buffer);

/* Work enqueued from now on starts after these events. */
CLM_API clm_status clm_opencl_wait_for_events(clm_context *context, cl_uint count, const cl_event *events);

/* An event that completes when everything enqueued so far has run; the caller releases it. */
CLM_API clm_status clm_opencl_signal_event(clm_context *context, cl_event *event);

CLM_END_DECLS

#endif
