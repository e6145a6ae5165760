/* Contexts on an OpenCL device: of our own making, or joined to a host program's objects. */
#include "backend/opencl/matmul.h"
#include "backend/opencl/opencl.h"
#include "backend/opencl/step.h"
#include <stdlib.h>
#include <string.h>

enum { PLANS_KEPT = 96 };

static void destroy(clm_context *ctx) {
  opencl_state *s = opencl_state_of(ctx);
  if (s->first) clReleaseEvent(s->first);
  opencl_clblast_forget(ctx);
  opencl_kernels_destroy(s->kernels);
  plan_cache_destroy(s->plans);
  if (s->queue) clReleaseCommandQueue(s->queue);
  if (s->context) clReleaseContext(s->context);
  free(s);
  ctx->state = NULL;
}

plan_cache *opencl_plans(const clm_context *ctx) { return opencl_state_of(ctx)->plans; }

static clm_status device(const clm_context *ctx, clm_device_info *info) {
  *info = opencl_state_of(ctx)->device.info;
  return CLM_OK;
}

static const backend opencl_backend = {
    .name = "opencl",
    .destroy = destroy,
    .finish = opencl_finish,
    .device = device,
    .buffer_create = opencl_buffer_create,
    .buffer_wrap_host = opencl_buffer_wrap_host,
    .buffer_destroy = opencl_buffer_destroy,
    .buffer_write = opencl_buffer_write,
    .buffer_read = opencl_buffer_read,
    .buffer_map = opencl_buffer_map,
    .buffer_unmap = opencl_buffer_unmap,
    .buffer_forget = opencl_forget_panels,
    .plan_create = opencl_plan_create,
    .plan_end = opencl_plan_end,
    .plan_run = opencl_plan_run,
    .plan_destroy = opencl_plan_destroy,
    .profile_begin = opencl_profile_begin,
    .profile_end = opencl_profile_end,
    .limits = opencl_limits,
};

/* What both ways of creation share; context and queue are still to come. */
static clm_status begin(clm_context *ctx, const clm_context_options *options, const opencl_device *d) {
  opencl_state *s = calloc(1, sizeof *s);
  if (s) s->plans = plan_cache_create(PLANS_KEPT);
  if (!s || !s->plans) {
    free(s);
    return context_fail(ctx, CLM_OUT_OF_MEMORY, "opencl: no host memory for a context");
  }
  s->device = *d;
  s->quirks = opencl_quirks_of(d);
  s->trace = getenv("CLM_OPENCL_TRACE") != NULL;
  program_cache_open(&s->cache, ctx, options);
  ctx->state = s;
  ctx->backend = &opencl_backend;
  ctx->ops = opencl_ops;
  ctx->supports = opencl_supports;
  ctx->record = step_record_ops;
  return CLM_OK;
}

static clm_status create_on(clm_context *ctx, const clm_context_options *options, const opencl_device *d) {
  clm_status status = begin(ctx, options, d);
  if (status) return status;
  opencl_state *s = opencl_state_of(ctx);
  cl_int error;
  cl_context_properties properties[] = {CL_CONTEXT_PLATFORM, (cl_context_properties)d->platform, 0};
  cl_command_queue_properties queue = options->profiling ? CL_QUEUE_PROFILING_ENABLE : 0;
  s->context = clCreateContext(properties, 1, &d->id, NULL, NULL, &error);
  status = opencl_check(ctx, error, "clCreateContext");
  if (status == CLM_OK) {
    s->queue = clCreateCommandQueue(s->context, d->id, queue, &error);
    status = opencl_check(ctx, error, "clCreateCommandQueue");
  }
  if (status) destroy(ctx);
  return status;
}

/* The first usable device, graphics processors and accelerators before others; -1 if there is none. */
static int choose(const opencl_device *devices, size_t count, bool gpu_only) {
  int other = -1;
  for (size_t i = 0; i < count; i++) {
    if (devices[i].info.unusable[0]) continue;
    if (devices[i].info.type != CLM_DEVICE_CPU) return (int)i;
    if (other < 0) other = (int)i;
  }
  return gpu_only ? -1 : other;
}

static clm_status select_device(clm_context *ctx, const opencl_device *devices, size_t count, int *index) {
  if (*index < 0) {
    bool gpu_only = *index == OPENCL_GPU_ONLY;
    *index = choose(devices, count, gpu_only);
    if (*index >= 0) return CLM_OK;
    return context_fail(ctx, CLM_NO_DEVICE, "there is no usable OpenCL %s on this machine",
                        gpu_only ? "GPU or accelerator" : "device");
  }
  if (count == 0)
    return context_fail(ctx, CLM_NO_DEVICE, "device opencl:%d does not exist: this machine has no OpenCL device",
                        *index);
  if ((size_t)*index >= count && count == 1)
    return context_fail(
        ctx, CLM_NO_DEVICE,
        "device opencl:%d does not exist: this machine has one OpenCL device, opencl:0 (mamba-info lists "
        "what there is)",
        *index);
  if ((size_t)*index >= count)
    return context_fail(
        ctx, CLM_NO_DEVICE,
        "device opencl:%d does not exist: this machine has %zu OpenCL devices, opencl:0 to opencl:%zu "
        "(mamba-info lists them)",
        *index, count, count - 1);
  const clm_device_info *info = &devices[*index].info;
  if (info->unusable[0])
    return context_fail(ctx, CLM_NO_DEVICE, "device opencl:%d (%s) cannot be used: %s", *index, info->name,
                        info->unusable);
  return CLM_OK;
}

clm_status backend_opencl_create(clm_context *ctx, const clm_context_options *options, int index) {
  opencl_device *devices;
  size_t count;
  clm_status status = opencl_devices(&devices, &count);
  if (status) return context_fail(ctx, status, "opencl: no host memory for the list of devices");
  status = select_device(ctx, devices, count, &index);
  if (status == CLM_OK) status = create_on(ctx, options, &devices[index]);
  free(devices);
  return status;
}

static clm_status check_queue(clm_context *ctx, cl_context context, cl_device_id id, cl_command_queue queue) {
  cl_context its_context = NULL;
  cl_device_id its_device = NULL;
  cl_command_queue_properties properties = 0;
  if (clGetCommandQueueInfo(queue, CL_QUEUE_CONTEXT, sizeof its_context, &its_context, NULL) != CL_SUCCESS ||
      clGetCommandQueueInfo(queue, CL_QUEUE_DEVICE, sizeof its_device, &its_device, NULL) != CL_SUCCESS ||
      clGetCommandQueueInfo(queue, CL_QUEUE_PROPERTIES, sizeof properties, &properties, NULL) != CL_SUCCESS)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "context_create_opencl: queue is not a command queue");
  if (its_context != context)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "context_create_opencl: the queue belongs to another cl_context");
  if (its_device != id)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "context_create_opencl: the queue belongs to another device");
  if (properties & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE)
    return context_fail(ctx, CLM_INVALID_ARGUMENT,
                        "context_create_opencl: the queue runs out of order, an in-order queue is expected");
  if (ctx->profiling && !(properties & CL_QUEUE_PROFILING_ENABLE))
    return context_fail(ctx, CLM_INVALID_ARGUMENT,
                        "context_create_opencl: profiling needs a queue with CL_QUEUE_PROFILING_ENABLE");
  return CLM_OK;
}

static clm_status join(clm_context *ctx, const clm_context_options *options, cl_context context, cl_device_id id,
                       cl_command_queue queue) {
  if (!context || !id || !queue)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "context_create_opencl: %s is NULL",
                        !context ? "context"
                        : !id    ? "device"
                                 : "queue");
  clm_status status = check_queue(ctx, context, id, queue);
  if (status) return status;
  cl_platform_id platform = NULL;
  status =
      opencl_check(ctx, clGetDeviceInfo(id, CL_DEVICE_PLATFORM, sizeof platform, &platform, NULL), "clGetDeviceInfo");
  if (status) return status;
  opencl_device d;
  opencl_describe(platform, id, &d);
  if (d.info.unusable[0])
    return context_fail(ctx, CLM_NO_DEVICE, "context_create_opencl: %s cannot be used: %s", d.info.name,
                        d.info.unusable);
  status = begin(ctx, options, &d);
  if (status) return status;
  opencl_state *s = opencl_state_of(ctx);
  status = opencl_check(ctx, clRetainContext(context), "clRetainContext");
  if (status == CLM_OK) {
    s->context = context;
    status = opencl_check(ctx, clRetainCommandQueue(queue), "clRetainCommandQueue");
    if (status == CLM_OK) s->queue = queue;
  }
  if (status) destroy(ctx);
  return status;
}

clm_status clm_context_create_opencl(cl_context context, cl_device_id id, cl_command_queue queue,
                                     const clm_context_options *options, clm_context **created) {
  static const clm_context_options defaults;
  if (!created) return CLM_INVALID_ARGUMENT;
  if (!options) options = &defaults;
  clm_status status = context_new(options, created);
  if (status == CLM_OK) status = join(*created, options, context, id, queue);
  return context_made(status, options, created);
}
