/* Stands in for the OpenCL backend in a build without OpenCL. */
#include "core/context.h"
#include "core/device.h"

clm_status backend_opencl_create(clm_context *ctx, const clm_context_options *options, int index) {
  (void)index;
  const char *device = options && options->device ? options->device : "opencl";
  return context_fail(ctx, CLM_NO_DEVICE, "device \"%s\": this build of clmamba has no OpenCL backend", device);
}

clm_status clm_devices(clm_device_info *devices, size_t capacity, size_t *count) {
  if (!count || (capacity && !devices)) return CLM_INVALID_ARGUMENT;
  (void)devices, (void)capacity;
  *count = 0;
  return CLM_OK;
}
