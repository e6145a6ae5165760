/* Associative scan: one pass, or reduce-then-scan over chunks. Its gradients are a scan against the direction of the
 * run, which also multiplies by the states before each step for the gradient of a. */
#include "schedule/assoc_scan.h"
#include "backend/opencl/operands.h"
#include "backend/opencl/ops.h"
#include "backend/opencl/scan_family.h"
#include "core/arith.h"
#include <stdio.h>
#include <string.h>

enum { /* as in cl/assoc_scan.cl */
       ASSOC_REVERSE = 1,
       ASSOC_EXCLUSIVE = 2,
       ASSOC_CONJUGATE = 4,
       ASSOC_INITIAL = 8,
       ASSOC_FINAL = 16,
       ASSOC_CARRIED = 32,
       ASSOC_OUTPUT = 64,
       ASSOC_PRODUCT = 128,
       ASSOC_REDUCE = 256,
};

typedef struct scan_key {
  char op[16];
  clm_dtype dtype;
  assoc_scan_request request;
} scan_key;

typedef struct scan_plan {
  assoc_scan_plan tile;
  opencl_kernel *scan, *carry;
  opencl_kernel *states; /* as scan, with its output in f32: for gradients */
} scan_plan;

/* One run: the scan itself, or that of its gradients. */
typedef struct run {
  opencl_kernel *kernel;
  const clm_tensor *a, *b, *initial, *h, *final, *factor, *product;
  int64_t count; /* steps: `length`, or one more */
  int32_t a_shift, b_shift, flags;
} run;

static clm_status get_kernel(clm_context *ctx, const assoc_scan_shape *s, const assoc_scan_plan *tile,
                             const clm_tensor *a, bool states, const char *name, opencl_kernel **kernel) {
  char base[160];
  snprintf(base, sizeof base, "%s -DNUMBER_COMPLEX=%d -DSCAN_CHANNELS=%d -DSCAN_SEGMENTS=%d -DSCAN_STEPS=%d%s",
           scan_device_defines(opencl_schedule_device(ctx)), s->complex, tile->channels, tile->segments, tile->steps,
           states && (a->dtype == CLM_F16 || a->dtype == CLM_BF16) ? " -DH_TYPE=f32" : "");
  return opencl_kernel_get(ctx, "assoc_scan", name, OPENCL_DEFINES(base, OPERAND_TYPE(X_TYPE, *a)).text, kernel);
}

static clm_status find_plan(clm_context *ctx, const assoc_scan_shape *s, const clm_tensor *a, scan_plan **plan) {
  scan_key key;
  memset(&key, 0, sizeof key); /* padding too: it is compared byte by byte */
  snprintf(key.op, sizeof key.op, "assoc_scan");
  key.dtype = a->dtype;
  key.request.batch = s->batch;
  key.request.length = s->length;
  key.request.channels = s->channels;
  key.request.complex = s->complex;
  key.request.length_fast = length_is_fast(a);
  key.request.force.steps = scan_env("CLM_ASSOC_STEPS");
  key.request.force.work_group = scan_env("CLM_ASSOC_WORK_GROUP");
  bool found;
  scan_plan *p = plan_cache_get(opencl_plans(ctx), &key, sizeof key, &found);
  *plan = p;
  if (found) return CLM_OK;
  schedule_assoc_scan(opencl_schedule_device(ctx), &key.request, &p->tile);
  clm_status status = get_kernel(ctx, s, &p->tile, a, false, "assoc_scan", &p->scan);
  if (!status) status = get_kernel(ctx, s, &p->tile, a, false, "assoc_scan_carry", &p->carry);
  if (status) plan_cache_forget(opencl_plans(ctx));
  return status;
}

/* Chunks of a run; the one step more of a gradient may need one more than the plan has. */
static int32_t chunks_of(const scan_plan *p, const run *r) {
  return p->tile.chunks == 1 ? 1 : (int32_t)div_up(r->count, p->tile.chunk);
}

/* The first `chunks` chunks of a run. */
static clm_status run_pass(clm_context *ctx, const assoc_scan_shape *s, const scan_plan *p, const run *r,
                           int64_t chunks, int32_t flags, const clm_buffer *workspace, int64_t carries_at) {
  const assoc_scan_plan *t = &p->tile;
  const int32_t all = chunks_of(p, r);
  size_t size = (size_t)(t->channels * t->segments);
  size_t blocks = (size_t)div_up(s->channels, t->channels);
  size_t global[3] = {blocks * size, (size_t)chunks, (size_t)s->batch}, local[3] = {size, 1, 1};
  return OPENCL_RUN(ctx, r->kernel, 3, global, local, ARG_TENSOR3(*r->a), ARG_TENSOR3(*r->b),
                    ARG_TENSOR2(*r->initial), ARG_TENSOR3(*r->h), ARG_TENSOR2(*r->final), ARG_TENSOR3(*r->factor),
                    ARG_TENSOR3(*r->product), ARG_BUFFER(workspace), ARG_BUFFER(workspace), ARG_I64(carries_at),
                    ARG_I64(r->count), ARG_I64(s->length), ARG_I64(all == 1 ? r->count : t->chunk), ARG_I32(all),
                    ARG_I32(s->channels), ARG_I32(r->a_shift), ARG_I32(r->b_shift), ARG_I32(flags));
}

/* Numbers that the chunks of a run take in the workspace: pairs, then carries; room for one chunk more. */
static int64_t carry_numbers(const assoc_scan_shape *s, const scan_plan *p) {
  return p->tile.chunks > 1 ? 3 * s->batch * (p->tile.chunks + 1) * s->channels : 0;
}

static clm_status run_scan(clm_context *ctx, const assoc_scan_shape *s, const scan_plan *p, const run *r,
                           const clm_buffer *workspace) {
  const int32_t chunks = chunks_of(p, r);
  if (chunks == 1) return run_pass(ctx, s, p, r, 1, r->flags, NULL, 0);
  const int64_t carries_at = 2 * s->batch * chunks * s->channels;
  const int32_t how = r->flags & (ASSOC_REVERSE | ASSOC_CONJUGATE);
  size_t rows[2] = {(size_t)s->channels, (size_t)s->batch};
  clm_status status = run_pass(ctx, s, p, r, chunks - 1, how | ASSOC_REDUCE, workspace, 0);
  if (!status)
    status = OPENCL_RUN(ctx, p->carry, 2, rows, NULL, ARG_BUFFER(workspace), ARG_BUFFER(workspace),
                        ARG_I64(carries_at), ARG_TENSOR2(*r->initial), ARG_I32((r->flags & ASSOC_INITIAL) != 0),
                        ARG_I32(chunks), ARG_I32(s->channels));
  if (!status)
    status = run_pass(ctx, s, p, r, chunks, (r->flags & ~ASSOC_INITIAL) | ASSOC_CARRIED, workspace, carries_at);
  return status;
}

static void explain(clm_context *ctx, const char *op, const scan_plan *p) {
  context_explain(ctx, "%s: %d channels x %d segments x %d steps, %d chunks of %lld; %s", op, p->tile.channels,
                  p->tile.segments, p->tile.steps, p->tile.chunks, (long long)p->tile.chunk, p->tile.why);
}

static size_t number_bytes(const assoc_scan_shape *s) { return s->complex ? 8 : 4; }
static clm_dtype number_dtype(const assoc_scan_shape *s) { return s->complex ? CLM_C64 : CLM_F32; }

static clm_status check_dtypes(clm_context *ctx, const char *op, const assoc_scan_shape *s,
                               const clm_assoc_scan_args *f) {
  return s->complex && f->a.dtype == CLM_C64 ? CLM_OK : OPENCL_ONLY_STORAGE(ctx, op, OPERAND(f, a));
}

clm_status opencl_assoc_scan(clm_context *ctx, const assoc_scan_shape *s, const clm_assoc_scan_args *a) {
  const clm_tensor none = {0};
  clm_status status = check_dtypes(ctx, "assoc_scan", s, a);
  scan_plan *p;
  clm_buffer *workspace = NULL;
  if (!status) status = find_plan(ctx, s, &a->a, &p);
  if (!status && p->tile.chunks > 1)
    status = context_workspace(ctx, (size_t)carry_numbers(s, p) * number_bytes(s), &workspace);
  if (status) return status;
  const run r = {.kernel = p->scan,
                 .a = &a->a,
                 .b = &a->b,
                 .initial = &a->initial,
                 .h = &a->h,
                 .final = &a->final,
                 .factor = &none,
                 .product = &none,
                 .count = s->length,
                 .flags = ASSOC_OUTPUT | (a->reverse ? ASSOC_REVERSE : 0) | (a->exclusive ? ASSOC_EXCLUSIVE : 0) |
                          (a->initial.buffer ? ASSOC_INITIAL : 0) | (a->final.buffer ? ASSOC_FINAL : 0)};
  status = run_scan(ctx, s, p, &r, workspace);
  if (!status) explain(ctx, "assoc_scan", p);
  return status;
}

/* With g[j] the gradient of the state after step j:  db = g, da[j] = conj(h[j-1]) g[j], and
 *   g[j-1] = conj(a[j]) g[j] + dh      dh of step j-1, or of step j where the scan is exclusive
 * from dfinal on; one step more gives dinitial. The states before each step go to the workspace. */
clm_status opencl_assoc_scan_backward(clm_context *ctx, const assoc_scan_shape *s,
                                      const clm_assoc_scan_backward_args *b) {
  const clm_assoc_scan_args *f = &b->forward;
  const clm_tensor none = {0};
  clm_status status = check_dtypes(ctx, "assoc_scan_backward", s, f);
  scan_plan *p;
  if (!status) status = find_plan(ctx, s, &f->a, &p);
  if (status) return status;
  const size_t carry_bytes = round_up_line((size_t)carry_numbers(s, p) * number_bytes(s));
  const int64_t shape[3] = {s->batch, s->length, s->channels};
  const size_t state_bytes = b->da.buffer ? (size_t)(shape[0] * shape[1] * shape[2]) * number_bytes(s) : 0;
  clm_buffer *workspace = NULL;
  if (carry_bytes + state_bytes) status = context_workspace(ctx, carry_bytes + state_bytes, &workspace);
  if (status) return status;

  clm_tensor before = none;
  if (b->da.buffer) {
    before = clm_tensor_of(workspace, carry_bytes, number_dtype(s), 3, shape);
    status = get_kernel(ctx, s, &p->tile, &f->a, true, "assoc_scan", &p->states);
    const run forward = {.kernel = p->states,
                         .a = &f->a,
                         .b = &f->b,
                         .initial = &f->initial,
                         .h = &before,
                         .final = &none,
                         .factor = &none,
                         .product = &none,
                         .count = s->length,
                         .flags = ASSOC_OUTPUT | ASSOC_EXCLUSIVE | (f->reverse ? ASSOC_REVERSE : 0) |
                                  (f->initial.buffer ? ASSOC_INITIAL : 0)};
    if (!status) status = run_scan(ctx, s, p, &forward, workspace);
  }
  const run gradients = {.kernel = p->scan,
                         .a = &f->a,
                         .b = &b->dh,
                         .initial = &b->dfinal,
                         .h = &b->db,
                         .final = &b->dinitial,
                         .factor = &before,
                         .product = &b->da,
                         .count = s->length + (b->dinitial.buffer ? 1 : 0),
                         .a_shift = 1,
                         .b_shift = f->exclusive ? 1 : 0,
                         .flags = ASSOC_CONJUGATE | (f->reverse ? 0 : ASSOC_REVERSE) |
                                  (b->dfinal.buffer ? ASSOC_INITIAL : 0) | (b->dinitial.buffer ? ASSOC_FINAL : 0) |
                                  (b->db.buffer ? ASSOC_OUTPUT : 0) | (b->da.buffer ? ASSOC_PRODUCT : 0)};
  if (!status) status = run_scan(ctx, s, p, &gradients, workspace);
  if (!status) explain(ctx, "assoc_scan_backward", p);
  return status;
}
