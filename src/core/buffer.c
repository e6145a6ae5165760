#include "core/context.h"
#include "core/try.h"
#include <stdlib.h>

static clm_status buffer_new(clm_context *ctx, size_t bytes, clm_buffer **out) {
  *out = NULL;
  if (bytes == 0)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "buffer: the size is 0 bytes, at least 1 is expected");
  clm_buffer *b = calloc(1, sizeof *b);
  if (!b) return context_fail(ctx, CLM_OUT_OF_MEMORY, "buffer: out of host memory");
  b->context = ctx;
  b->bytes = bytes;
  *out = b;
  return CLM_OK;
}

static clm_status buffer_made(clm_status status, clm_buffer **buffer) {
  if (status) {
    free(*buffer);
    *buffer = NULL;
  }
  return status;
}

clm_status clm_buffer_create(clm_context *ctx, size_t bytes, clm_buffer **buffer) {
  TRY(CONTEXT_NEED(ctx, "buffer_create", buffer));
  clm_status status = buffer_new(ctx, bytes, buffer);
  if (status) return status;
  status = ctx->backend->buffer_create(*buffer);
  if (status == CLM_OK) {
    (*buffer)->owned = true;
    ctx->memory_now += bytes;
    if (ctx->memory_now > ctx->memory_peak) ctx->memory_peak = ctx->memory_now;
  }
  return buffer_made(status, buffer);
}

clm_status clm_buffer_wrap_host(clm_context *ctx, void *memory, size_t bytes, clm_buffer **buffer) {
  if (buffer) *buffer = NULL;
  TRY(CONTEXT_NEED(ctx, "buffer_wrap_host", memory, buffer));
  clm_status status = buffer_new(ctx, bytes, buffer);
  if (status) return status;
  return buffer_made(ctx->backend->buffer_wrap_host(*buffer, memory), buffer);
}

void clm_buffer_destroy(clm_buffer **buffer) {
  if (!buffer || !*buffer) return;
  clm_buffer *b = *buffer;
  if (b->owned) b->context->memory_now -= b->bytes;
  if (!context_is_inherited(b->context)) b->context->backend->buffer_destroy(b);
  free(b);
  *buffer = NULL;
}

static clm_status check_range(const clm_buffer *b, size_t offset, size_t bytes, const char *call) {
  if (offset > b->bytes || bytes > b->bytes - offset)
    return context_fail(b->context, CLM_INVALID_ARGUMENT, "%s: bytes %zu to %zu, but the buffer has %zu", call,
                        offset, offset + bytes, b->bytes);
  return CLM_OK;
}

/* Operations that are being recorded have not written it yet. */
static clm_status check_recording(const clm_buffer *b, const char *call) {
  if (!b->context->plan) return CLM_OK;
  return context_fail(b->context, CLM_UNSUPPORTED, "%s: a plan of operations is being recorded", call);
}

clm_status clm_buffer_write(clm_buffer *b, size_t offset, size_t bytes, const void *source) {
  if (!b) return CLM_INVALID_ARGUMENT;
  if (bytes) TRY(CONTEXT_NEED(b->context, "buffer_write", source));
  clm_status status = check_range(b, offset, bytes, "buffer_write");
  if (status || bytes == 0) return status;
  TRY(check_recording(b, "buffer_write"));
  b->version++;
  return b->context->backend->buffer_write(b, offset, bytes, source);
}

clm_status clm_buffer_read(clm_buffer *b, size_t offset, size_t bytes, void *destination) {
  if (!b) return CLM_INVALID_ARGUMENT;
  if (bytes) TRY(CONTEXT_NEED(b->context, "buffer_read", destination));
  clm_status status = check_range(b, offset, bytes, "buffer_read");
  if (status || bytes == 0) return status;
  TRY(check_recording(b, "buffer_read"));
  return b->context->backend->buffer_read(b, offset, bytes, destination);
}

clm_status clm_buffer_map(clm_buffer *b, void **memory) {
  if (!b) return CLM_INVALID_ARGUMENT;
  TRY(CONTEXT_NEED(b->context, "buffer_map", memory));
  *memory = NULL;
  if (b->mapped) return context_fail(b->context, CLM_INVALID_ARGUMENT, "buffer_map: the buffer is already mapped");
  TRY(check_recording(b, "buffer_map"));
  b->version++;
  TRY(b->context->backend->buffer_map(b, memory));
  b->mapped = true;
  return CLM_OK;
}

clm_status clm_buffer_unmap(clm_buffer *b) {
  if (!b) return CLM_INVALID_ARGUMENT;
  if (!b->mapped) return context_fail(b->context, CLM_INVALID_ARGUMENT, "buffer_unmap: the buffer is not mapped");
  b->mapped = false;
  return b->context->backend->buffer_unmap(b);
}

clm_status clm_buffer_keep_packed(clm_buffer *b, bool keep) {
  if (!b) return CLM_INVALID_ARGUMENT;
  if (!keep && b->context->backend->buffer_forget) b->context->backend->buffer_forget(b);
  b->keeps_packed = keep;
  return CLM_OK;
}

size_t clm_buffer_size(const clm_buffer *b) { return b ? b->bytes : 0; }
clm_context *clm_buffer_context(const clm_buffer *b) { return b ? b->context : NULL; }
