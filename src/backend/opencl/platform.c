/* Finds the OpenCL devices of this machine and says what they are. */
#include "backend/opencl/opencl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void device_text(cl_device_id id, cl_device_info what, char *text, size_t size) {
  char full[4096] = "";
  if (clGetDeviceInfo(id, what, sizeof full - 1, full, NULL) != CL_SUCCESS) full[0] = '\0';
  const char *begin = full + strspn(full, " ");
  snprintf(text, size, "%s", begin);
  for (size_t n = strlen(text); n > 0 && text[n - 1] == ' '; n--) text[n - 1] = '\0';
}

static void platform_text(cl_platform_id id, cl_platform_info what, char *text, size_t size) {
  char full[1024] = "";
  if (clGetPlatformInfo(id, what, sizeof full - 1, full, NULL) != CL_SUCCESS) full[0] = '\0';
  snprintf(text, size, "%s", full);
}

static uint64_t device_number(cl_device_id id, cl_device_info what) {
  uint64_t value = 0; /* drivers write 4 or 8 bytes; both fit in a little-endian 64-bit number */
  if (clGetDeviceInfo(id, what, sizeof value, &value, NULL) != CL_SUCCESS) return 0;
  return value;
}

static cl_uint device_uint(cl_device_id id, cl_device_info what) {
  cl_uint value = 0;
  if (clGetDeviceInfo(id, what, sizeof value, &value, NULL) != CL_SUCCESS) return 0;
  return value;
}

bool opencl_has_extension(cl_device_id id, const char *name) {
  size_t size = 0, length = strlen(name);
  if (clGetDeviceInfo(id, CL_DEVICE_EXTENSIONS, 0, NULL, &size) != CL_SUCCESS || size == 0) return false;
  char *all = calloc(size + 1, 1);
  if (!all) return false;
  bool found = false;
  if (clGetDeviceInfo(id, CL_DEVICE_EXTENSIONS, size, all, NULL) == CL_SUCCESS)
    for (const char *p = all; !found && (p = strstr(p, name)) != NULL; p += length)
      found = (p == all || p[-1] == ' ') && (p[length] == ' ' || p[length] == '\0');
  free(all);
  return found;
}

/* "OpenCL 1.2 ..." -> 102 */
static int version_number(const char *version) {
  int major = 0, minor = 0;
  if (sscanf(version, "OpenCL %d.%d", &major, &minor) != 2) return 0;
  return major * 100 + minor;
}

static void find_unusable(const opencl_device *d, char *why, size_t size) {
  if (version_number(d->platform_version) < 102)
    snprintf(why, size, "its platform has %.40s, OpenCL 1.2 or newer is needed", d->platform_version);
  else if (version_number(d->info.version) < 102)
    snprintf(why, size, "it has %.40s, OpenCL 1.2 or newer is needed", d->info.version);
  else if (!device_uint(d->id, CL_DEVICE_AVAILABLE)) snprintf(why, size, "its driver says that it is not available");
  else if (!device_uint(d->id, CL_DEVICE_COMPILER_AVAILABLE)) snprintf(why, size, "its driver has no compiler");
  else if (!device_uint(d->id, CL_DEVICE_ENDIAN_LITTLE)) snprintf(why, size, "it is big-endian");
}

/* A device may have more than three dimensions; where it does not say, nothing wider than one. */
static void find_widest(cl_device_id id, size_t widest[3]) {
  size_t sizes[16] = {0}, bytes = 0;
  cl_int error = clGetDeviceInfo(id, CL_DEVICE_MAX_WORK_ITEM_SIZES, 0, NULL, &bytes);
  if (!error && bytes <= sizeof sizes) error = clGetDeviceInfo(id, CL_DEVICE_MAX_WORK_ITEM_SIZES, bytes, sizes, NULL);
  for (int i = 0; i < 3; i++) widest[i] = !error && sizes[i] > 0 ? sizes[i] : 1;
}

void opencl_describe(cl_platform_id platform, cl_device_id id, opencl_device *d) {
  memset(d, 0, sizeof *d);
  d->platform = platform;
  d->id = id;
  clm_device_info *info = &d->info;
  platform_text(platform, CL_PLATFORM_NAME, info->platform, sizeof info->platform);
  platform_text(platform, CL_PLATFORM_VERSION, d->platform_version, sizeof d->platform_version);
  device_text(id, CL_DEVICE_NAME, info->name, sizeof info->name);
  device_text(id, CL_DEVICE_VERSION, info->version, sizeof info->version);
  device_text(id, CL_DRIVER_VERSION, info->driver, sizeof info->driver);
  cl_device_type type = 0;
  if (clGetDeviceInfo(id, CL_DEVICE_TYPE, sizeof type, &type, NULL) != CL_SUCCESS) type = CL_DEVICE_TYPE_CPU;
  info->opencl = true;
  info->type = type & CL_DEVICE_TYPE_GPU           ? CLM_DEVICE_GPU
               : type & CL_DEVICE_TYPE_ACCELERATOR ? CLM_DEVICE_ACCELERATOR
                                                   : CLM_DEVICE_CPU;
  info->memory_bytes = device_number(id, CL_DEVICE_GLOBAL_MEM_SIZE);
  info->max_allocation_bytes = device_number(id, CL_DEVICE_MAX_MEM_ALLOC_SIZE);
  info->local_memory_bytes = device_number(id, CL_DEVICE_LOCAL_MEM_SIZE);
  info->compute_units = device_uint(id, CL_DEVICE_MAX_COMPUTE_UNITS);
  find_widest(id, d->widest);
  info->max_work_group = (uint32_t)device_number(id, CL_DEVICE_MAX_WORK_GROUP_SIZE);
  info->fp16 = opencl_has_extension(id, "cl_khr_fp16");
  info->fp64 = opencl_has_extension(id, "cl_khr_fp64");
  info->subgroups = opencl_has_extension(id, "cl_khr_subgroups") || opencl_has_extension(id, "cl_intel_subgroups");
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
