#include "core/context.h"
#include <stdlib.h>
#include <string.h>

static void cpu_destroy(clm_context *ctx) { (void)ctx; }
static clm_status cpu_finish(clm_context *ctx) {
  (void)ctx;
  return CLM_OK;
}
static clm_status cpu_device(const clm_context *ctx, clm_device_info *info) {
  (void)ctx, (void)info;
  return CLM_OK;
}

static clm_status cpu_buffer_create(clm_buffer *b) {
  void *memory;
  if (posix_memalign(&memory, 64, b->bytes) != 0)
    return context_fail(b->context, CLM_OUT_OF_MEMORY, "buffer: no memory for %zu bytes", b->bytes);
  b->host = memory;
  return CLM_OK;
}

static clm_status cpu_buffer_wrap_host(clm_buffer *b, void *memory) {
  b->host = memory;
  return CLM_OK;
}

static void cpu_buffer_destroy(clm_buffer *b) {
  if (b->owned) free(b->host);
}

static clm_status cpu_buffer_write(clm_buffer *b, size_t offset, size_t bytes, const void *source) {
  memcpy((char *)b->host + offset, source, bytes);
  return CLM_OK;
}

static clm_status cpu_buffer_read(clm_buffer *b, size_t offset, size_t bytes, void *destination) {
  memcpy(destination, (const char *)b->host + offset, bytes);
  return CLM_OK;
}

static clm_status cpu_buffer_map(clm_buffer *b, void **memory) {
  *memory = b->host;
  return CLM_OK;
}

static clm_status cpu_buffer_unmap(clm_buffer *b) {
  (void)b;
  return CLM_OK;
}

static const backend cpu_backend = {
    .name = "cpu",
    .destroy = cpu_destroy,
    .finish = cpu_finish,
    .device = cpu_device,
    .buffer_create = cpu_buffer_create,
    .buffer_wrap_host = cpu_buffer_wrap_host,
    .buffer_destroy = cpu_buffer_destroy,
    .buffer_write = cpu_buffer_write,
    .buffer_read = cpu_buffer_read,
    .buffer_map = cpu_buffer_map,
    .buffer_unmap = cpu_buffer_unmap,
};

clm_status backend_cpu_create(clm_context *ctx, const clm_context_options *options) {
  (void)options;
  ctx->backend = &cpu_backend;
  return CLM_OK;
}
