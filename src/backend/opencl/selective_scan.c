/* Selective scan forward: one pass; or with the length in chunks, a pass for each chunk's final state, then the carry
 * (a kernel of its own, or folded into the second pass), then the pass that writes the output. */
#include "backend/opencl/ops.h"
#include "backend/opencl/scan_family.h"

typedef struct forward_plan {
  selective_scan_plan tile;
  bool carry;           /* by scan_carry                                      */
  int32_t first_chunks; /* chunks of the first pass: the last may be unneeded */
  opencl_kernel *states, *carry_kernel, *scan;
} forward_plan;

static void describe(const selective_scan_shape *s, const clm_selective_scan_args *a, selective_key *key) {
  scan_describe("scan", s, a, key);
  key->request.force = scan_force("CLM_SCAN");
}

/* How the chunks are carried. With the caller's chunk the carry always runs, so that the bits do not depend on how
 * many chunks a call has; and where the final state overwrites the initial one, only scan_carry reads it in time. */
static void choose_carry(const selective_key *key, forward_plan *p) {
  bool fixed = key->request.chunk != 0;
  if (key->final_is_initial) p->tile.fold = false;
  bool has_final = key->flags & SCAN_TO_FINAL;
  p->carry = !p->tile.fold && (p->tile.chunks > 1 || (fixed && has_final));
  p->first_chunks = p->carry && has_final ? p->tile.chunks : p->tile.chunks - 1;
}

static int32_t pass_flags(const selective_key *key, const forward_plan *p, scan_pass pass) {
  if (pass == SCAN_PASS_STATES) return key->flags & ~SCAN_FROM_INITIAL;
  if (p->carry) return (key->flags & ~SCAN_TO_FINAL) | SCAN_FROM_CARRY;
  return key->flags | (p->tile.fold ? SCAN_FOLD : 0);
}

static clm_status get_kernel(clm_context *ctx, const selective_key *key, const forward_plan *p, scan_pass pass,
                             opencl_kernel **kernel) {
  return scan_forward_kernel(ctx, key, &p->tile, pass, pass_flags(key, p, pass), kernel);
}

static clm_status make_plan(clm_context *ctx, const selective_key *key, forward_plan *p) {
  selective_scan_request request = key->request;
  for (;;) {
    if (!schedule_selective_scan(opencl_schedule_device(ctx), &request, &p->tile))
      return context_fail(ctx, CLM_UNSUPPORTED, "selective_scan: %s", p->tile.why);
    choose_carry(key, p);
    clm_status status = get_kernel(ctx, key, p, SCAN_PASS_OUTPUT, &p->scan);
    if (status) return status;
    int32_t limit = (int32_t)opencl_kernel_max_work_group(p->scan);
    if (limit >= p->tile.work_group || p->tile.work_group <= p->tile.lanes) break;
    request.force.work_group = p->tile.work_group / 2; /* registers allow fewer work-items than the device has */
  }
  clm_status status = CLM_OK;
  if (p->first_chunks > 0) status = get_kernel(ctx, key, p, SCAN_PASS_STATES, &p->states);
  if (!status && p->carry) status = scan_carry_kernel(ctx, key, false, &p->carry_kernel);
  return status;
}

static clm_status find_plan(clm_context *ctx, const selective_key *key, forward_plan **plan) {
  bool found;
  *plan = plan_cache_get(opencl_plans(ctx), key, sizeof *key, &found);
  if (found) return CLM_OK;
  clm_status status = make_plan(ctx, key, *plan);
  if (status) plan_cache_forget(opencl_plans(ctx));
  return status;
}

static scan_workspace layout(const selective_scan_shape *s, const selective_key *key, const forward_plan *p) {
  scan_workspace w = {.floats = 0};
  scan_take_chunks(&w, s, &key->request, p->carry || p->first_chunks > 0 ? p->tile.slots : 0);
  return w;
}

static void explain(clm_context *ctx, const forward_plan *p) {
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
}

static clm_status run(clm_context *ctx, const selective_key *key, const forward_plan *p,
                      const selective_scan_shape *s, const clm_selective_scan_args *a, const scan_workspace *w) {
  clm_status status = scan_marks_run(ctx, s, a, w);
  if (!status && p->first_chunks > 0)
    status =
        scan_forward_run(ctx, p->states, &p->tile, p->first_chunks, pass_flags(key, p, SCAN_PASS_STATES), s, a, w);
  if (!status && p->carry)
    status = scan_carry_run(ctx, p->carry_kernel, &p->tile, s, a, w, &a->initial_state, &a->final_state);
  return status ? status
                : scan_forward_run(ctx, p->scan, &p->tile, p->tile.chunks, pass_flags(key, p, SCAN_PASS_OUTPUT), s, a,
                                   w);
}

clm_status opencl_selective_scan(clm_context *ctx, const selective_scan_shape *s, const clm_selective_scan_args *a) {
  clm_status status = scan_check(ctx, a);
  if (status) return status;
  selective_key key;
  describe(s, a, &key);
  forward_plan *p;
  status = find_plan(ctx, &key, &p);
  if (status) return status;
  scan_workspace w = layout(s, &key, p);
  if (w.floats) status = context_workspace(ctx, sizeof(float) * (size_t)w.floats, &w.buffer);
  if (!status) status = run(ctx, &key, p, s, a, &w);
  if (!status) explain(ctx, p);
  return status;
}

size_t opencl_selective_scan_workspace(clm_context *ctx, const selective_scan_shape *s,
                                       const clm_selective_scan_args *a) {
  if (scan_check(ctx, a)) return 0;
  selective_key key;
  describe(s, a, &key);
  forward_plan *p;
  return find_plan(ctx, &key, &p) ? 0 : sizeof(float) * (size_t)layout(s, &key, p).floats;
}
