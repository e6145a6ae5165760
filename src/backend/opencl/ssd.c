/* Launches of cl/ssd.cl: SSD, forward. */
#include "backend/opencl/ops.h"
#include "backend/opencl/ssd_family.h"

static ssd_call call_of(clm_context *ctx, const ssd_shape *s, const clm_ssd_args *a) {
  ssd_call c = ssd_call_of(ctx, s, a, NULL);
  if (ssd_walks(&c)) ssd_take_segments(&c);
  else ssd_take_pieces(&c);
  return c;
}

size_t opencl_ssd_workspace(clm_context *ctx, const ssd_shape *s, const clm_ssd_args *a) {
  return (size_t)call_of(ctx, s, a).floats * sizeof(float);
}

static clm_status run(ssd_call *c, const void *args) {
  const clm_ssd_args *a = args;
  opencl_kernel *result;
  clm_status status = ssd_run_steps(c);
  if (status) return status;
  if (ssd_walks(c)) return ssd_run_walk(c);
  status = ssd_kernel(c, "ssd", "ssd_out", "", &result);
  if (!status) status = ssd_run_between(c);
  if (!status) status = ssd_run_states(c, NULL, &a->initial_state, &a->final_state);
  if (status) return status;
  return SSD_RUN_TILES(c, result, c->g.slots * c->s->n_heads, 1, ARG_DATA(a->x), ARG_DATA(a->C), ARG_DATA(a->D),
                       ARG_DATA(a->z), ARG_BUFFER(NULL), ARG_ENDS(c), ARG_DATA(a->out), ARG_BUFFER(NULL),
                       ARG_WORK(c));
}

clm_status opencl_ssd(clm_context *ctx, const ssd_shape *s, const clm_ssd_args *a) {
  clm_status status = ssd_check(ctx, "ssd", s, a);
  if (status) return status;
  ssd_call c = call_of(ctx, s, a);
  const int32_t walk = !ssd_walks(&c) ? 0 : c.segments_are_rows ? 1 : 2;
  status = ssd_run(&c, &(ssd_direction){"ssd", run, {walk, (int32_t)s->d_state}}, a);
  if (!status && walk)
    context_explain(ctx, "ssd: opencl, %s, %lld segments of %lld steps, pieces of %d, states in registers",
                    ssd_form(&c), (long long)c.segments.slots, (long long)c.segments.chunk, c.g.steps);
  else if (!status)
    context_explain(ctx, "ssd: opencl, %s, %lld pieces of %d steps, tiles of %d x %d", ssd_form(&c),
                    (long long)c.g.slots, c.g.steps, c.tile, c.tile);
  return status;
}
