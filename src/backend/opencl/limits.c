#include "backend/opencl/opencl.h"

/* Small enough for any device, large enough to leave caches and to hide a launch. */
typedef struct sizes {
  int64_t floats;   /* of each of two buffers     */
  int64_t exp_each; /* exponentials of a work-item: 8 times this */
  int64_t exp_items;
} sizes;

static sizes sizes_of(const clm_device_info *d) {
  bool cpu = d->type == CLM_DEVICE_CPU;
  sizes s = {.floats = (cpu ? INT64_C(32) : INT64_C(256)) << 20,
             .exp_each = cpu ? 64 : 1024,
             .exp_items = (int64_t)d->compute_units * (cpu ? 4096 : 8192)};
  while (s.floats > 1 << 20 &&
         ((uint64_t)s.floats * 4 > d->max_allocation_bytes || (uint64_t)s.floats * 16 > d->memory_bytes))
    s.floats /= 2;
  return s;
}

enum { COPY, READ, EXP, KERNELS, READ_EACH = 16, GROUP = 64 };

typedef struct probe {
  opencl_kernel *kernel[KERNELS];
  clm_tensor in, out;
  sizes size;
} probe;

static clm_status run(clm_context *ctx, const probe *p, int which) {
  const size_t local = GROUP;
  const size_t copy = (size_t)p->size.floats / 4, read = copy / READ_EACH, exp = (size_t)p->size.exp_items;
  switch (which) {
  case COPY: return OPENCL_RUN(ctx, p->kernel[COPY], 1, &copy, &local, ARG_TENSOR(p->in), ARG_TENSOR(p->out));
  case READ:
    return OPENCL_RUN(ctx, p->kernel[READ], 1, &read, &local, ARG_TENSOR(p->in), ARG_TENSOR(p->out),
                      ARG_I32(READ_EACH));
  default:
    return OPENCL_RUN(ctx, p->kernel[EXP], 1, &exp, &local, ARG_TENSOR(p->out), ARG_I32(p->size.exp_each),
                      ARG_F32(0.25f));
  }
}

/* The best of some runs, in seconds; one before them is not counted. */
static clm_status fastest(clm_context *ctx, const probe *p, int which, int runs, double *seconds) {
  *seconds = 0;
  for (int i = 0; i <= runs; i++) {
    double ms;
    clm_status status = opencl_profile_begin(ctx);
    if (status == CLM_OK) status = run(ctx, p, which);
    if (status == CLM_OK) status = opencl_profile_end(ctx, &ms);
    if (status != CLM_OK) return status;
    if (i > 0 && ms > 0 && (*seconds == 0 || ms * 1e-3 < *seconds)) *seconds = ms * 1e-3;
  }
  return CLM_OK;
}

clm_status opencl_limits(clm_context *ctx, int runs, backend_limits *limits) {
  static const char *const names[KERNELS] = {"limits_copy", "limits_read", "limits_exp"};
  probe p = {.size = sizes_of(&opencl_state_of(ctx)->device.info)};
  clm_buffer *in = NULL, *out = NULL;
  size_t bytes = (size_t)p.size.floats * sizeof(float);
  double seconds[KERNELS] = {0};
  *limits = (backend_limits){0};
  clm_status status = clm_buffer_create(ctx, bytes, &in);
  if (status == CLM_OK) status = clm_buffer_create(ctx, bytes, &out);
  p.in = clm_tensor_of(in, 0, CLM_F32, 1, &p.size.floats);
  p.out = clm_tensor_of(out, 0, CLM_F32, 1, &p.size.floats);
  if (status == CLM_OK) status = clm_axpby(ctx, &(clm_axpby_args){.out = p.in}); /* pages must exist */
  for (int i = 0; i < KERNELS && status == CLM_OK; i++) {
    status = opencl_kernel_get(ctx, "limits", names[i], "", &p.kernel[i]);
    if (status == CLM_OK) status = fastest(ctx, &p, i, runs, &seconds[i]);
  }
  clm_buffer_destroy(&in);
  clm_buffer_destroy(&out);
  if (status != CLM_OK) return status;
  if (seconds[COPY] > 0) limits->copy_bytes = 2 * (double)bytes / seconds[COPY];
  if (seconds[READ] > 0) limits->read_bytes = (double)bytes / seconds[READ];
  if (seconds[EXP] > 0)
    limits->exponentials = 8.0 * (double)p.size.exp_each * (double)p.size.exp_items / seconds[EXP];
  return CLM_OK;
}
