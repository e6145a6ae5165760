/* The passes that the selective scan's forward and backward launchers are made of. */
#include "backend/opencl/scan_family.h"
#include <stdio.h>

void scan_request(const selective_scan_shape *s, const clm_selective_scan_args *a, selective_scan_request *r) {
  r->batch = s->batch;
  r->length = s->length;
  r->d_inner = s->d_inner;
  r->d_state = s->d_state;
  r->n_groups = s->n_groups;
  r->chunk = a->chunk;
  r->B_varies = s->B_varies;
  r->C_varies = s->C_varies;
  r->length_fast = length_is_fast(&a->u);
}

bool scan_bc_length_fast(const selective_scan_shape *s, const clm_selective_scan_args *a) {
  return (s->B_varies && length_is_fast(&a->B)) || (s->C_varies && length_is_fast(&a->C));
}

clm_status scan_forward_kernel(clm_context *ctx, const selective_scan_request *r, const selective_scan_plan *t,
                               bool bc_length_fast, scan_pass pass, int32_t flags, opencl_kernel **kernel) {
  char defines[512];
  snprintf(defines, sizeof defines,
           "%s -DSCAN_CHANNELS=%d -DSCAN_LANES=%d -DSCAN_STATES=%d -DSCAN_PER_LANE=%d -DSCAN_TILE=%d -DSCAN_BLOCK=%d"
           " -DSCAN_BUFFERS=%d -DSCAN_D_STATE=%d -DSCAN_SHUFFLE=%d -DSCAN_LENGTH_FAST=%d -DSCAN_BC_LENGTH_FAST=%d"
           " -DSCAN_B_VARIES=%d -DSCAN_C_VARIES=%d -DSCAN_STATES_ONLY=%d -DSCAN_EVERY_TILE=%d%s",
           scan_device_defines(opencl_schedule_device(ctx)), t->channels, t->lanes, t->states, t->per_lane, t->tile,
           t->block, t->buffers, (int)r->d_state, t->shuffle, r->length_fast, bc_length_fast, r->B_varies,
           r->C_varies && pass == SCAN_PASS_OUTPUT, pass != SCAN_PASS_OUTPUT, pass == SCAN_PASS_TILES,
           scan_fix_flags(ctx, flags & SCAN_FORWARD_FLAGS).define);
  return opencl_kernel_get(ctx, "selective_scan", "selective_scan", defines, kernel);
}

clm_status scan_forward_run(clm_context *ctx, opencl_kernel *kernel, const selective_scan_plan *t, int64_t chunks,
                            int32_t flags, const selective_scan_shape *s, const clm_selective_scan_args *a,
                            const scan_workspace *w) {
  size_t global[3] = {(size_t)(t->group_blocks * s->n_groups * t->work_group), (size_t)chunks, (size_t)s->batch};
  size_t local[3] = {(size_t)t->work_group, 1, 1};
  return OPENCL_RUN(ctx, kernel, 3, global, local, ARG_TENSOR3(a->u), ARG_TENSOR3(a->delta), ARG_TENSOR2(a->A),
                    ARG_INPUT_MATRIX(a->B, s->B_varies), ARG_INPUT_MATRIX(a->C, s->C_varies), ARG_TENSOR1(a->D),
                    ARG_TENSOR3(a->z), ARG_TENSOR1(a->delta_bias), ARG_TENSOR3(a->initial_state), ARG_TENSOR3(a->out),
                    ARG_TENSOR3(a->final_state), ARG_BUFFER(w->buffer), ARG_I64(w->states_at), ARG_BUFFER(w->buffer),
                    ARG_I64(w->sums_at), ARG_BUFFER(w->buffer), ARG_I64(w->tiles_at), ARG_I64(s->length),
                    ARG_I64(t->chunk), ARG_I32(t->chunks), ARG_I32(s->d_inner), ARG_I32(s->d_inner / s->n_groups),
                    ARG_I32(t->group_blocks), ARG_I32(flags));
}

clm_status scan_carry_kernel(clm_context *ctx, bool reverse, opencl_kernel **kernel) {
  char defines[96];
  snprintf(defines, sizeof defines, "%s -DSCAN_REVERSE=%d", opencl_schedule_device(ctx)->ptx ? "-DCLM_PTX" : "",
           reverse);
  return opencl_kernel_get(ctx, "scan_carry", "scan_carry", defines, kernel);
}

clm_status scan_carry_run(clm_context *ctx, opencl_kernel *kernel, const selective_scan_shape *s,
                          const clm_selective_scan_args *a, const scan_workspace *w, int32_t chunks,
                          const clm_tensor *initial, const clm_tensor *final) {
  size_t global[2] = {(size_t)(s->d_inner * s->d_state), (size_t)s->batch};
  return OPENCL_RUN(ctx, kernel, 2, global, NULL, ARG_BUFFER(w->buffer), ARG_I64(w->states_at), ARG_BUFFER(w->buffer),
                    ARG_I64(w->sums_at), ARG_TENSOR2(a->A), ARG_TENSOR3(*initial), ARG_TENSOR3(*final),
                    ARG_I32(initial->buffer != NULL), ARG_I32(final->buffer != NULL), ARG_I32(a->A_is_log),
                    ARG_I32(chunks), ARG_I32(s->d_inner), ARG_I32(s->d_state));
}
