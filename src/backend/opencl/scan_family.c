#include "backend/opencl/scan_family.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

clm_status scan_check_dtypes(clm_context *ctx, const char *op, clm_dtype dtype, const clm_tensor *const *tensors,
                             size_t count) {
  for (size_t i = 0; i < count; i++)
    if (tensors[i]->buffer && tensors[i]->dtype != dtype)
      return context_fail(ctx, CLM_UNSUPPORTED, "%s: the OpenCL backend computes on %s tensors, not yet on %s", op,
                          clm_dtype_name(dtype), clm_dtype_name(tensors[i]->dtype));
  return CLM_OK;
}

const char *scan_device_defines(const schedule_device *d) {
  if (d->is_cpu) return "-DNO_UNROLL";
#define PTX      "-DCLM_PTX "
#define PTX_BF16 PTX "-DCLM_PTX_BF16 "
  static const char *const table[3][4] = {
      {"", "-DSHUFFLE_PTX", "-DSHUFFLE_KHR", "-DSHUFFLE_LOCAL -DNO_UNROLL"},
      {PTX, PTX "-DSHUFFLE_PTX", PTX "-DSHUFFLE_KHR", PTX "-DSHUFFLE_LOCAL"},
      {PTX_BF16, PTX_BF16 "-DSHUFFLE_PTX", PTX_BF16 "-DSHUFFLE_KHR", PTX_BF16 "-DSHUFFLE_LOCAL"},
  };
  return table[d->ptx][d->shuffle];
}

scan_fixed scan_fix_flags(const clm_context *ctx, int32_t flags) {
  scan_fixed fixed = {""};
  if (!opencl_schedule_device(ctx)->is_cpu)
    snprintf(fixed.define, sizeof fixed.define, " -DSCAN_FIXED=%d", (int)flags);
  return fixed;
}

fixed_steps scan_fix_steps(const clm_context *ctx, const char *prefix, const char *const *names, const int64_t *steps,
                           size_t count) {
  fixed_steps fixed = {""};
  if (opencl_schedule_device(ctx)->is_cpu || count == 0) return fixed;
  size_t used = (size_t)snprintf(fixed.define, sizeof fixed.define, " -D%s_FIXED_STEPS=1", prefix);
  for (size_t i = 0; i < count && used < sizeof fixed.define; i++)
    used += (size_t)snprintf(fixed.define + used, sizeof fixed.define - used, " -D%s_STEP_%s=%" PRId64 "L", prefix,
                             names[i], steps[i]);
  return fixed;
}

int32_t scan_env(const char *name) {
  const char *text = getenv(name);
  return text ? (int32_t)strtol(text, NULL, 10) : 0;
}

selective_scan_force scan_force(const char *prefix) {
  selective_scan_force force;
  const struct {
    const char *name;
    int32_t *value;
  } table[] = {{"LANES", &force.lanes},  {"PER_LANE", &force.per_lane}, {"WORK_GROUP", &force.work_group},
               {"TILE", &force.tile},    {"BLOCK", &force.block},       {"BUFFERS", &force.buffers},
               {"CHUNKS", &force.chunks}};
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    char name[64];
    snprintf(name, sizeof name, "%s_%s", prefix, table[i].name);
    *table[i].value = scan_env(name);
  }
  return force;
}

clm_status scan_reduce(clm_context *ctx, const clm_buffer *parts, int64_t offset, int64_t count, int64_t part_stride,
                       const clm_tensor *out) {
  opencl_kernel *kernel;
  char defines[64];
  snprintf(defines, sizeof defines, "-DSTORAGE_TYPE=%s -DPART_TYPE=%s", clm_dtype_name(out->dtype),
           clm_dtype_name(out->dtype == CLM_C64 ? CLM_C64 : CLM_F32));
  clm_status status = opencl_kernel_get(ctx, "scan_reduce", "scan_reduce", defines, &kernel);
  if (status) return status;
  scan_reduce_args r = {.out = opencl_view_of(out),
                        .shape = {1, 1, 1, 1},
                        .parts_offset = offset,
                        .count = count,
                        .part_stride = part_stride};
  for (int i = 0; i < out->rank; i++) r.shape[i] = out->shape[i];
  const size_t elements = (size_t)(r.shape[0] * r.shape[1] * r.shape[2] * r.shape[3]);
  return OPENCL_RUN(ctx, kernel, 1, &elements, NULL, ARG_BUFFER(parts), ARG_DATA(*out), ARG_STRUCT(r));
}
