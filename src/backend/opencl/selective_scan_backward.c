/* Selective scan backward. With the length in chunks, a first pass gives each chunk's final state and the gradient
 * that it hands back, and two carries turn them into initial states and incoming gradients; then the forward kernel
 * keeps each tile's first state, the backward kernel computes the gradients, and staged sums finish those of the
 * parameters. */
#include "backend/opencl/ops.h"
#include "backend/opencl/scan_family.h"
#include "core/arith.h"
#include <stdio.h>
#include <string.h>

typedef struct backward_plan {
  selective_scan_plan tile, forward; /* `forward` keeps each tile's first state */
  opencl_kernel *local, *carry, *carry_back, *tiles, *backward;
} backward_plan;

typedef struct backward_workspace { /* offsets in floats; the parts of a sum lie one after the other */
  scan_workspace scan;
  int64_t gradients_at, dA_at, dB_at, dC_at, dD_at;
} backward_workspace;

static int32_t wanted(const clm_selective_scan_backward_args *b) {
  const struct {
    const clm_tensor *tensor;
    int32_t flag;
  } table[] = {
      {&b->du, SCAN_WANT_DU},          {&b->ddelta, SCAN_WANT_DDELTA},
      {&b->dz, SCAN_WANT_DZ},          {&b->dgate, SCAN_WANT_DGATE},
      {&b->out, SCAN_WANT_OUT},        {&b->dA, SCAN_WANT_DA},
      {&b->dB, SCAN_WANT_DB},          {&b->dC, SCAN_WANT_DC},
      {&b->dD, SCAN_WANT_SUMS},        {&b->ddelta_bias, SCAN_WANT_SUMS},
      {&b->dfinal_state, SCAN_DFINAL}, {&b->dinitial_state, SCAN_WANT_DINITIAL},
  };
  int32_t flags = 0;
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (table[i].tensor->buffer) flags |= table[i].flag;
  return flags;
}

/* Offsets of all elements of the tensors that the kernel walks through fit an int. */
static bool is_near(const clm_selective_scan_backward_args *b) {
  const clm_selective_scan_args *a = &b->forward;
  const clm_tensor *const walked[] = {&a->u,    &a->delta, &a->z,      &a->gate, &a->B,     &a->C,
                                      &b->dout, &b->du,    &b->ddelta, &b->dz,   &b->dgate, &b->out};
  for (size_t i = 0; i < sizeof walked / sizeof *walked; i++) {
    if (!walked[i]->buffer) continue;
    int64_t last = (int64_t)(walked[i]->offset / clm_dtype_size(walked[i]->dtype)), first = last;
    for (int k = 0; k < walked[i]->rank; k++) {
      const int64_t span = (walked[i]->shape[k] - 1) * walked[i]->stride[k];
      *(span > 0 ? &last : &first) += span;
    }
    if (last > INT32_MAX || first < 0) return false;
  }
  return true;
}

static void describe(const selective_scan_shape *s, const clm_selective_scan_backward_args *b, selective_key *key) {
  scan_describe("scan_backward", s, &b->forward, key);
  key->flags |= wanted(b);
  key->near = is_near(b);
  key->step[SCAN_OUT] = step_of(&b->out);
  key->step[SCAN_DOUT] = step_of(&b->dout);
  key->step[SCAN_DU] = step_of(&b->du);
  key->step[SCAN_DDELTA] = step_of(&b->ddelta);
  key->step[SCAN_DZ] = step_of(&b->dz);
  selective_scan_request *r = &key->request;
  r->chunk = 0;
  r->backward = true;
  r->force = scan_force("CLM_SCAN_BWD");
}

/* Of the last two passes; with chunks, what comes in and goes out at the ends is the carry's business. */
static int32_t final_flags(int32_t flags, const selective_scan_plan *t) {
  return t->chunks > 1 ? (flags | SCAN_FROM_CARRY) & ~SCAN_WANT_DINITIAL : flags;
}

static clm_status get_kernel(clm_context *ctx, const selective_key *key, const selective_scan_plan *t, bool local,
                             opencl_kernel **kernel) {
  char defines[1280];
  /* Flags are compiled in for what a Mamba block asks in training; each other set of them would be a program more. */
  const int32_t block = SCAN_HAS_D | SCAN_HAS_Z | SCAN_HAS_BIAS | SCAN_SOFTPLUS | SCAN_WANT_DU | SCAN_WANT_DDELTA |
                        SCAN_WANT_DZ | SCAN_WANT_DA | SCAN_WANT_DB | SCAN_WANT_DC | SCAN_WANT_SUMS;
  const bool is_block = (key->flags & block) == block;
  const int32_t flags = local ? key->flags : final_flags(key->flags, t);
  const scan_fixed fixed = is_block ? scan_fix_flags(ctx, flags) : (scan_fixed){""};
  snprintf(defines, sizeof defines,
           "%s -DSCAN_BLOCK=%d -DSCAN_B_VARIES=%d -DSCAN_C_VARIES=%d -DBACKWARD_LOCAL=%d%s%s%s",
           scan_tile_defines(ctx, key, t).text, t->block, key->request.B_varies, key->request.C_varies, local,
           key->near ? " -DSCAN_OFFSET=int" : "", fixed.define, scan_step_defines(ctx, key).define);
  return opencl_kernel_get(ctx, "selective_scan_backward", "selective_scan_backward", defines, kernel);
}

static clm_status make_plan(clm_context *ctx, const selective_key *key, backward_plan *p) {
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
  request.keep_every = p->tile.tile;
  if (!schedule_selective_scan(d, &request, &p->forward))
    return context_fail(ctx, CLM_UNSUPPORTED, "selective_scan_backward: %s", p->forward.why);
  clm_status status =
      scan_forward_kernel(ctx, key, &p->forward, SCAN_PASS_TILES, final_flags(key->flags, &p->tile), &p->tiles);
  if (status || p->tile.chunks == 1) return status;
  status = get_kernel(ctx, key, &p->tile, true, &p->local);
  if (!status) status = scan_carry_kernel(ctx, key, false, &p->carry);
  if (!status) status = scan_carry_kernel(ctx, key, true, &p->carry_back);
  return status;
}

static clm_status find_plan(clm_context *ctx, const selective_key *key, backward_plan **plan) {
  bool found;
  *plan = plan_cache_get(opencl_plans(ctx), key, sizeof *key, &found);
  if (found) return CLM_OK;
  clm_status status = make_plan(ctx, key, *plan);
  if (status) plan_cache_forget(opencl_plans(ctx));
  return status;
}

static backward_workspace layout(const selective_scan_shape *s, const clm_selective_scan_backward_args *b,
                                 const selective_key *key, const backward_plan *p) {
  const selective_scan_plan *t = &p->tile;
  int64_t matrix = scan_matrix(s), rows = t->slots * s->d_inner, states = t->slots * matrix;
  int64_t tiles = s->packed ? s->length / t->tile + s->sequences : s->batch * div_up(s->length, t->tile);
  int64_t varying = t->group_blocks * s->batch * s->length * s->n_groups * (matrix / s->d_inner);
  backward_workspace w = {.scan.floats = 0};
  w.scan.tiles_at = scan_take(&w.scan, tiles * matrix);
  scan_take_chunks(&w.scan, s, &key->request, t->chunks > 1 ? t->slots : 0);
  if (t->chunks > 1) w.gradients_at = scan_take(&w.scan, states);
  if (b->dA.buffer) w.dA_at = scan_take(&w.scan, states);
  if (b->dB.buffer) w.dB_at = scan_take(&w.scan, s->B_varies ? varying : states);
  if (b->dC.buffer) w.dC_at = scan_take(&w.scan, s->C_varies ? varying : states);
  if (b->dD.buffer || b->ddelta_bias.buffer) w.dD_at = scan_take(&w.scan, 2 * rows);
  return w;
}

static clm_status run_backward(clm_context *ctx, opencl_kernel *kernel, const selective_scan_plan *t, int32_t flags,
                               const selective_scan_shape *s, const clm_selective_scan_backward_args *b,
                               const backward_workspace *w) {
  const clm_selective_scan_args *a = &b->forward;
  const size_t local = (size_t)t->work_group, global = (size_t)(t->group_blocks * s->n_groups * t->slots) * local;
  return OPENCL_RUN(ctx, kernel, 1, &global, &local, ARG_TENSOR3(a->u), ARG_TENSOR3(a->delta), ARG_TENSOR2(a->A),
                    ARG_INPUT_MATRIX(a->B, s->B_varies), ARG_INPUT_MATRIX(a->C, s->C_varies), ARG_TENSOR1(a->D),
                    ARG_TENSOR3(a->z), ARG_TENSOR1(a->delta_bias), ARG_TENSOR3(a->gate), ARG_TENSOR3(b->dout),
                    ARG_TENSOR3(b->dfinal_state), ARG_TENSOR3(b->du), ARG_TENSOR3(b->ddelta), ARG_TENSOR3(b->dz),
                    ARG_TENSOR3(b->dgate), ARG_TENSOR3(b->out), ARG_TENSOR3(b->dinitial_state),
                    ARG_BUFFER(w->scan.buffer), ARG_I64(w->scan.tiles_at), ARG_I64(w->scan.states_at),
                    ARG_I64(w->gradients_at), ARG_I64(w->scan.sums_at), ARG_I64(w->scan.marks_at),
                    ARG_I64(w->scan.drops_at), ARG_I64(w->dA_at), ARG_I64(w->dB_at), ARG_I64(w->dC_at),
                    ARG_I64(w->dD_at), ARG_PACKED(s, a), ARG_I64(s->batch), ARG_I64(t->slots), ARG_I64(s->length),
                    ARG_I64(t->chunk), ARG_I32(t->chunks), ARG_I32(s->d_inner), ARG_I32(s->d_inner / s->n_groups),
                    ARG_I32(t->group_blocks), ARG_I32(flags));
}

/* Sums over batch and chunks, or over the work-groups along the channels. */
static clm_status reduce(clm_context *ctx, const selective_scan_shape *s, const clm_selective_scan_backward_args *b,
                         const backward_plan *p, const backward_workspace *w) {
  int64_t slots = p->tile.slots, matrix = s->d_inner * s->d_state, number = s->complex ? 2 : 1;
  int64_t varying = s->batch * s->length * s->n_groups * s->d_state;
  const struct {
    const clm_tensor *out;
    int64_t at, count, stride; /* in elements */
  } sums[] = {
      {&b->dA, w->dA_at / number, slots, matrix},
      {&b->dB, w->dB_at / number, s->B_varies ? p->tile.group_blocks : slots, s->B_varies ? varying : matrix},
      {&b->dC, w->dC_at / number, s->C_varies ? p->tile.group_blocks : slots, s->C_varies ? varying : matrix},
      {&b->dD, w->dD_at, slots, s->d_inner},
      {&b->ddelta_bias, w->dD_at + slots * s->d_inner, slots, s->d_inner},
  };
  clm_status status = CLM_OK;
  for (size_t i = 0; i < sizeof sums / sizeof *sums && !status; i++)
    if (sums[i].out->buffer)
      status = scan_reduce(ctx, w->scan.buffer, sums[i].at, sums[i].count, sums[i].stride, sums[i].out);
  return status;
}

static clm_status run_all(clm_context *ctx, const selective_scan_shape *s, const clm_selective_scan_backward_args *b,
                          const selective_key *key, const backward_plan *p, const backward_workspace *w) {
  const clm_selective_scan_args *a = &b->forward;
  const clm_tensor none = {.rank = 0};
  const selective_scan_plan *t = &p->tile;
  clm_status status = scan_marks_run(ctx, s, a, &w->scan);
  if (!status && t->chunks > 1) {
    scan_workspace back = w->scan;
    back.states_at = w->gradients_at;
    status = run_backward(ctx, p->local, t, key->flags, s, b, w);
    if (!status) status = scan_carry_run(ctx, p->carry, t, s, a, &w->scan, &a->initial_state, &none);
    if (!status) status = scan_carry_run(ctx, p->carry_back, t, s, a, &back, &b->dfinal_state, &b->dinitial_state);
  }
  const int32_t flags = final_flags(key->flags, t);
  if (!status) status = scan_forward_run(ctx, p->tiles, &p->forward, t->chunks, flags, s, a, &w->scan);
  if (!status) status = run_backward(ctx, p->backward, t, flags, s, b, w);
  return status ? status : reduce(ctx, s, b, p, w);
}

clm_status opencl_selective_scan_backward(clm_context *ctx, const selective_scan_shape *s,
                                          const clm_selective_scan_backward_args *b) {
  clm_status status = scan_check(ctx, &b->forward);
  if (status) return status;
  selective_key key;
  describe(s, b, &key);
  backward_plan *p;
  status = find_plan(ctx, &key, &p);
  if (status) return status;
  backward_workspace w = layout(s, b, &key, p);
  status = context_workspace(ctx, sizeof(float) * (size_t)w.scan.floats, &w.scan.buffer);
  if (!status) status = run_all(ctx, s, b, &key, p, &w);
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
  if (scan_check(ctx, &b->forward)) return 0;
  selective_key key;
  describe(s, b, &key);
  backward_plan *p;
  return find_plan(ctx, &key, &p) ? 0 : sizeof(float) * (size_t)layout(s, b, &key, p).scan.floats;
}
