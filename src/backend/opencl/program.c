/* From a kernel family and its defines to a built program, by way of the cache on disk. */
#include "backend/opencl/opencl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void log_build(clm_context *ctx, cl_program program, const char *family, clm_log_level level) {
  size_t size = 0;
  cl_device_id device = opencl_state_of(ctx)->device.id;
  if (clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, 0, NULL, &size) != CL_SUCCESS || size <= 2) return;
  char *text = calloc(size + 1, 1);
  if (text && clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, size, text, NULL) == CL_SUCCESS &&
      text[strspn(text, " \n")] != '\0') {
    char title[80];
    snprintf(title, sizeof title, "compiling %s.cl", family);
    context_log_lines(ctx, level, title, text);
  }
  free(text);
}

static program_key key_of(const opencl_state *s, const char *source, const char *options) {
  const char *texts[] = {source,
                         options,
                         s->device.info.platform,
                         s->device.platform_version,
                         s->device.info.name,
                         s->device.info.version,
                         s->device.info.driver};
  return program_cache_key(texts, sizeof texts / sizeof *texts);
}

/* The binary of our device; a program in a context of several devices has one for each. free() it. */
static unsigned char *binary_of(const opencl_state *s, cl_program program, size_t *size) {
  enum { MAX_DEVICES = 64 };
  cl_uint count = 0;
  cl_device_id devices[MAX_DEVICES];
  size_t sizes[MAX_DEVICES], bytes;
  unsigned char *binaries[MAX_DEVICES] = {NULL}, *binary = NULL;
  if (clGetProgramInfo(program, CL_PROGRAM_NUM_DEVICES, sizeof count, &count, NULL) != CL_SUCCESS) return NULL;
  if (count == 0 || count > MAX_DEVICES) return NULL;
  bytes = count * sizeof *devices;
  if (clGetProgramInfo(program, CL_PROGRAM_DEVICES, bytes, devices, NULL) != CL_SUCCESS) return NULL;
  bytes = count * sizeof *sizes;
  if (clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, bytes, sizes, NULL) != CL_SUCCESS) return NULL;
  for (cl_uint i = 0; i < count; i++)
    if (devices[i] == s->device.id && sizes[i] > 0) {
      binary = binaries[i] = malloc(sizes[i]);
      *size = sizes[i];
      break;
    }
  if (!binary) return NULL;
  bytes = count * sizeof *binaries;
  if (clGetProgramInfo(program, CL_PROGRAM_BINARIES, bytes, binaries, NULL) == CL_SUCCESS) return binary;
  free(binary);
  return NULL;
}

static cl_program from_binary(opencl_state *s, const void *binary, size_t size, const char *options) {
  cl_int error, loaded = CL_INVALID_BINARY;
  cl_program program = clCreateProgramWithBinary(s->context, 1, &s->device.id, &size,
                                                 (const unsigned char *[]){binary}, &loaded, &error);
  if (error != CL_SUCCESS) return NULL;
  if (loaded == CL_SUCCESS && clBuildProgram(program, 1, &s->device.id, options, NULL, NULL) == CL_SUCCESS)
    return program;
  clReleaseProgram(program);
  return NULL;
}

static cl_program load_program(opencl_state *s, const program_key *key, const char *options) {
  size_t size;
  unsigned char *binary = program_cache_load(&s->cache, key, &size);
  if (!binary) return NULL;
  cl_program program = from_binary(s, binary, size, options);
  free(binary);
  return program;
}

/* Puts the late instructions of a program in place; false if the driver does not take them, or shows no text. */
static bool late_assembly(opencl_state *s, const char *options, cl_program *program) {
  size_t size = 0;
  char *text = (char *)binary_of(s, *program, &size);
  char *late = text && opencl_is_late(text, size) ? opencl_late_text(text, size) : NULL;
  cl_program assembled = late ? from_binary(s, late, strlen(late) + 1, options) : NULL;
  free(text);
  free(late);
  clReleaseProgram(*program);
  *program = assembled;
  return assembled != NULL;
}

/* Some drivers compile when a kernel is created: only then is the binary worth keeping. */
static void store_program(opencl_state *s, const program_key *key, cl_program program) {
  cl_uint count = 0;
  if (!s->cache.folder[0] || clCreateKernelsInProgram(program, 0, NULL, &count) != CL_SUCCESS || count == 0) return;
  cl_kernel *kernels = calloc(count, sizeof(cl_kernel));
  if (kernels && clCreateKernelsInProgram(program, count, kernels, NULL) == CL_SUCCESS) {
    size_t size;
    unsigned char *binary = binary_of(s, program, &size);
    if (binary) program_cache_store(&s->cache, key, binary, size);
    free(binary);
    for (cl_uint i = 0; i < count; i++) clReleaseKernel(kernels[i]);
  }
  free(kernels);
}

static clm_status compile(clm_context *ctx, const char *family, const char *source, const char *options, bool quiet,
                          cl_program *built) {
  opencl_state *s = opencl_state_of(ctx);
  cl_int error;
  cl_program program = clCreateProgramWithSource(s->context, 1, &source, NULL, &error);
  if (error != CL_SUCCESS) return opencl_check(ctx, error, "clCreateProgramWithSource");
  if (!quiet) context_log(ctx, CLM_LOG_INFO, "compiling %s.cl", family);
  error = clBuildProgram(program, 1, &s->device.id, options, NULL, NULL);
  if (!quiet) log_build(ctx, program, family, error == CL_SUCCESS ? CLM_LOG_DEBUG : CLM_LOG_ERROR);
  if (error == CL_SUCCESS && strstr(options, OPENCL_LATE) && !late_assembly(s, options, &program))
    error = CL_BUILD_PROGRAM_FAILURE;
  if (error == CL_SUCCESS) {
    *built = program;
    return CLM_OK;
  }
  if (program) clReleaseProgram(program);
  return context_fail(ctx, CLM_BUILD_FAILED, "opencl: %s.cl did not compile for %s (%s; options %s)", family,
                      s->device.info.name, opencl_error_name(error), options);
}

clm_status opencl_program_build(clm_context *ctx, const char *family, const char *defines, bool quiet,
                                cl_program *program) {
  opencl_state *s = opencl_state_of(ctx);
  char options[2048], *source;
  *program = NULL;
  const char *warnings = getenv("CLM_CL_DIR") ? "" : " -w"; /* for who works on kernels; PoCL prints them on stderr */
  if (snprintf(options, sizeof options, "-cl-std=CL1.2%s%s%s%s", s->quirks.defines, warnings, defines[0] ? " " : "",
               defines) >= (int)sizeof options)
    return context_fail(ctx, CLM_BUILD_FAILED, "opencl: the options of %s.cl are too long", family);
  clm_status status = opencl_source(ctx, family, &source);
  if (status) return status;
  program_key key = key_of(s, source, options);
  *program = load_program(s, &key, options);
  if (!*program) {
    status = compile(ctx, family, source, options, quiet, program);
    if (status == CLM_OK) store_program(s, &key, *program);
  }
  free(source);
  return status;
}
