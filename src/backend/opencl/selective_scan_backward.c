/* Selective scan backward. With the length in chunks, a first pass gives each chunk's final state and the gradient
 * that it hands back, and two carries turn them into initial states and incoming gradients; then the forward kernel
 * keeps each tile's first state, the backward kernel computes the gradients, and staged sums finish those of the
 * parameters. */
#include "backend/opencl/ops.h"
#include "backend/opencl/scan_family.h"
#include <stdio.h>
#include <string.h>

enum { /* beside the flags of the forward kernel; cl/selective_scan_backward.cl has the same */
       WANT_DU = 512,
       WANT_DDT = 1024,
       WANT_DZ = 2048,
       WANT_OUT = 4096,
       WANT_DA = 8192,
       WANT_DB = 16384,
       WANT_DC = 32768,
       WANT_SUMS = 65536,
       DFINAL = 131072,
       WANT_DH0 = 262144
};

typedef struct backward_key {
  char op[16];
  selective_scan_request request;
  int32_t flags;
  bool bc_length_fast;
} backward_key;

typedef struct backward_plan {
  selective_scan_plan tile, forward; /* `forward` keeps each tile's first state: same tile and chunks */
  opencl_kernel *local, *carry, *carry_back, *tiles, *backward;
} backward_plan;

typedef struct backward_workspace { /* offsets in floats; parts of a sum lie `..._at` with `count` elements a part */
  scan_workspace scan;
  int64_t gradients_at, dA_at, dB_at, dC_at, dD_at, floats;
} backward_workspace;

static int32_t wanted(const clm_selective_scan_backward_args *b) {
  return scan_flags(&b->forward) | (b->du.buffer ? WANT_DU : 0) | (b->ddelta.buffer ? WANT_DDT : 0) |
         (b->dz.buffer ? WANT_DZ : 0) | (b->out.buffer ? WANT_OUT : 0) | (b->dA.buffer ? WANT_DA : 0) |
         (b->dB.buffer ? WANT_DB : 0) | (b->dC.buffer ? WANT_DC : 0) |
         (b->dD.buffer || b->ddelta_bias.buffer ? WANT_SUMS : 0) | (b->dfinal_state.buffer ? DFINAL : 0) |
         (b->dinitial_state.buffer ? WANT_DH0 : 0);
}

static void describe(const selective_scan_shape *s, const clm_selective_scan_backward_args *b, backward_key *key) {
  memset(key, 0, sizeof *key); /* padding too: it is compared byte by byte */
  snprintf(key->op, sizeof key->op, "scan_backward");
  selective_scan_request *r = &key->request;
  scan_request(s, &b->forward, r);
  r->chunk = 0;
  r->backward = true;
  r->force.lanes = scan_env("CLM_SCAN_BWD_LANES");
  r->force.work_group = scan_env("CLM_SCAN_BWD_WORK_GROUP");
  r->force.tile = scan_env("CLM_SCAN_BWD_TILE");
  r->force.chunks = scan_env("CLM_SCAN_BWD_CHUNKS");
  key->flags = wanted(b);
  key->bc_length_fast = scan_bc_length_fast(s, &b->forward);
}

/* Of the last two passes; with chunks, what comes in and goes out at the ends is the carry's business. */
static int32_t final_flags(int32_t flags, const selective_scan_plan *t) {
  return t->chunks > 1 ? (flags | SCAN_FROM_CARRY) & ~WANT_DH0 : flags;
}

static clm_status get_kernel(clm_context *ctx, const backward_key *key, const selective_scan_plan *t, bool local,
                             opencl_kernel **kernel) {
  const selective_scan_request *r = &key->request;
  char defines[512];
  snprintf(defines, sizeof defines,
           "%s -DSCAN_CHANNELS=%d -DSCAN_LANES=%d -DSCAN_STATES=%d -DSCAN_PER_LANE=1 -DSCAN_TILE=%d -DSCAN_BLOCK=%d"
           " -DSCAN_D_STATE=%d -DSCAN_SHUFFLE=%d -DSCAN_LENGTH_FAST=%d -DSCAN_BC_LENGTH_FAST=%d -DSCAN_B_VARIES=%d"
           " -DSCAN_C_VARIES=%d -DBACKWARD_LOCAL=%d",
           scan_device_defines(opencl_schedule_device(ctx)), t->channels, t->lanes, t->states, t->tile, t->tile,
           (int)r->d_state, t->shuffle, r->length_fast, key->bc_length_fast, r->B_varies, r->C_varies, local);
  return opencl_kernel_get(ctx, "selective_scan_backward", "selective_scan_backward", defines, kernel);
}

static clm_status make_plan(clm_context *ctx, const backward_key *key, backward_plan *p) {
  const schedule_device *d = opencl_schedule_device(ctx);
  selective_scan_request request = key->request;
  for (;;) {
    if (!schedule_selective_scan(d, &request, &p->tile))
      return context_fail(ctx, CLM_UNSUPPORTED, "selective_scan_backward: %s", p->tile.why);
    clm_status status = get_kernel(ctx, key, &p->tile, false, &p->backward);
    if (status) return status;
    int32_t limit = (int32_t)opencl_kernel_max_work_group(p->backward);
    if (limit >= p->tile.work_group || p->tile.work_group <= p->tile.lanes) break;
    request.force.work_group = p->tile.work_group / 2; /* registers allow fewer work-items than the device has */
  }
  request = key->request;
  memset(&request.force, 0, sizeof request.force);
  request.backward = false;
  request.chunk = p->tile.chunk;
  request.force.tile = p->tile.tile;
  if (!schedule_selective_scan(d, &request, &p->forward))
    return context_fail(ctx, CLM_UNSUPPORTED, "selective_scan_backward: %s", p->forward.why);
  clm_status status = scan_forward_kernel(ctx, &request, &p->forward, key->bc_length_fast, SCAN_PASS_TILES,
                                          final_flags(key->flags, &p->tile), &p->tiles);
  if (status || p->tile.chunks == 1) return status;
  status = get_kernel(ctx, key, &p->tile, true, &p->local);
  if (!status) status = scan_carry_kernel(ctx, false, &p->carry);
  if (!status) status = scan_carry_kernel(ctx, true, &p->carry_back);
  return status;
}

static clm_status find_plan(clm_context *ctx, const backward_key *key, backward_plan **plan) {
  bool found;
  *plan = plan_cache_get(opencl_plans(ctx), key, sizeof *key, &found);
  if (found) return CLM_OK;
  clm_status status = make_plan(ctx, key, *plan);
  if (status) plan_cache_forget(opencl_plans(ctx));
  return status;
}

static int64_t take(backward_workspace *w, int64_t floats) {
  int64_t at = w->floats;
  w->floats += floats;
  return at;
}

static backward_workspace layout(const selective_scan_shape *s, const clm_selective_scan_backward_args *b,
                                 const backward_plan *p) {
  int64_t chunks = p->tile.chunks, rows = s->batch * chunks * s->d_inner, states = rows * s->d_state;
  int64_t tiles = (s->length + p->tile.tile - 1) / p->tile.tile;
  int64_t varying = p->tile.group_blocks * s->batch * s->length * s->n_groups * s->d_state;
  backward_workspace w = {.floats = 0};
  w.scan.tiles_at = take(&w, s->batch * tiles * s->d_inner * s->d_state);
  if (chunks > 1) {
    w.scan.states_at = take(&w, states);
    w.gradients_at = take(&w, states);
    w.scan.sums_at = take(&w, rows);
  }
  if (b->dA.buffer) w.dA_at = take(&w, states);
  if (b->dB.buffer) w.dB_at = take(&w, s->B_varies ? varying : states);
  if (b->dC.buffer) w.dC_at = take(&w, s->C_varies ? varying : states);
  if (b->dD.buffer || b->ddelta_bias.buffer) w.dD_at = take(&w, 2 * rows);
  return w;
}

static clm_status run_backward(clm_context *ctx, opencl_kernel *kernel, const selective_scan_plan *t, int32_t flags,
                               const selective_scan_shape *s, const clm_selective_scan_backward_args *b,
                               const backward_workspace *w) {
  const clm_selective_scan_args *a = &b->forward;
  size_t global[3] = {(size_t)(t->group_blocks * s->n_groups * t->work_group), (size_t)t->chunks, (size_t)s->batch};
  size_t local[3] = {(size_t)t->work_group, 1, 1};
  return OPENCL_RUN(ctx, kernel, 3, global, local, ARG_TENSOR3(a->u), ARG_TENSOR3(a->delta), ARG_TENSOR2(a->A),
                    ARG_INPUT_MATRIX(a->B, s->B_varies), ARG_INPUT_MATRIX(a->C, s->C_varies), ARG_TENSOR1(a->D),
                    ARG_TENSOR3(a->z), ARG_TENSOR1(a->delta_bias), ARG_TENSOR3(b->dout), ARG_TENSOR3(b->dfinal_state),
                    ARG_TENSOR3(b->du), ARG_TENSOR3(b->ddelta), ARG_TENSOR3(b->dz), ARG_TENSOR3(b->out),
                    ARG_TENSOR3(b->dinitial_state), ARG_BUFFER(w->scan.buffer), ARG_I64(w->scan.tiles_at),
                    ARG_I64(w->scan.states_at), ARG_I64(w->gradients_at), ARG_I64(w->scan.sums_at), ARG_I64(w->dA_at),
                    ARG_I64(w->dB_at), ARG_I64(w->dC_at), ARG_I64(w->dD_at), ARG_I64(s->length), ARG_I64(t->chunk),
                    ARG_I32(t->chunks), ARG_I32(s->d_inner), ARG_I32(s->d_inner / s->n_groups),
                    ARG_I32(t->group_blocks), ARG_I32(flags));
}

/* Sums over batch and chunks, or over the work-groups along the channels. */
static clm_status reduce(clm_context *ctx, const selective_scan_shape *s, const clm_selective_scan_backward_args *b,
                         const backward_plan *p, const backward_workspace *w) {
  int64_t rows = s->batch * p->tile.chunks, matrix = s->d_inner * s->d_state;
  int64_t varying = s->batch * s->length * s->n_groups * s->d_state;
  const struct {
    const clm_tensor *out;
    int64_t at, count, stride;
  } sums[] = {
      {&b->dA, w->dA_at, rows, matrix},
      {&b->dB, w->dB_at, s->B_varies ? p->tile.group_blocks : rows, s->B_varies ? varying : matrix},
      {&b->dC, w->dC_at, s->C_varies ? p->tile.group_blocks : rows, s->C_varies ? varying : matrix},
      {&b->dD, w->dD_at, rows, s->d_inner},
      {&b->ddelta_bias, w->dD_at + rows * s->d_inner, rows, s->d_inner},
  };
  clm_status status = CLM_OK;
  for (size_t i = 0; i < sizeof sums / sizeof *sums && !status; i++)
    if (sums[i].out->buffer)
      status = scan_reduce(ctx, w->scan.buffer, sums[i].at, sums[i].count, sums[i].stride, sums[i].out);
  return status;
}

static clm_status check_dtypes(clm_context *ctx, const selective_scan_shape *s,
                               const clm_selective_scan_backward_args *b) {
  const clm_tensor *tensors[] = {
      &b->dout, &b->dfinal_state, &b->du,          &b->ddelta,         &b->dz, &b->dA, &b->dB,
      &b->dC,   &b->dD,           &b->ddelta_bias, &b->dinitial_state, &b->out};
  clm_status status = scan_check_args(ctx, s, &b->forward);
  return status
             ? status
             : scan_check_dtypes(ctx, "selective_scan_backward", CLM_F32, tensors, sizeof tensors / sizeof *tensors);
}

static clm_status run_all(clm_context *ctx, const selective_scan_shape *s, const clm_selective_scan_backward_args *b,
                          const backward_plan *p, const backward_workspace *w) {
  const clm_selective_scan_args *a = &b->forward;
  const clm_tensor none = {.rank = 0};
  int32_t flags = wanted(b);
  clm_status status = CLM_OK;
  if (p->tile.chunks > 1) {
    scan_workspace back = w->scan;
    back.states_at = w->gradients_at;
    status = run_backward(ctx, p->local, &p->tile, flags, s, b, w);
    if (!status) status = scan_carry_run(ctx, p->carry, s, a, &w->scan, p->tile.chunks, &a->initial_state, &none);
    if (!status)
      status = scan_carry_run(ctx, p->carry_back, s, a, &back, p->tile.chunks, &b->dfinal_state, &b->dinitial_state);
  }
  flags = final_flags(flags, &p->tile);
  if (!status) status = scan_forward_run(ctx, p->tiles, &p->forward, p->tile.chunks, flags, s, a, &w->scan);
  if (!status) status = run_backward(ctx, p->backward, &p->tile, flags, s, b, w);
  return status ? status : reduce(ctx, s, b, p, w);
}

clm_status opencl_selective_scan_backward(clm_context *ctx, const selective_scan_shape *s,
                                          const clm_selective_scan_backward_args *b) {
  clm_status status = check_dtypes(ctx, s, b);
  if (status) return status;
  backward_key key;
  describe(s, b, &key);
  backward_plan *p;
  status = find_plan(ctx, &key, &p);
  if (status) return status;
  backward_workspace w = layout(s, b, p);
  status = context_workspace(ctx, sizeof(float) * (size_t)w.floats, &w.scan.buffer);
  if (!status) status = run_all(ctx, s, b, p, &w);
  const selective_scan_plan *t = &p->tile;
  if (!status)
    context_explain(ctx,
                    "selective_scan_backward: %d channels x %d lanes x %d states x %d steps, %d work-items, %lld "
                    "work-groups, %lld bytes of local memory\n%s: %d of %lld steps; %s",
                    t->channels, t->lanes, t->states, t->tile, t->work_group, (long long)t->work_groups,
                    (long long)t->local_bytes, t->chunks > 1 ? "chunks, carried both ways" : "one chunk", t->chunks,
                    (long long)t->chunk, t->why);
  return status;
}

size_t opencl_selective_scan_backward_workspace(clm_context *ctx, const selective_scan_shape *s,
                                                const clm_selective_scan_backward_args *b) {
  if (check_dtypes(ctx, s, b)) return 0;
  backward_key key;
  describe(s, b, &key);
  backward_plan *p;
  return find_plan(ctx, &key, &p) ? 0 : sizeof(float) * (size_t)layout(s, b, p).floats;
}
