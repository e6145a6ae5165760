/* What drivers do not say, or say wrongly. The only file that knows a vendor; everything here is a hint that makes
 * things faster or a mistake that is stepped around, never a condition for right results. */
#include "backend/opencl/opencl.h"
#include <string.h>

#ifndef CL_DEVICE_COMPUTE_CAPABILITY_MAJOR_NV
#define CL_DEVICE_COMPUTE_CAPABILITY_MAJOR_NV 0x4000
#define CL_DEVICE_COMPUTE_CAPABILITY_MINOR_NV 0x4001
#endif
#ifndef CL_DEVICE_WAVEFRONT_WIDTH_AMD
#define CL_DEVICE_WAVEFRONT_WIDTH_AMD 0x4043
#endif

static int32_t ask(cl_device_id id, cl_device_info what) {
  cl_uint value = 0;
  return clGetDeviceInfo(id, what, sizeof value, &value, NULL) == CL_SUCCESS ? (int32_t)value : 0;
}

/* Threads that a multiprocessor holds, by compute capability (CUDA C Programming Guide, technical specifications). */
static int32_t nvidia_resident(cl_device_id id) {
  int32_t capability =
      10 * ask(id, CL_DEVICE_COMPUTE_CAPABILITY_MAJOR_NV) + ask(id, CL_DEVICE_COMPUTE_CAPABILITY_MINOR_NV);
  switch (capability) {
  case 75: return 1024;
  case 86:
  case 87:
  case 89:
  case 120:
  case 121: return 1536;
  default: return 2048;
  }
}

opencl_quirks opencl_quirks_of(const opencl_device *d) {
  opencl_quirks q = {.defines = ""};
  if (strcmp(d->info.platform, "Portable Computing Language") == 0 && d->info.type == CLM_DEVICE_CPU)
    q.defines = " -DCLM_ANCHOR";                                          /* cl/barrier.h says what for */
  if (strcmp(d->info.platform, "rusticl") == 0) q.no_step_program = true; /* 22.3: its sums of three rows are wrong */
  if (d->info.type == CLM_DEVICE_CPU) return q;
  if (opencl_has_extension(d, EXTENSION_NVIDIA_ATTRIBUTES)) {
    q.may_have_ptx = true;
    q.subgroup = 32;
    q.resident_work_items = nvidia_resident(d->id);
  } else if (opencl_has_extension(d, EXTENSION_AMD_ATTRIBUTES)) {
    q.may_have_amdgcn = true;
    q.subgroup = ask(d->id, CL_DEVICE_WAVEFRONT_WIDTH_AMD);
    q.resident_work_items = 2048;
  }
  return q;
}
