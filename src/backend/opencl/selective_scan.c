/* Selective scan forward: one pass; or with the length in chunks, a pass for each chunk's final state, then the carry
 * (a kernel of its own, or folded into the second pass), then the pass that writes the output. */
#include "backend/opencl/ops.h"
#include "backend/opencl/scan_family.h"
#include <stdio.h>
#include <string.h>

typedef struct forward_key {
  char op[16];
  selective_scan_request request;
  bool bc_length_fast, has_D, has_z, has_bias, softplus, A_log, has_initial, has_final, final_is_initial;
} forward_key;

typedef struct forward_plan {
  selective_scan_plan tile;
  bool carry;           /* by scan_carry                                      */
  int32_t first_chunks; /* chunks of the first pass: the last may be unneeded */
  opencl_kernel *states, *carry_kernel, *scan;
} forward_plan;

static void describe(const selective_scan_shape *s, const clm_selective_scan_args *a, forward_key *key) {
  memset(key, 0, sizeof *key); /* padding too: it is compared byte by byte */
  snprintf(key->op, sizeof key->op, "scan");
  selective_scan_request *r = &key->request;
  r->batch = s->batch;
  r->length = s->length;
  r->d_inner = s->d_inner;
  r->d_state = s->d_state;
  r->n_groups = s->n_groups;
  r->chunk = a->chunk;
  r->B_varies = s->B_varies;
  r->C_varies = s->C_varies;
  r->gated = a->D.buffer || a->z.buffer;
  r->length_fast = length_is_fast(&a->u);
  r->force.lanes = scan_env("CLM_SCAN_LANES");
  r->force.per_lane = scan_env("CLM_SCAN_PER_LANE");
  r->force.work_group = scan_env("CLM_SCAN_WORK_GROUP");
  r->force.tile = scan_env("CLM_SCAN_TILE");
  r->force.block = scan_env("CLM_SCAN_BLOCK");
  r->force.buffers = scan_env("CLM_SCAN_BUFFERS");
  r->force.chunks = scan_env("CLM_SCAN_CHUNKS");
  key->bc_length_fast = (s->B_varies && length_is_fast(&a->B)) || (s->C_varies && length_is_fast(&a->C));
  key->has_D = a->D.buffer;
  key->has_z = a->z.buffer;
  key->has_bias = a->delta_bias.buffer;
  key->softplus = a->delta_softplus;
  key->A_log = a->A_is_log;
  key->has_initial = a->initial_state.buffer;
  key->has_final = a->final_state.buffer;
  key->final_is_initial = a->initial_state.buffer && a->initial_state.buffer == a->final_state.buffer;
}

/* How the chunks are carried. With the caller's chunk the carry always runs, so that the bits do not depend on how
 * many chunks a call has; and where the final state overwrites the initial one, only scan_carry reads it in time. */
static void choose_carry(const forward_key *key, forward_plan *p) {
  bool fixed = key->request.chunk != 0;
  if (key->final_is_initial) p->tile.fold = false;
  p->carry = !p->tile.fold && (p->tile.chunks > 1 || (fixed && key->has_final));
  p->first_chunks = p->carry && key->has_final ? p->tile.chunks : p->tile.chunks - 1;
}

static clm_status get_kernel(clm_context *ctx, const forward_key *key, const forward_plan *p, bool states_only,
                             opencl_kernel **kernel) {
  const selective_scan_plan *t = &p->tile;
  bool initial = key->has_initial && !states_only && !p->carry;
  bool final = key->has_final && !states_only && !p->carry;
  char defines[1024];
  snprintf(defines, sizeof defines,
           "%s -DSCAN_CHANNELS=%d -DSCAN_LANES=%d -DSCAN_STATES=%d -DSCAN_PER_LANE=%d -DSCAN_TILE=%d -DSCAN_BLOCK=%d"
           " -DSCAN_BUFFERS=%d -DSCAN_D_STATE=%d -DSCAN_SHUFFLE=%d -DSCAN_LENGTH_FAST=%d -DSCAN_BC_LENGTH_FAST=%d"
           " -DSCAN_B_VARIES=%d -DSCAN_C_VARIES=%d -DSCAN_HAS_D=%d -DSCAN_HAS_Z=%d -DSCAN_HAS_BIAS=%d"
           " -DSCAN_SOFTPLUS=%d -DSCAN_A_LOG=%d -DSCAN_HAS_INITIAL=%d -DSCAN_HAS_FINAL=%d -DSCAN_CARRIED=%d"
           " -DSCAN_FOLD=%d -DSCAN_STATES_ONLY=%d -DSCAN_EVERY_TILE=0",
           scan_device_defines(opencl_schedule_device(ctx)), t->channels, t->lanes, t->states, t->per_lane, t->tile,
           t->block, t->buffers, (int)key->request.d_state, t->shuffle, key->request.length_fast, key->bc_length_fast,
           key->request.B_varies, key->request.C_varies, key->has_D && !states_only, key->has_z && !states_only,
           key->has_bias, key->softplus, key->A_log, initial, final, p->carry && !states_only,
           t->fold && !states_only, states_only);
  return opencl_kernel_get(ctx, "selective_scan", "selective_scan", defines, kernel);
}

static clm_status make_plan(clm_context *ctx, const forward_key *key, forward_plan *p) {
  selective_scan_request request = key->request;
  for (;;) {
    if (!schedule_selective_scan(opencl_schedule_device(ctx), &request, &p->tile))
      return context_fail(ctx, CLM_UNSUPPORTED, "selective_scan: %s", p->tile.why);
    choose_carry(key, p);
    clm_status status = get_kernel(ctx, key, p, false, &p->scan);
    if (status) return status;
    int32_t limit = (int32_t)opencl_kernel_max_work_group(p->scan);
    if (limit >= p->tile.work_group || p->tile.work_group <= p->tile.lanes) break;
    request.force.work_group = p->tile.work_group / 2; /* registers allow fewer work-items than the device has */
  }
  clm_status status = CLM_OK;
  if (p->first_chunks > 0) status = get_kernel(ctx, key, p, true, &p->states);
  if (!status && p->carry)
    status = opencl_kernel_get(ctx, "scan_carry", "scan_carry",
                               opencl_schedule_device(ctx)->ptx ? "-DCLM_PTX -DSCAN_REVERSE=0" : "-DSCAN_REVERSE=0",
                               &p->carry_kernel);
  return status;
}

static clm_status find_plan(clm_context *ctx, const forward_key *key, forward_plan **plan) {
  bool found;
  *plan = plan_cache_get(opencl_plans(ctx), key, sizeof *key, &found);
  if (found) return CLM_OK;
  clm_status status = make_plan(ctx, key, *plan);
  if (status) plan_cache_forget(opencl_plans(ctx));
  return status;
}

/* Floats: each chunk's state, then each chunk's sum of dt. */
static int64_t state_floats(const selective_scan_shape *s, const forward_plan *p) {
  return p->carry || p->first_chunks > 0 ? s->batch * p->tile.chunks * s->d_inner * s->d_state : 0;
}

static size_t workspace_bytes(const selective_scan_shape *s, const forward_plan *p) {
  int64_t states = state_floats(s, p);
  return states ? sizeof(float) * (size_t)(states + s->batch * p->tile.chunks * s->d_inner) : 0;
}

static clm_status run_scan(clm_context *ctx, opencl_kernel *kernel, int64_t chunks, const selective_scan_shape *s,
                           const clm_selective_scan_args *a, const forward_plan *p, const clm_buffer *workspace) {
  const selective_scan_plan *t = &p->tile;
  size_t global[3] = {(size_t)(t->group_blocks * s->n_groups * t->work_group), (size_t)chunks, (size_t)s->batch};
  size_t local[3] = {(size_t)t->work_group, 1, 1};
  return OPENCL_RUN(ctx, kernel, 3, global, local, ARG_TENSOR3(a->u), ARG_TENSOR3(a->delta), ARG_TENSOR2(a->A),
                    ARG_INPUT_MATRIX(a->B, s->B_varies), ARG_INPUT_MATRIX(a->C, s->C_varies), ARG_TENSOR1(a->D),
                    ARG_TENSOR3(a->z), ARG_TENSOR1(a->delta_bias), ARG_TENSOR3(a->initial_state), ARG_TENSOR3(a->out),
                    ARG_TENSOR3(a->final_state), ARG_BUFFER(workspace), ARG_BUFFER(workspace),
                    ARG_I64(state_floats(s, p)), ARG_I64(s->length), ARG_I64(t->chunk), ARG_I32(t->chunks),
                    ARG_I32(s->d_inner), ARG_I32(s->d_inner / s->n_groups), ARG_I32(t->group_blocks));
}

static clm_status run_carry(clm_context *ctx, const selective_scan_shape *s, const clm_selective_scan_args *a,
                            const forward_plan *p, const clm_buffer *workspace) {
  size_t global[2] = {(size_t)(s->d_inner * s->d_state), (size_t)s->batch};
  return OPENCL_RUN(ctx, p->carry_kernel, 2, global, NULL, ARG_BUFFER(workspace), ARG_BUFFER(workspace),
                    ARG_I64(state_floats(s, p)), ARG_TENSOR2(a->A), ARG_TENSOR3(a->initial_state),
                    ARG_TENSOR3(a->final_state), ARG_I32(a->initial_state.buffer != NULL),
                    ARG_I32(a->final_state.buffer != NULL), ARG_I32(a->A_is_log), ARG_I32(p->tile.chunks),
                    ARG_I32(s->d_inner), ARG_I32(s->d_state));
}

static void explain(clm_context *ctx, const selective_scan_shape *s, const forward_plan *p) {
  const selective_scan_plan *t = &p->tile;
  context_explain(
      ctx,
      "selective_scan: %d channels x %d lanes x %d states x %d steps, %d work-items (%d channels a lane), "
      "%lld work-groups, %lld bytes of local memory\n%s%s; %s",
      t->channels, t->lanes, t->states, t->tile, t->work_group, t->per_lane, (long long)t->work_groups,
      (long long)t->local_bytes, t->chunks > 1 ? "two passes over chunks: " : "",
      t->fold    ? "the second folds the carry"
      : p->carry ? "the carry is a kernel of its own"
                 : "no carry",
      t->why);
  (void)s;
}

static clm_status check_dtypes(clm_context *ctx, const selective_scan_shape *s, const clm_selective_scan_args *a) {
  if (s->complex)
    return context_fail(ctx, CLM_UNSUPPORTED, "selective_scan: complex A is not yet supported by the OpenCL backend");
  const clm_tensor *tensors[] = {&a->u,          &a->delta,         &a->A,   &a->B,          &a->C, &a->D, &a->z,
                                 &a->delta_bias, &a->initial_state, &a->out, &a->final_state};
  return scan_check_dtypes(ctx, "selective_scan", CLM_F32, tensors, sizeof tensors / sizeof *tensors);
}

clm_status opencl_selective_scan(clm_context *ctx, const selective_scan_shape *s, const clm_selective_scan_args *a) {
  clm_status status = check_dtypes(ctx, s, a);
  if (status) return status;
  forward_key key;
  describe(s, a, &key);
  forward_plan *p;
  status = find_plan(ctx, &key, &p);
  if (status) return status;
  clm_buffer *workspace = NULL;
  size_t bytes = workspace_bytes(s, p);
  if (bytes) status = context_workspace(ctx, bytes, &workspace);
  if (!status && p->first_chunks > 0) status = run_scan(ctx, p->states, p->first_chunks, s, a, p, workspace);
  if (!status && p->carry) status = run_carry(ctx, s, a, p, workspace);
  if (!status) status = run_scan(ctx, p->scan, p->tile.chunks, s, a, p, workspace);
  if (!status) explain(ctx, s, p);
  return status;
}

size_t opencl_selective_scan_workspace(clm_context *ctx, const selective_scan_shape *s,
                                       const clm_selective_scan_args *a) {
  if (check_dtypes(ctx, s, a)) return 0;
  forward_key key;
  describe(s, a, &key);
  forward_plan *p;
  return find_plan(ctx, &key, &p) ? 0 : workspace_bytes(s, p);
}
