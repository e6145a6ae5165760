/* Memory of the device. */
#include "backend/opencl/opencl.h"
#include "core/try.h"
#include <stdlib.h>

static clm_status no_memory(const clm_buffer *b, cl_int error) {
  const clm_device_info *info = &opencl_state_of(b->context)->device.info;
  if (error == CL_OUT_OF_HOST_MEMORY || error == CL_MEM_OBJECT_ALLOCATION_FAILURE ||
      error == CL_INVALID_BUFFER_SIZE || error == CL_OUT_OF_RESOURCES)
    return context_fail(b->context, CLM_OUT_OF_MEMORY,
                        "buffer: no memory for %zu bytes on %s (largest allocation %llu, all memory %llu)", b->bytes,
                        info->name, (unsigned long long)info->max_allocation_bytes,
                        (unsigned long long)info->memory_bytes);
  return opencl_check(b->context, error, "clCreateBuffer");
}

static clm_status create(clm_buffer *b, cl_mem_flags flags, void *memory) {
  cl_int error;
  b->device = clCreateBuffer(opencl_state_of(b->context)->context, flags, b->bytes, memory, &error);
  if (error == CL_SUCCESS) return CLM_OK;
  b->device = NULL;
  return no_memory(b, error);
}

clm_status opencl_buffer_create(clm_buffer *b) {
  /* Not every driver refuses what it cannot hold (some only fail when a kernel runs). */
  if (b->bytes > opencl_state_of(b->context)->device.info.max_allocation_bytes)
    return no_memory(b, CL_INVALID_BUFFER_SIZE);
  return create(b, CL_MEM_READ_WRITE, NULL);
}

/* Kernels read four numbers at a time where a tensor's place in its buffer allows it: memory that begins elsewhere is
 * copied, and comes back while it is mapped. */
enum { HOST_ALIGNMENT = 16 };

clm_status opencl_buffer_wrap_host(clm_buffer *b, void *memory) {
  if ((uintptr_t)memory % HOST_ALIGNMENT == 0) return create(b, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, memory);
  b->outside = memory;
  return create(b, CL_MEM_READ_WRITE | CL_MEM_COPY_HOST_PTR, memory);
}

void opencl_buffer_destroy(clm_buffer *b) {
  opencl_forget_panels(b);
  cl_mem_flags flags = 0;
  /* The caller may free wrapped memory as soon as this returns, so the work that uses it must have run. */
  if (clGetMemObjectInfo(b->device, CL_MEM_FLAGS, sizeof flags, &flags, NULL) != CL_SUCCESS ||
      flags & CL_MEM_USE_HOST_PTR)
    opencl_finish(b->context);
  clReleaseMemObject(b->device);
}

clm_status opencl_buffer_write(clm_buffer *b, size_t offset, size_t bytes, const void *source) {
  return opencl_check(b->context,
                      clEnqueueWriteBuffer(opencl_state_of(b->context)->queue, b->device, CL_TRUE, offset, bytes,
                                           source, 0, NULL, NULL),
                      "writing a buffer");
}

clm_status opencl_buffer_read(clm_buffer *b, size_t offset, size_t bytes, void *destination) {
  TRY(opencl_step_ask(b->context));
  TRY(opencl_check(b->context,
                   clEnqueueReadBuffer(opencl_state_of(b->context)->queue, b->device, CL_TRUE, offset, bytes,
                                       destination, 0, NULL, NULL),
                   "reading a buffer"));
  return opencl_step_answer(b->context);
}

clm_status opencl_buffer_map(clm_buffer *b, void **memory) {
  cl_int error;
  if (b->outside) {
    *memory = b->outside;
    return opencl_buffer_read(b, 0, b->bytes, b->outside);
  }
  TRY(opencl_step_ask(b->context));
  void *mapped = clEnqueueMapBuffer(opencl_state_of(b->context)->queue, b->device, CL_TRUE,
                                    CL_MAP_READ | CL_MAP_WRITE, 0, b->bytes, 0, NULL, NULL, &error);
  if (error == CL_SUCCESS) *memory = b->host = mapped;
  TRY(opencl_check(b->context, error, "mapping a buffer"));
  return opencl_step_answer(b->context);
}

clm_status opencl_buffer_unmap(clm_buffer *b) {
  if (b->outside) return opencl_buffer_write(b, 0, b->bytes, b->outside);
  cl_int error = clEnqueueUnmapMemObject(opencl_state_of(b->context)->queue, b->device, b->host, 0, NULL, NULL);
  b->host = NULL;
  return opencl_check(b->context, error, "unmapping a buffer");
}

clm_status clm_buffer_wrap_cl_mem(clm_context *ctx, cl_mem memory, clm_buffer **buffer) {
  TRY(CONTEXT_NEED(ctx, "buffer_wrap_cl_mem", buffer));
  *buffer = NULL;
  if (ctx->backend->finish != opencl_finish)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "buffer_wrap_cl_mem: the context runs on the CPU");
  cl_context owner = NULL;
  cl_mem_object_type type = 0;
  size_t bytes = 0;
  if (!memory || clGetMemObjectInfo(memory, CL_MEM_CONTEXT, sizeof owner, &owner, NULL) != CL_SUCCESS ||
      clGetMemObjectInfo(memory, CL_MEM_TYPE, sizeof type, &type, NULL) != CL_SUCCESS ||
      clGetMemObjectInfo(memory, CL_MEM_SIZE, sizeof bytes, &bytes, NULL) != CL_SUCCESS)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "buffer_wrap_cl_mem: memory is not a memory object");
  if (type != CL_MEM_OBJECT_BUFFER)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "buffer_wrap_cl_mem: memory is an image, a buffer is expected");
  if (owner != opencl_state_of(ctx)->context)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "buffer_wrap_cl_mem: memory belongs to another cl_context");
  clm_buffer *b = calloc(1, sizeof *b);
  if (!b) return context_fail(ctx, CLM_OUT_OF_MEMORY, "buffer_wrap_cl_mem: out of host memory");
  clm_status status = opencl_check(ctx, clRetainMemObject(memory), "clRetainMemObject");
  if (status) {
    free(b);
    return status;
  }
  *b = (clm_buffer){.context = ctx, .bytes = bytes, .device = memory};
  *buffer = b;
  return CLM_OK;
}
