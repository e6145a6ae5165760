#include "core/context.h"
#include "core/device.h"
#include "core/try.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

clm_status context_new(const clm_context_options *options, clm_context **created) {
  *created = NULL;
  clm_context *ctx = calloc(1, sizeof *ctx);
  if (!ctx) return CLM_OUT_OF_MEMORY;
  ctx->process = (int)getpid();
  ctx->profiling = options->profiling;
  ctx->log = options->log;
  ctx->log_user = options->log_user;
  *created = ctx;
  return CLM_OK;
}

clm_status context_made(clm_status status, const clm_context_options *options, clm_context **context) {
  if (status == CLM_OK) return CLM_OK;
  if (options->error && options->error_size)
    snprintf(options->error, options->error_size, "%s", *context ? (*context)->error : clm_status_string(status));
  free(*context);
  *context = NULL;
  return status;
}

/* "opencl:N" -> N; -1 if the text is not of that form. */
static int parse_index(const char *device) {
  const char *digits = device + strlen("opencl:");
  if (strncmp(device, "opencl:", strlen("opencl:")) != 0 || *digits == '\0') return -1;
  char *end;
  long n = strtol(digits, &end, 10);
  return *end == '\0' && n >= 0 && n <= 9999 ? (int)n : -1;
}

static clm_status create_on(clm_context *ctx, const clm_context_options *options) {
  const char *device = options->device ? options->device : "auto";
  if (strcmp(device, "cpu") == 0) return backend_cpu_create(ctx, options);
  if (strcmp(device, "auto") == 0) {
    clm_status status = backend_opencl_create(ctx, options, OPENCL_GPU_ONLY);
    if (status == CLM_OK) return CLM_OK;
    if (status != CLM_NO_DEVICE) context_log(ctx, CLM_LOG_WARNING, "%s; using the CPU", ctx->error);
    return backend_cpu_create(ctx, options);
  }
  if (strcmp(device, "opencl") == 0) return backend_opencl_create(ctx, options, OPENCL_FIRST);
  int index = parse_index(device);
  if (index < 0)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "device \"%s\" is not auto, cpu, opencl or opencl:N", device);
  return backend_opencl_create(ctx, options, index);
}

clm_status clm_context_create(const clm_context_options *options, clm_context **context) {
  static const clm_context_options defaults;
  if (!context) return CLM_INVALID_ARGUMENT;
  if (!options) options = &defaults;
  clm_status status = context_new(options, context);
  if (status == CLM_OK) {
    status = create_on(*context, options);
    if (status == CLM_OK) (*context)->error[0] = '\0';
  }
  return context_made(status, options, context);
}

bool context_is_inherited(const clm_context *ctx) { return ctx->process != (int)getpid(); }

void clm_context_destroy(clm_context **context) {
  if (!context || !*context) return;
  clm_context *ctx = *context;
  const bool inherited = context_is_inherited(ctx);
  if (!inherited) ctx->backend->finish(ctx);
  for (int i = 0; i < CONTEXT_NESTING; i++) clm_buffer_destroy(&ctx->workspace[i]);
  if (!inherited) ctx->backend->destroy(ctx);
  free(ctx);
  *context = NULL;
}

clm_status context_need(clm_context *ctx, const char *call, const char *names, const void *const *pointers,
                        size_t count) {
  if (!ctx) return CLM_INVALID_ARGUMENT;
  for (size_t i = 0; i < count; i++) {
    names += strspn(names, ", ");
    const int length = (int)strcspn(names, ",");
    if (!pointers[i]) return context_fail(ctx, CLM_INVALID_ARGUMENT, "%s: %.*s is NULL", call, length, names);
    names += length;
  }
  return CLM_OK;
}

clm_status clm_context_finish(clm_context *ctx) { return ctx ? ctx->backend->finish(ctx) : CLM_INVALID_ARGUMENT; }
const char *clm_context_error(const clm_context *ctx) { return ctx ? ctx->error : ""; }
const char *clm_context_explain(const clm_context *ctx) { return ctx ? ctx->explain : ""; }

clm_status clm_context_device(const clm_context *ctx, clm_device_info *info) {
  if (!ctx || !info) return CLM_INVALID_ARGUMENT;
  memset(info, 0, sizeof *info);
  return ctx->backend->device(ctx, info);
}

void clm_context_memory(const clm_context *ctx, uint64_t *now, uint64_t *peak) {
  if (now) *now = ctx ? ctx->memory_now : 0;
  if (peak) *peak = ctx ? ctx->memory_peak : 0;
}

clm_status clm_profile_begin(clm_context *ctx) {
  if (!ctx) return CLM_INVALID_ARGUMENT;
  if (!ctx->profiling)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "profile_begin: the context was created without profiling");
  return ctx->backend->profile_begin(ctx);
}

clm_status clm_profile_end(clm_context *ctx, double *milliseconds) {
  TRY(CONTEXT_NEED(ctx, "profile_end", milliseconds));
  if (!ctx->profiling)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "profile_end: the context was created without profiling");
  return ctx->backend->profile_end(ctx, milliseconds);
}

clm_status context_workspace(clm_context *ctx, size_t bytes, clm_buffer **workspace) {
  *workspace = NULL;
  if (bytes == 0) bytes = 1;
  if (ctx->plan) return op_plan_workspace_of(ctx->plan, ctx->depth, bytes, workspace);
  clm_buffer **own = &ctx->workspace[ctx->depth];
  if (!*own || (*own)->bytes < bytes) {
    clm_buffer *larger; /* made first: a failure leaves the old one in place */
    clm_status status = clm_buffer_create(ctx, bytes, &larger);
    if (status) return status;
    clm_buffer_destroy(own);
    *own = larger;
  }
  *workspace = *own;
  return CLM_OK;
}

clm_status context_enter(clm_context *ctx, size_t bytes, clm_buffer **workspace) {
  if (ctx->depth + 1 == CONTEXT_NESTING)
    return context_fail(ctx, CLM_UNSUPPORTED, "context: operations nest more than %d deep", CONTEXT_NESTING);
  clm_status status = context_workspace(ctx, bytes, workspace);
  if (status == CLM_OK) ctx->depth++;
  return status;
}

void context_leave(clm_context *ctx) { ctx->depth--; }
