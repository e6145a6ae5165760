#include "backend/opencl/engine.h"
#include "backend/opencl/matmul.h"
#include "backend/opencl/opencl.h"
#include "core/dtype.h"
#include "core/rng.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Those of cl/engine_fragments.h are all built for the same tile. */
#define FRAGMENTS(name_, NAME, needs_, tf32, mma)                                                                    \
  {                                                                                                                  \
    .name = name_, .defines = " -DENGINE_" NAME, .variable = "CLM_OPENCL_" NAME, .needs = needs_,                    \
    .tile = {128, 128, 2}, .split_groups = 1, .items = 256, .consumers = 256, .fragments = true, .direct = mma,      \
    .chained = mma, .formats = {                                                                                     \
      true,                                                                                                          \
      true,                                                                                                          \
      tf32                                                                                                           \
    }                                                                                                                \
  }
#define EMULATED(name_, NAME, mma)                                                                                   \
  {                                                                                                                  \
    .name = name_, .defines = " -DENGINE_" NAME " -DENGINE_EMULATED", .variable = "CLM_OPENCL_" NAME,                \
    .tile = {128, 128, 1}, .split_groups = 1, .items = 256, .consumers = 256, .formats = {true, true, false},        \
    .fragments = true, .direct = mma, .chained = mma, .emulated = true                                               \
  }

/* The fastest first; a device takes the first that passes. */
static const matmul_engine engines[] = {
    {.name = "wgmma",
     .defines = " -DENGINE_WGMMA " OPENCL_LATE,
     .variable = "CLM_OPENCL_WGMMA",
     .needs = ENGINE_PTX,
     .tile = {128, 128, 2},
     .split_groups = 1,
     .items = 288,
     .consumers = 256,
     .formats = {true, true, true},
     .quads = true,
     .planes_together = true},
    FRAGMENTS("mma", "MMA", ENGINE_PTX, true, true),
    FRAGMENTS("mfma", "MFMA", ENGINE_AMD, false, false),
    FRAGMENTS("wmma", "WMMA", ENGINE_AMD, false, false),
    FRAGMENTS("dpas", "DPAS", ENGINE_INTEL, false, false),
    EMULATED("mma", "MMA", true),
    EMULATED("mfma", "MFMA", false),
    EMULATED("wmma", "WMMA", false),
    EMULATED("dpas", "DPAS", false),
};

enum { ENGINES = sizeof engines / sizeof engines[0] };

static bool is_off(const char *variable) {
  const char *value = getenv(variable);
  return value && strcmp(value, "0") == 0;
}

/* ---- Is it right? ---- */

/* Several tiles, of which the last are not whole. One tile where the instruction is emulated: a simulator of a device
 * takes minutes over more. */
static const matmul_shape check_shape = {.m = 197, .n = 141, .k = 83, .batch = 1},
                          check_emulated = {.m = 37, .n = 29, .k = 19, .batch = 1};
enum { CHECK_BYTES = 4 * 200 * 200 };

/* Sums of products of numbers below 1 that bf16 holds, by the engine and by the kernel that runs everywhere. */
static bool same_product(clm_context *ctx, const matmul_engine *e, clm_buffer *buffers[4], void *host) {
  const matmul_shape s = e->emulated ? check_emulated : check_shape;
  clm_matmul_args args = {.a = clm_tensor_of(buffers[0], 0, CLM_BF16, 2, (const int64_t[]){s.m, s.k}),
                          .b = clm_tensor_of(buffers[1], 0, CLM_BF16, 2, (const int64_t[]){s.n, s.k}),
                          .out = clm_tensor_of(buffers[2], 0, CLM_F32, 2, (const int64_t[]){s.m, s.n})};
  args.b = clm_tensor_transpose(args.b, 0, 1);
  const size_t bytes = (size_t)(s.m * s.n) * sizeof(float);
  float *got = host, *want = got + s.m * s.n;
  /* Waits between work-items end by themselves: a driver on which they never would costs a fall-back, not a hang. */
  clm_status status = opencl_engine_matmul(ctx, e, &s, &args, " -DWAIT_LIMIT=4194304");
  args.out.buffer = buffers[3];
  if (!status) status = opencl_matmul_tiled(ctx, &s, &args);
  if (!status) status = clm_buffer_read(buffers[2], 0, bytes, got);
  if (!status) status = clm_buffer_read(buffers[3], 0, bytes, want);
  for (int64_t i = 0; i < s.m * s.n && !status; i++)
    if (!(fabsf(got[i] - want[i]) <= 1e-4f)) return false;
  return status == CLM_OK;
}

static bool passes(clm_context *ctx, const matmul_engine *e) {
  clm_buffer *buffers[4] = {NULL};
  uint16_t *host = malloc(2 * CHECK_BYTES);
  bool right = host != NULL;
  rng random = rng_seed(1, 0);
  for (int i = 0; right && i < CHECK_BYTES / 2; i++) host[i] = dtype_to_bf16((float)(2 * rng_uniform(&random) - 1));
  for (int i = 0; right && i < 4; i++) right = clm_buffer_create(ctx, CHECK_BYTES, &buffers[i]) == CLM_OK;
  for (int i = 0; right && i < 4; i++) right = clm_buffer_write(buffers[i], 0, CHECK_BYTES, host) == CLM_OK;
  right = right && same_product(ctx, e, buffers, host);
  for (int i = 0; i < 4; i++) clm_buffer_destroy(&buffers[i]);
  free(host);
  return right;
}

static bool is_candidate(const clm_context *ctx, const matmul_engine *e) {
  const opencl_state *s = opencl_state_of(ctx);
  const schedule_device *d = opencl_schedule_device(ctx);
  const char *emulated = getenv("CLM_OPENCL_EMULATE"), *plain = getenv("CLM_OPENCL_PLAIN");
  if (is_off(e->variable) || d->max_work_group < e->items) return false;
  if (e->emulated) return emulated && strcmp(emulated, e->name) == 0;
  if (plain && strcmp(plain, "1") == 0) return false;
  switch (e->needs) {
  case ENGINE_PTX: return d->ptx == PTX_BF16;
  case ENGINE_AMD: return s->quirks.may_have_amdgcn;
  case ENGINE_INTEL: return opencl_has_extension(&s->device, EXTENSION_INTEL_MATRICES);
  }
  return false;
}

const matmul_engine *opencl_engine_named(const char *name) {
  for (int i = 0; i < ENGINES; i++)
    if (!engines[i].emulated && strcmp(engines[i].name, name) == 0) return &engines[i];
  return NULL;
}

static const matmul_engine *first_that_passes(clm_context *ctx, bool fragments) {
  const matmul_engine *found = NULL;
  opencl_state *s = opencl_state_of(ctx);
  const bool profiling = s->profile_open, dry_run = s->dry_run; /* a probe runs, and is no part of what is timed */
  s->profile_open = s->dry_run = false;
  clm_buffer **workspace = &ctx->workspace[ctx->depth], *const before = *workspace; /* nor of the memory counted */
  const uint64_t peak = ctx->memory_peak;
  *workspace = NULL;
  for (int i = 0; i < ENGINES && !found; i++) {
    if ((fragments && !engines[i].fragments) || !is_candidate(ctx, &engines[i])) continue;
    if (passes(ctx, &engines[i])) found = &engines[i];
    else context_log(ctx, CLM_LOG_DEBUG, "matrix engine %s: not on this device (%s)", engines[i].name, ctx->error);
  }
  clm_buffer_destroy(workspace);
  *workspace = before;
  ctx->memory_peak = peak;
  s->profile_open = profiling;
  s->dry_run = dry_run;
  ctx->error[0] = '\0'; /* a probe that failed is no failure of the caller's */
  return found;
}

const matmul_engine *opencl_engine(clm_context *ctx) {
  opencl_state *s = opencl_state_of(ctx);
  if (!s->engine_asked) s->engine = first_that_passes(ctx, false);
  s->engine_asked = true;
  return s->engine;
}

const matmul_engine *opencl_fragment_engine(clm_context *ctx) {
  opencl_state *s = opencl_state_of(ctx);
  if (s->fragment_engine_asked) return s->fragment_engine;
  s->fragment_engine = opencl_engine(ctx);
  if (s->fragment_engine && !s->fragment_engine->fragments) s->fragment_engine = first_that_passes(ctx, true);
  s->fragment_engine_asked = true;
  return s->fragment_engine;
}
