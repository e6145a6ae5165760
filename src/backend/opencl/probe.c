/* Finds out what a device can do by building a tiny program that does it, running it and comparing.
 *
 * CLM_OPENCL_PLAIN=1 switches all of it off, so that the plain kernels run. */
#include "backend/opencl/opencl.h"
#include "core/dtype.h"
#include <stdlib.h>
#include <string.h>

enum { PROBE_ITEMS = 64 };

/* Runs probe.cl with `define` on in[i] = i + 0.5; false if anything at all goes wrong. */
static bool run_probe(clm_context *ctx, const char *define, float *out) {
  opencl_state *s = opencl_state_of(ctx);
  float in[PROBE_ITEMS];
  for (int i = 0; i < PROBE_ITEMS; i++) in[i] = (float)i + 0.5f;
  memset(out, 0, PROBE_ITEMS * sizeof *out);
  cl_program program;
  if (opencl_program_build(ctx, "probe", define, true, &program) != CLM_OK) return false;
  cl_int error = CL_SUCCESS;
  cl_kernel kernel = clCreateKernel(program, "probe", &error);
  cl_mem memory[2] = {NULL, NULL};
  for (int i = 0; i < 2 && error == CL_SUCCESS; i++)
    memory[i] = clCreateBuffer(s->context, CL_MEM_READ_WRITE, sizeof in, NULL, &error);
  for (cl_uint i = 0; i < 2 && error == CL_SUCCESS; i++)
    error = clSetKernelArg(kernel, i, sizeof(cl_mem), &memory[i]);
  size_t items = PROBE_ITEMS;
  if (error == CL_SUCCESS)
    error = clEnqueueWriteBuffer(s->queue, memory[0], CL_TRUE, 0, sizeof in, in, 0, NULL, NULL);
  if (error == CL_SUCCESS) error = clEnqueueNDRangeKernel(s->queue, kernel, 1, NULL, &items, &items, 0, NULL, NULL);
  if (error == CL_SUCCESS)
    error = clEnqueueReadBuffer(s->queue, memory[1], CL_TRUE, 0, sizeof in, out, 0, NULL, NULL);
  for (int i = 0; i < 2; i++)
    if (memory[i]) clReleaseMemObject(memory[i]);
  if (kernel) clReleaseKernel(kernel);
  clReleaseProgram(program);
  return error == CL_SUCCESS;
}

static bool has_ptx(clm_context *ctx) {
  float out[PROBE_ITEMS];
  if (!run_probe(ctx, "-DPROBE_PTX", out)) return false;
  for (int i = 0; i < PROBE_ITEMS; i++)
    if (out[i] != (float)(i ^ 1) + 0.5f + (float)(1 << (i & 3))) return false;
  return true;
}

/* Rounds to nearest even, as the plain form does. */
static bool has_ptx_bf16(clm_context *ctx) {
  float out[PROBE_ITEMS];
  if (!run_probe(ctx, "-DPROBE_PTX_BF16", out)) return false;
  for (int i = 0; i < PROBE_ITEMS; i++)
    if (out[i] != dtype_from_bf16(dtype_to_bf16(((float)i + 0.5f) * 1.001f))) return false;
  return true;
}

/* Lanes of a sub-group that can shuffle, 0 if they cannot. */
static int32_t khr_shuffle(clm_context *ctx) {
  float out[PROBE_ITEMS];
  if (!opencl_has_extension(&opencl_state_of(ctx)->device, EXTENSION_SUBGROUP_SHUFFLE)) return 0;
  if (!run_probe(ctx, "-DPROBE_SUBGROUP_SHUFFLE", out)) return 0;
  float lanes = out[0] - 1.5f;
  for (int i = 0; i < PROBE_ITEMS; i++)
    if (out[i] != (float)(i ^ 1) + 0.5f + lanes) return 0;
  return lanes >= 2 && lanes <= PROBE_ITEMS ? (int32_t)lanes : 0;
}

/* What the driver prefers as a multiple for the work-groups of a trivial kernel: the sub-group, where there is one.
 */
static int32_t preferred_multiple(clm_context *ctx) {
  cl_program program;
  cl_int error;
  size_t multiple = 0;
  if (opencl_program_build(ctx, "probe", "-DPROBE_PLAIN", true, &program) != CLM_OK) return 1;
  cl_kernel kernel = clCreateKernel(program, "probe", &error);
  if (error == CL_SUCCESS) {
    if (clGetKernelWorkGroupInfo(kernel, opencl_state_of(ctx)->device.id,
                                 CL_KERNEL_PREFERRED_WORK_GROUP_SIZE_MULTIPLE, sizeof multiple, &multiple,
                                 NULL) != CL_SUCCESS)
      multiple = 0;
    clReleaseKernel(kernel);
  }
  clReleaseProgram(program);
  return multiple >= 1 && multiple <= 256 ? (int32_t)multiple : 1;
}

static int32_t positive(uint64_t value) { return value < 1 ? 1 : value > INT32_MAX ? INT32_MAX : (int32_t)value; }

void opencl_probe(clm_context *ctx) {
  opencl_state *s = opencl_state_of(ctx);
  const clm_device_info *info = &s->device.info;
  const char *plain = getenv("CLM_OPENCL_PLAIN");
  schedule_device d = {
      .is_cpu = info->type == CLM_DEVICE_CPU,
      .shuffle = SHUFFLE_NONE,
      .compute_units = positive(info->compute_units),
      .max_work_group = positive(info->max_work_group),
      .subgroup = s->quirks.subgroup ? s->quirks.subgroup : preferred_multiple(ctx),
      .resident_work_items = s->quirks.resident_work_items,
      .local_memory_bytes = (int64_t)info->local_memory_bytes,
      .max_allocation_bytes = (int64_t)info->max_allocation_bytes,
  };
  if (!plain || strcmp(plain, "1") != 0) {
    if (s->quirks.may_have_ptx && d.max_work_group >= PROBE_ITEMS && has_ptx(ctx))
      d.ptx = has_ptx_bf16(ctx) ? PTX_BF16 : PTX_BASIC;
    /* Not on CPUs: their kernels have one lane a channel, and vectors are their compiler's affair. */
    int32_t lanes = d.is_cpu || d.ptx || d.max_work_group < PROBE_ITEMS ? 0 : khr_shuffle(ctx);
    if (d.ptx) d.shuffle = SHUFFLE_PTX;
    if (lanes) {
      d.shuffle = SHUFFLE_KHR;
      d.subgroup = lanes;
    }
  }
  const char *imitated = getenv("CLM_OPENCL_SHUFFLE");
  if (imitated && strcmp(imitated, "local") == 0) { /* tests of the shuffle kernels */
    d.shuffle = SHUFFLE_LOCAL;
    d.subgroup = 32;
    d.is_cpu = false;
  }
  if (getenv("CLM_OPENCL_EMULATE")) d.is_cpu = false; /* tests of what only GPUs do */
  s->schedule = d;
  s->scheduled = true;
  ctx->error[0] = '\0'; /* a probe that failed is no failure of the caller's */
}

const schedule_device *opencl_schedule_device(const clm_context *ctx) {
  opencl_state *s = opencl_state_of(ctx);
  if (!s->scheduled) opencl_probe((clm_context *)(uintptr_t)ctx); /* asked for const, found out once */
  return &s->schedule;
}
