#define _GNU_SOURCE
#include "core/clock.h"
#include "state.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void cpu_destroy(clm_context *ctx) {
  cpu_state *state = ctx->state;
  cpu_pool_destroy(state->pool);
  free(state->single);
  free(state->stream);
  free(state);
}

/* Every operation is done when its call returns. */
static clm_status cpu_finish(clm_context *ctx) {
  (void)ctx;
  return CLM_OK;
}

static clm_status cpu_device(const clm_context *ctx, clm_device_info *info) {
  const cpu_state *state = ctx->state;
  long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  cpu_model_name(info->name, sizeof info->name);
  snprintf(info->platform, sizeof info->platform, "clmamba");
  snprintf(info->version, sizeof info->version, "%s", cpu_level_name(state->level));
  info->type = CLM_DEVICE_CPU;
  info->memory_bytes = info->max_allocation_bytes = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
  info->compute_units = (uint32_t)cpu_pool_threads(state->pool);
  info->max_work_group = 1;
  info->fp64 = state->level == CPU_REFERENCE;
  return CLM_OK;
}

#define HUGE_PAGE ((size_t)2 << 20)

void *cpu_memory(size_t bytes) {
  void *memory;
  bool large = bytes >= 2 * HUGE_PAGE;
  if (posix_memalign(&memory, large ? HUGE_PAGE : 64, bytes) != 0) return NULL;
#ifdef MADV_HUGEPAGE
  if (large) madvise(memory, bytes, MADV_HUGEPAGE); /* rows a page apart miss the TLB otherwise; only a hint */
#endif
  return memory;
}

static clm_status cpu_buffer_create(clm_buffer *b) {
  b->host = cpu_memory(b->bytes);
  if (b->host) return CLM_OK;
  return context_fail(b->context, CLM_OUT_OF_MEMORY, "buffer: no memory for %zu bytes", b->bytes);
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

static clm_status cpu_profile_begin(clm_context *ctx) {
  cpu_state *state = ctx->state;
  state->begin = clock_seconds();
  return CLM_OK;
}

static clm_status cpu_profile_end(clm_context *ctx, double *milliseconds) {
  const cpu_state *state = ctx->state;
  *milliseconds = (clock_seconds() - state->begin) * 1e3;
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
    .plan_create = cpu_plan_create,
    .plan_run = cpu_plan_run,
    .plan_destroy = cpu_plan_destroy,
    .profile_begin = cpu_profile_begin,
    .profile_end = cpu_profile_end,
    .limits = cpu_limits,
};

static clm_status choose_level(clm_context *ctx, const char *name, cpu_level *chosen) {
  const char *asked_by = "cpu_level";
  if (!name) {
    name = getenv("CLM_CPU_LEVEL");
    asked_by = "CLM_CPU_LEVEL";
  }
  *chosen = cpu_best_level();
  if (!name || !*name) return CLM_OK;
  for (int level = 0; level < CPU_LEVEL_COUNT; level++) {
    if (strcmp(name, cpu_level_name((cpu_level)level)) != 0) continue;
    if (!cpu_has((cpu_level)level))
      return context_fail(ctx, CLM_INVALID_ARGUMENT, "%s \"%s\": this processor does not have it, the best is %s",
                          asked_by, name, cpu_level_name(cpu_best_level()));
    *chosen = (cpu_level)level;
    return CLM_OK;
  }
  return context_fail(ctx, CLM_INVALID_ARGUMENT,
                      "%s \"%s\" is not reference, baseline, avx2, avx512, avx512vnni or neon", asked_by, name);
}

clm_status backend_cpu_create(clm_context *ctx, const clm_context_options *options) {
  cpu_level level;
  clm_status status = choose_level(ctx, options->cpu_level, &level);
  if (status) return status;
  if (options->threads < 0 || options->threads > 4096)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "threads is %d, 0 to 4096 is expected", options->threads);
  cpu_state *state = calloc(1, sizeof *state);
  cpu_pool *pool = cpu_pool_create(options->threads ? options->threads : cpu_available_processors());
  if (!state || !pool) {
    free(state);
    cpu_pool_destroy(pool);
    return context_fail(ctx, CLM_OUT_OF_MEMORY, "cpu: out of memory");
  }
  state->level = level;
  state->pool = pool;
  ctx->state = state;
  ctx->backend = &cpu_backend;
  cpu_kernels_init(&ctx->ops, level);
  cpu_plan_init(&ctx->record, level != CPU_REFERENCE);
  return CLM_OK;
}
