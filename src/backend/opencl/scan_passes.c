/* The passes that the selective scan's forward and backward launchers are made of. */
#include "backend/opencl/scan_family.h"
#include "core/arith.h"
#include <stdio.h>
#include <string.h>

/* In either direction. */
static bool steps_are_neighbours(const clm_tensor *t) {
  clm_tensor forwards = *t;
  if (forwards.stride[1] == -1) forwards.stride[1] = 1;
  return length_is_fast(&forwards);
}

static int32_t flags_of(const clm_selective_scan_args *a) {
  return (a->D.buffer ? SCAN_HAS_D : 0) | (a->z.buffer ? SCAN_HAS_Z : 0) |
         (a->delta_bias.buffer ? SCAN_HAS_BIAS : 0) | (a->delta_softplus ? SCAN_SOFTPLUS : 0) |
         (a->A_is_log ? SCAN_A_LOG : 0) | (a->initial_state.buffer ? SCAN_FROM_INITIAL : 0) |
         (a->final_state.buffer ? SCAN_TO_FINAL : 0);
}

void scan_describe(const char *op, const selective_scan_shape *s, const clm_selective_scan_args *a,
                   selective_key *key) {
  memset(key, 0, sizeof *key);
  snprintf(key->op, sizeof key->op, "%s", op);
  selective_scan_request *r = &key->request;
  r->batch = s->sequences;
  r->length = s->length;
  r->d_inner = s->d_inner;
  r->d_state = s->d_state;
  r->n_groups = s->n_groups;
  r->chunk = a->chunk;
  r->B_varies = s->B_varies;
  r->C_varies = s->C_varies;
  r->length_fast = steps_are_neighbours(&a->u);
  r->is_16bit = clm_dtype_size(a->u.dtype) == 2;
  r->gate = a->gate.buffer;
  r->resets = a->seq_idx.buffer;
  r->packed = s->packed;
  r->complex = s->complex;
  key->step[SCAN_U] = step_of(&a->u);
  key->step[SCAN_DELTA] = step_of(&a->delta);
  key->step[SCAN_Z] = step_of(&a->z);
  key->step[SCAN_OUT] = step_of(&a->out);
  key->flags = flags_of(a);
  key->storage = (int32_t)s->dtype;
  key->bc_length_fast = (s->B_varies && steps_are_neighbours(&a->B)) || (s->C_varies && steps_are_neighbours(&a->C));
  key->final_is_initial = a->initial_state.buffer && a->initial_state.buffer == a->final_state.buffer;
}

clm_status scan_check(clm_context *ctx, const clm_selective_scan_args *a) {
  if (a->u.dtype == CLM_F32 || a->u.dtype == CLM_F16 || a->u.dtype == CLM_BF16) return CLM_OK;
  return context_fail(ctx, CLM_UNSUPPORTED, "selective_scan: u is %s, the OpenCL backend has f32, f16 and bf16",
                      clm_dtype_name(a->u.dtype));
}

fixed_steps scan_step_defines(const clm_context *ctx, const selective_key *key) {
  static const char *const names[SCAN_STEPS] = {"u", "delta", "z", "out", "dout", "du", "ddelta", "dz"};
  const bool worth = !key->request.length_fast && key->request.d_inner >= SCAN_MANY_CHANNELS;
  const size_t count = !worth ? 0 : key->request.backward ? SCAN_STEPS : SCAN_DOUT;
  return scan_fix_steps(ctx, "SCAN", names, key->step, count);
}

scan_defines scan_tile_defines(const clm_context *ctx, const selective_key *key, const selective_scan_plan *t) {
  const selective_scan_request *r = &key->request;
  scan_defines d;
  int n = snprintf(d.text, sizeof d.text,
                   "%s -DSCAN_CHANNELS=%d -DSCAN_LANES=%d -DSCAN_STATES=%d -DSCAN_PER_LANE=%d -DSCAN_TILE=%d"
                   " -DSCAN_D_STATE=%d -DSCAN_SHUFFLE=%d -DSCAN_LENGTH_FAST=%d -DSCAN_BC_LENGTH_FAST=%d",
                   scan_device_defines(opencl_schedule_device(ctx)), t->channels, t->lanes, t->states, t->per_lane,
                   t->tile, (int)r->d_state, t->shuffle, r->length_fast, key->bc_length_fast);
  const struct {
    bool given;
    const char *define;
  } rare[] = {
      {r->gate, " -DSCAN_GATE=1"},
      {r->resets, " -DSCAN_RESETS=1"},
      {r->packed, " -DSCAN_PACKED=1"},
      {r->complex, " -DNUMBER_COMPLEX=1"},
      {key->storage == CLM_F16, " -DSTORAGE_TYPE=f16"},
      {key->storage == CLM_BF16, " -DSTORAGE_TYPE=bf16"},
  };
  for (size_t i = 0; i < sizeof rare / sizeof *rare; i++)
    if (rare[i].given) n += snprintf(d.text + n, sizeof d.text - (size_t)n, "%s", rare[i].define);
  return d;
}

int64_t scan_take(scan_workspace *w, int64_t floats) {
  int64_t at = w->floats;
  w->floats += round_up(floats, 4);
  return at;
}

void scan_take_chunks(scan_workspace *w, const selective_scan_shape *s, const selective_scan_request *r,
                      int64_t slots) {
  if (slots > 0) w->states_at = scan_take(w, slots * scan_matrix(s));
  if (slots > 0) w->sums_at = scan_take(w, slots * s->d_inner);
  if (r->resets) w->marks_at = scan_take(w, div_up(s->batch * s->length, 4));
  if (r->resets && slots > 0) w->drops_at = scan_take(w, slots);
}

clm_status scan_marks_run(clm_context *ctx, const selective_scan_shape *s, const clm_selective_scan_args *a,
                          const scan_workspace *w) {
  if (!a->seq_idx.buffer) return CLM_OK;
  opencl_kernel *kernel;
  clm_status status = opencl_kernel_get(ctx, "scan_marks", "scan_marks", "", &kernel);
  if (status) return status;
  return OPENCL_RUN(ctx, kernel, 1, &(size_t){(size_t)(s->batch * s->length)}, NULL, ARG_TENSOR2(a->seq_idx),
                    ARG_BUFFER(w->buffer), ARG_I64(w->marks_at * 4), ARG_I64(s->length));
}

clm_status scan_forward_kernel(clm_context *ctx, const selective_key *key, const selective_scan_plan *t,
                               scan_pass pass, int32_t flags, opencl_kernel **kernel) {
  char defines[1280];
  snprintf(defines, sizeof defines,
           "%s -DSCAN_BLOCK=%d -DSCAN_BUFFERS=%d -DSCAN_B_VARIES=%d -DSCAN_C_VARIES=%d -DSCAN_STATES_ONLY=%d"
           " -DSCAN_KEEP_EVERY=%d%s%s",
           scan_tile_defines(ctx, key, t).text, t->block, t->buffers, key->request.B_varies,
           key->request.C_varies && pass == SCAN_PASS_OUTPUT, pass != SCAN_PASS_OUTPUT,
           pass == SCAN_PASS_TILES ? t->keep_every : 0, scan_fix_flags(ctx, flags & SCAN_FORWARD_FLAGS).define,
           scan_step_defines(ctx, key).define);
  return opencl_kernel_get(ctx, "selective_scan", "selective_scan", defines, kernel);
}

clm_status scan_forward_run(clm_context *ctx, opencl_kernel *kernel, const selective_scan_plan *t, int64_t chunks,
                            int32_t flags, const selective_scan_shape *s, const clm_selective_scan_args *a,
                            const scan_workspace *w) {
  const int64_t places = s->packed ? t->slots : s->batch * chunks;
  const size_t local = (size_t)t->work_group, global = (size_t)(t->group_blocks * s->n_groups * places) * local;
  return OPENCL_RUN(ctx, kernel, 1, &global, &local, ARG_TENSOR3(a->u), ARG_TENSOR3(a->delta), ARG_TENSOR2(a->A),
                    ARG_INPUT_MATRIX(a->B, s->B_varies), ARG_INPUT_MATRIX(a->C, s->C_varies), ARG_TENSOR1(a->D),
                    ARG_TENSOR3(a->z), ARG_TENSOR1(a->delta_bias), ARG_TENSOR3(a->gate),
                    ARG_TENSOR3(a->initial_state), ARG_TENSOR3(a->out), ARG_TENSOR3(a->final_state),
                    ARG_BUFFER(w->buffer), ARG_I64(w->states_at), ARG_I64(w->sums_at), ARG_I64(w->tiles_at),
                    ARG_I64(w->marks_at), ARG_I64(w->drops_at), ARG_PACKED(s, a), ARG_I64(s->length),
                    ARG_I64(t->chunk), ARG_I32(t->chunks), ARG_I32(chunks), ARG_I32(s->d_inner),
                    ARG_I32(s->d_inner / s->n_groups), ARG_I32(t->group_blocks), ARG_I32(flags));
}

clm_status scan_carry_kernel(clm_context *ctx, const selective_key *key, bool reverse, opencl_kernel **kernel) {
  char defines[128];
  const selective_scan_request *r = &key->request;
  snprintf(defines, sizeof defines, "%s -DSCAN_REVERSE=%d%s%s%s", opencl_schedule_device(ctx)->ptx ? "-DCLM_PTX" : "",
           reverse, r->resets ? " -DSCAN_RESETS=1" : "", r->packed ? " -DSCAN_PACKED=1" : "",
           r->complex ? " -DNUMBER_COMPLEX=1" : "");
  return opencl_kernel_get(ctx, "scan_carry", "scan_carry", defines, kernel);
}

clm_status scan_carry_run(clm_context *ctx, opencl_kernel *kernel, const selective_scan_plan *t,
                          const selective_scan_shape *s, const clm_selective_scan_args *a, const scan_workspace *w,
                          const clm_tensor *initial, const clm_tensor *final) {
  const size_t global = (size_t)(s->sequences * s->d_inner * s->d_state);
  return OPENCL_RUN(ctx, kernel, 1, &global, NULL, ARG_BUFFER(w->buffer), ARG_I64(w->states_at), ARG_I64(w->sums_at),
                    ARG_I64(w->drops_at), ARG_TENSOR2(a->A), ARG_TENSOR3(*initial), ARG_TENSOR3(*final),
                    ARG_PACKED(s, a), ARG_I64(s->length), ARG_I64(t->chunk), ARG_I32(t->chunks),
                    ARG_I32(initial->buffer != NULL), ARG_I32(final->buffer != NULL), ARG_I32(a->A_is_log),
                    ARG_I32(s->d_inner), ARG_I32(s->d_state));
}
