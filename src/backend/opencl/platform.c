/* Finds the OpenCL devices of this machine and says what they are. */
#include "backend/opencl/opencl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A device of which a question stays open would be taken for another one, with other plans and so other bits. */
static bool ask(opencl_device *d, cl_device_info what, size_t size, void *value) {
  cl_int error = clGetDeviceInfo(d->id, what, size, value, NULL);
  if (error && error != CL_INVALID_VALUE) d->unanswered = error;
  return error == CL_SUCCESS;
}

static void device_text(opencl_device *d, cl_device_info what, char *text, size_t size) {
  char full[4096] = "";
  if (!ask(d, what, sizeof full - 1, full)) full[0] = '\0';
  const char *begin = full + strspn(full, " ");
  snprintf(text, size, "%s", begin);
  for (size_t n = strlen(text); n > 0 && text[n - 1] == ' '; n--) text[n - 1] = '\0';
}

static void platform_text(opencl_device *d, cl_platform_info what, char *text, size_t size) {
  char full[1024] = "";
  cl_int error = clGetPlatformInfo(d->platform, what, sizeof full - 1, full, NULL);
  if (error && error != CL_INVALID_VALUE) d->unanswered = error;
  snprintf(text, size, "%s", error ? "" : full);
}

static uint64_t device_number(opencl_device *d, cl_device_info what) {
  uint64_t value = 0; /* drivers write 4 or 8 bytes; both fit in a little-endian 64-bit number */
  return ask(d, what, sizeof value, &value) ? value : 0;
}

static cl_uint device_uint(opencl_device *d, cl_device_info what) {
  cl_uint value = 0;
  return ask(d, what, sizeof value, &value) ? value : 0;
}

static bool lists(const char *all, const char *name) {
  const size_t length = strlen(name);
  for (const char *p = all; (p = strstr(p, name)) != NULL; p += length)
    if ((p == all || p[-1] == ' ') && (p[length] == ' ' || p[length] == '\0')) return true;
  return false;
}

static void find_extensions(opencl_device *d) {
  static const char *const names[] = {
      [EXTENSION_FP16] = "cl_khr_fp16",
      [EXTENSION_FP64] = "cl_khr_fp64",
      [EXTENSION_SUBGROUPS] = "cl_khr_subgroups",
      [EXTENSION_INTEL_SUBGROUPS] = "cl_intel_subgroups",
      [EXTENSION_SUBGROUP_SHUFFLE] = "cl_khr_subgroup_shuffle",
      [EXTENSION_INTEL_MATRICES] = "cl_intel_subgroup_matrix_multiply_accumulate",
      [EXTENSION_NVIDIA_ATTRIBUTES] = "cl_nv_device_attribute_query",
      [EXTENSION_AMD_ATTRIBUTES] = "cl_amd_device_attribute_query",
  };
  size_t size = 0;
  cl_int error = clGetDeviceInfo(d->id, CL_DEVICE_EXTENSIONS, 0, NULL, &size);
  char *all = error ? NULL : calloc(size + 1, 1);
  if (error) d->unanswered = error;
  else if (!all) d->unanswered = CL_OUT_OF_HOST_MEMORY;
  else if (size && ask(d, CL_DEVICE_EXTENSIONS, size, all))
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) d->extensions |= (uint32_t)lists(all, names[i]) << i;
  free(all);
}

/* "OpenCL 1.2 ..." -> 102 */
static int version_number(const char *version) {
  int major = 0, minor = 0;
  if (sscanf(version, "OpenCL %d.%d", &major, &minor) != 2) return 0;
  return major * 100 + minor;
}

static void find_unusable(opencl_device *d, char *why, size_t size) {
  const bool available = device_uint(d, CL_DEVICE_AVAILABLE), compiles = device_uint(d, CL_DEVICE_COMPILER_AVAILABLE);
  const bool little = device_uint(d, CL_DEVICE_ENDIAN_LITTLE);
  if (d->unanswered) snprintf(why, size, "its driver does not say what it is (%s)", opencl_error_name(d->unanswered));
  else if (version_number(d->platform_version) < 102)
    snprintf(why, size, "its platform has %.40s, OpenCL 1.2 or newer is needed", d->platform_version);
  else if (version_number(d->info.version) < 102)
    snprintf(why, size, "it has %.40s, OpenCL 1.2 or newer is needed", d->info.version);
  else if (!available) snprintf(why, size, "its driver says that it is not available");
  else if (!compiles) snprintf(why, size, "its driver has no compiler");
  else if (!little) snprintf(why, size, "it is big-endian");
}

/* A device may have more than three dimensions; where it does not say, nothing wider than one. */
static void find_widest(opencl_device *d) {
  size_t sizes[16] = {0};
  const bool known = ask(d, CL_DEVICE_MAX_WORK_ITEM_SIZES, sizeof sizes, sizes);
  for (int i = 0; i < 3; i++) d->widest[i] = known && sizes[i] > 0 ? sizes[i] : 1;
}

void opencl_describe(cl_platform_id platform, cl_device_id id, opencl_device *d) {
  *d = (opencl_device){.platform = platform, .id = id, .info.opencl = true};
  clm_device_info *info = &d->info;
  platform_text(d, CL_PLATFORM_NAME, info->platform, sizeof info->platform);
  platform_text(d, CL_PLATFORM_VERSION, d->platform_version, sizeof d->platform_version);
  device_text(d, CL_DEVICE_NAME, info->name, sizeof info->name);
  device_text(d, CL_DEVICE_VERSION, info->version, sizeof info->version);
  device_text(d, CL_DRIVER_VERSION, info->driver, sizeof info->driver);
  const uint64_t type = device_number(d, CL_DEVICE_TYPE);
  info->type = type & CL_DEVICE_TYPE_GPU           ? CLM_DEVICE_GPU
               : type & CL_DEVICE_TYPE_ACCELERATOR ? CLM_DEVICE_ACCELERATOR
                                                   : CLM_DEVICE_CPU;
  info->memory_bytes = device_number(d, CL_DEVICE_GLOBAL_MEM_SIZE);
  info->max_allocation_bytes = device_number(d, CL_DEVICE_MAX_MEM_ALLOC_SIZE);
  info->local_memory_bytes = device_number(d, CL_DEVICE_LOCAL_MEM_SIZE);
  info->compute_units = device_uint(d, CL_DEVICE_MAX_COMPUTE_UNITS);
  find_widest(d);
  info->max_work_group = (uint32_t)device_number(d, CL_DEVICE_MAX_WORK_GROUP_SIZE);
  find_extensions(d);
  info->fp16 = opencl_has_extension(d, EXTENSION_FP16);
  info->fp64 = opencl_has_extension(d, EXTENSION_FP64);
  info->subgroups =
      opencl_has_extension(d, EXTENSION_SUBGROUPS) || opencl_has_extension(d, EXTENSION_INTEL_SUBGROUPS);
  find_unusable(d, info->unusable, sizeof info->unusable);
}

static clm_status append_platform(cl_platform_id platform, opencl_device **devices, size_t *count) {
  cl_uint found = 0;
  cl_int error = clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 0, NULL, &found);
  if (error != CL_SUCCESS || found == 0) return CLM_OK; /* a platform without devices is nothing unusual */
  cl_device_id *ids = calloc(found, sizeof *ids);
  opencl_device *grown = realloc(*devices, (*count + found) * sizeof **devices);
  if (grown) *devices = grown;
  if (!ids || !grown) {
    free(ids);
    return CLM_OUT_OF_MEMORY;
  }
  if (clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, found, ids, NULL) == CL_SUCCESS)
    for (cl_uint i = 0; i < found; i++) opencl_describe(platform, ids[i], &grown[(*count)++]);
  free(ids);
  return CLM_OK;
}

clm_status opencl_devices(opencl_device **devices, size_t *count) {
  *devices = NULL;
  *count = 0;
  cl_uint platforms = 0;
  if (clGetPlatformIDs(0, NULL, &platforms) != CL_SUCCESS || platforms == 0) return CLM_OK;
  cl_platform_id *ids = calloc(platforms, sizeof *ids);
  if (!ids) return CLM_OUT_OF_MEMORY;
  clm_status status = CLM_OK;
  if (clGetPlatformIDs(platforms, ids, NULL) == CL_SUCCESS)
    for (cl_uint i = 0; i < platforms && status == CLM_OK; i++) status = append_platform(ids[i], devices, count);
  free(ids);
  if (status) {
    free(*devices);
    *devices = NULL;
    *count = 0;
  }
  return status;
}

clm_status clm_devices(clm_device_info *devices, size_t capacity, size_t *count) {
  if (!count || (capacity && !devices)) return CLM_INVALID_ARGUMENT;
  opencl_device *all;
  clm_status status = opencl_devices(&all, count);
  for (size_t i = 0; status == CLM_OK && i < *count && i < capacity; i++) devices[i] = all[i].info;
  free(all);
  return status;
}
