#include "recorder.h"
#define CL_TARGET_OPENCL_VERSION 120
#define CL_USE_DEPRECATED_OPENCL_1_1_APIS
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>
#include <stdlib.h>
#include <string.h>

/* The loader's functions under their own names: in this program they take its place. */
recorder_program recorder_on_program;
recorder_device recorder_the_device;

struct _cl_platform_id {
  int unused;
};
struct _cl_device_id {
  int unused;
};
struct _cl_context {
  int unused;
};
struct _cl_command_queue {
  int unused;
};
struct _cl_mem {
  size_t size;
};
struct _cl_program {
  char *source;
};
struct _cl_kernel {
  cl_uint args; /* as many as it was given last */
};

static struct _cl_platform_id platform;
static struct _cl_device_id device;
static struct _cl_context context;
static struct _cl_command_queue queue;
static struct _cl_kernel kernel;

static cl_int answer(const void *value, size_t bytes, size_t room, void *to, size_t *size) {
  if (size) *size = bytes;
  if (to && room < bytes) return CL_INVALID_VALUE;
  if (to) memcpy(to, value, bytes);
  return CL_SUCCESS;
}

static cl_int answer_text(const char *text, size_t room, void *to, size_t *size) {
  return answer(text, strlen(text) + 1, room, to, size);
}

static cl_int answer_number(unsigned long number, size_t room, void *to, size_t *size) {
  cl_uint narrow = (cl_uint)number;
  if (to && room < sizeof number) return answer(&narrow, sizeof narrow, room, to, size);
  return answer(&number, sizeof number, room, to, size);
}

/* ---- Platform and device ---- */

cl_int clGetPlatformIDs(cl_uint room, cl_platform_id *ids, cl_uint *count) {
  if (count) *count = 1;
  if (ids && room) ids[0] = &platform;
  return CL_SUCCESS;
}

cl_int clGetPlatformInfo(cl_platform_id id, cl_platform_info what, size_t room, void *to, size_t *size) {
  (void)id;
  return answer_text(what == CL_PLATFORM_VERSION ? "OpenCL 1.2 recorder" : "recorder", room, to, size);
}

cl_int clGetDeviceIDs(cl_platform_id id, cl_device_type type, cl_uint room, cl_device_id *ids, cl_uint *count) {
  (void)id, (void)type;
  if (count) *count = 1;
  if (ids && room) ids[0] = &device;
  return CL_SUCCESS;
}

cl_int clGetDeviceInfo(cl_device_id id, cl_device_info what, size_t room, void *to, size_t *size) {
  (void)id;
  switch (what) {
  case CL_DEVICE_NAME: return answer_text(recorder_the_device.name, room, to, size);
  case CL_DEVICE_VERSION: return answer_text("OpenCL 1.2 recorder", room, to, size);
  case CL_DRIVER_VERSION:
  case CL_DEVICE_VENDOR:
  case CL_DEVICE_OPENCL_C_VERSION:
  case CL_DEVICE_EXTENSIONS: return answer_text("", room, to, size);
  case CL_DEVICE_TYPE: return answer_number(CL_DEVICE_TYPE_GPU, room, to, size);
  case CL_DEVICE_PLATFORM: return answer(&(cl_platform_id){&platform}, sizeof(cl_platform_id), room, to, size);
  case CL_DEVICE_AVAILABLE:
  case CL_DEVICE_COMPILER_AVAILABLE:
  case CL_DEVICE_ENDIAN_LITTLE: return answer(&(cl_bool){CL_TRUE}, sizeof(cl_bool), room, to, size);
  case CL_DEVICE_MAX_COMPUTE_UNITS: return answer_number(recorder_the_device.compute_units, room, to, size);
  case CL_DEVICE_MAX_WORK_GROUP_SIZE: return answer_number(recorder_the_device.max_work_group, room, to, size);
  case CL_DEVICE_LOCAL_MEM_SIZE: return answer_number(recorder_the_device.local_memory_bytes, room, to, size);
  case CL_DEVICE_GLOBAL_MEM_SIZE:
  case CL_DEVICE_MAX_MEM_ALLOC_SIZE: return answer_number(1ul << 40, room, to, size);
  default: return answer_number(0, room, to, size);
  }
}

/* ---- Context, queue, memory ---- */

cl_context clCreateContext(const cl_context_properties *properties, cl_uint count, const cl_device_id *ids,
                           void(CL_CALLBACK *notify)(const char *, const void *, size_t, void *), void *user,
                           cl_int *error) {
  (void)properties, (void)count, (void)ids, (void)notify, (void)user;
  *error = CL_SUCCESS;
  return &context;
}

cl_int clRetainContext(cl_context c) { return (void)c, CL_SUCCESS; }
cl_int clReleaseContext(cl_context c) { return (void)c, CL_SUCCESS; }

cl_command_queue clCreateCommandQueue(cl_context c, cl_device_id id, cl_command_queue_properties properties,
                                      cl_int *error) {
  (void)c, (void)id, (void)properties;
  *error = CL_SUCCESS;
  return &queue;
}

cl_int clRetainCommandQueue(cl_command_queue q) { return (void)q, CL_SUCCESS; }
cl_int clReleaseCommandQueue(cl_command_queue q) { return (void)q, CL_SUCCESS; }
cl_int clFinish(cl_command_queue q) { return (void)q, CL_SUCCESS; }
cl_int clFlush(cl_command_queue q) { return (void)q, CL_SUCCESS; }

cl_mem clCreateBuffer(cl_context c, cl_mem_flags flags, size_t size, void *memory, cl_int *error) {
  (void)c, (void)flags, (void)memory;
  cl_mem m = malloc(sizeof *m);
  if (!m) abort();
  m->size = size;
  *error = CL_SUCCESS;
  return m;
}

cl_int clReleaseMemObject(cl_mem m) {
  free(m);
  return CL_SUCCESS;
}

cl_int clGetMemObjectInfo(cl_mem m, cl_mem_info what, size_t room, void *to, size_t *size) {
  return answer_number(what == CL_MEM_SIZE ? m->size : 0, room, to, size);
}

cl_int clEnqueueWriteBuffer(cl_command_queue q, cl_mem m, cl_bool wait, size_t at, size_t bytes, const void *from,
                            cl_uint count, const cl_event *list, cl_event *event) {
  (void)q, (void)m, (void)wait, (void)at, (void)bytes, (void)from, (void)count, (void)list, (void)event;
  return CL_SUCCESS;
}

cl_int clEnqueueReadBuffer(cl_command_queue q, cl_mem m, cl_bool wait, size_t at, size_t bytes, void *to,
                           cl_uint count, const cl_event *list, cl_event *event) {
  (void)q, (void)m, (void)wait, (void)at, (void)count, (void)list, (void)event;
  memset(to, 0, bytes);
  return CL_SUCCESS;
}

/* ---- Programs and kernels ---- */

cl_program clCreateProgramWithSource(cl_context c, cl_uint count, const char **texts, const size_t *lengths,
                                     cl_int *error) {
  (void)c, (void)count, (void)lengths;
  cl_program p = malloc(sizeof *p);
  if (!p || !(p->source = strdup(texts[0]))) abort();
  *error = CL_SUCCESS;
  return p;
}

cl_int clBuildProgram(cl_program p, cl_uint count, const cl_device_id *ids, const char *options,
                      void(CL_CALLBACK *notify)(cl_program, void *), void *user) {
  (void)count, (void)ids, (void)notify, (void)user;
  if (recorder_on_program && p->source) recorder_on_program(p->source, options);
  return CL_SUCCESS;
}

cl_int clReleaseProgram(cl_program p) {
  free(p->source);
  free(p);
  return CL_SUCCESS;
}

cl_int clGetProgramBuildInfo(cl_program p, cl_device_id id, cl_program_build_info what, size_t room, void *to,
                             size_t *size) {
  (void)p, (void)id, (void)what;
  return answer_text("", room, to, size);
}

/* A built program is a text that asks for late assembly. */
cl_int clGetProgramInfo(cl_program p, cl_program_info what, size_t room, void *to, size_t *size) {
  static const char built[] = ".target sm_90\n//@ \n";
  const cl_device_id id = &device;
  (void)p;
  switch (what) {
  case CL_PROGRAM_NUM_DEVICES: return answer_number(1, room, to, size);
  case CL_PROGRAM_DEVICES: return answer(&id, sizeof id, room, to, size);
  case CL_PROGRAM_BINARY_SIZES: return answer_number(sizeof built, room, to, size);
  case CL_PROGRAM_BINARIES: memcpy(*(void **)to, built, sizeof built); return CL_SUCCESS;
  default: return answer_number(0, room, to, size);
  }
}

/* What late assembly makes of it, which is not recorded: the source was. */
cl_program clCreateProgramWithBinary(cl_context c, cl_uint count, const cl_device_id *ids, const size_t *sizes,
                                     const unsigned char **binaries, cl_int *loaded, cl_int *error) {
  (void)c, (void)count, (void)ids, (void)sizes, (void)binaries;
  cl_program p = calloc(1, sizeof *p);
  if (!p) abort();
  *loaded = *error = CL_SUCCESS;
  return p;
}

cl_kernel clCreateKernel(cl_program p, const char *name, cl_int *error) {
  (void)p, (void)name;
  if (error) *error = CL_SUCCESS;
  return &kernel;
}

cl_int clCreateKernelsInProgram(cl_program p, cl_uint room, cl_kernel *kernels, cl_uint *count) {
  (void)p, (void)room, (void)kernels;
  if (count) *count = 0;
  return CL_SUCCESS;
}

cl_int clReleaseKernel(cl_kernel k) { return (void)k, CL_SUCCESS; }

cl_int clSetKernelArg(cl_kernel k, cl_uint index, size_t size, const void *value) {
  (void)size, (void)value;
  k->args = index + 1;
  return CL_SUCCESS;
}

cl_int clGetKernelInfo(cl_kernel k, cl_kernel_info what, size_t room, void *to, size_t *size) {
  (void)k;
  return answer(&kernel.args, what == CL_KERNEL_NUM_ARGS ? sizeof kernel.args : 0, room, to, size);
}

cl_int clGetKernelWorkGroupInfo(cl_kernel k, cl_device_id id, cl_kernel_work_group_info what, size_t room, void *to,
                                size_t *size) {
  (void)k, (void)id;
  size_t value = what == CL_KERNEL_PREFERRED_WORK_GROUP_SIZE_MULTIPLE ? 32 : recorder_the_device.max_work_group;
  return answer(&value, sizeof value, room, to, size);
}

cl_int clEnqueueNDRangeKernel(cl_command_queue q, cl_kernel k, cl_uint dims, const size_t *offset,
                              const size_t *global, const size_t *local, cl_uint count, const cl_event *list,
                              cl_event *event) {
  (void)q, (void)k, (void)dims, (void)offset, (void)global, (void)local, (void)count, (void)list, (void)event;
  return CL_SUCCESS;
}
