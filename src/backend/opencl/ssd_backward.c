/* Launches of cl/ssd_backward.cl, after those of cl/ssd.cl: the gradients of SSD. */
#include "backend/opencl/ops.h"
#include "backend/opencl/ssd_family.h"
#include "schedule/arith.h"

enum { BUSY_GROUPS = 2 }; /* work-groups for each compute unit: fewer, and the heads of a group are cut into parts */

static int32_t parts_of(const ssd_call *c) {
  const int64_t heads = c->s->n_heads / c->s->n_groups, groups = c->g.slots * c->s->n_groups;
  const int64_t wanted = div_up((int64_t)opencl_schedule_device(c->ctx)->compute_units * BUSY_GROUPS, groups);
  return (int32_t)(wanted < heads ? wanted : heads);
}

static ssd_call call_of(clm_context *ctx, const ssd_shape *s, const clm_ssd_backward_args *b) {
  ssd_call c = ssd_call_of(ctx, s, &b->forward, &b->dout);
  ssd_args *g = &c.g;
  ssd_take_pieces(&c);
  const int64_t steps = g->slots * s->n_heads * g->steps, square = (int64_t)g->steps * g->steps;
  g->dout = opencl_view_of(&b->dout);
  g->dz = opencl_view_of(&b->dz);
  g->ddt = opencl_view_of(&b->ddt);
  g->flags |= (b->out.buffer ? SSD_WANT_OUT : 0) | (b->dz.buffer ? SSD_WANT_DZ : 0) |
              (b->dx.buffer ? SSD_WANT_DX : 0) | (b->ddt.buffer ? SSD_WANT_DDT : 0) |
              (b->dD.rank == 2 ? SSD_WIDE_D : 0);
  g->parts = parts_of(&c);
  g->dstates = ssd_take(&c, g->slots * s->n_heads * s->head_dim * s->d_state);
  g->dbetween = ssd_take(&c, g->parts * g->slots * s->n_groups * square);
  g->inner = ssd_take(&c, steps);
  g->from = ssd_take(&c, steps);
  g->to = ssd_take(&c, steps);
  g->crossing = ssd_take(&c, steps);
  g->inputs = ssd_take(&c, g->parts * s->batch * s->length * s->n_groups * s->d_state);
  g->dA = ssd_take(&c, g->slots * s->n_heads);
  g->dbias = ssd_take(&c, g->slots * s->n_heads);
  g->dD = ssd_take(&c, g->slots * s->n_heads * (b->dD.rank == 2 ? s->head_dim : 1));
  return c;
}

/* out and dz, and what decays give through C. */
static clm_status run_result(ssd_call *c, const clm_ssd_backward_args *b) {
  const clm_ssd_args *a = &b->forward;
  const bool wanted = b->out.buffer || b->dz.buffer;
  opencl_kernel *k;
  clm_status status =
      ssd_kernel(c, "ssd", "ssd_out", wanted ? " -DSSD_GRADIENT" : " -DSSD_GRADIENT -DSSD_NO_RESULT", &k);
  if (status) return status;
  c->g.out = opencl_view_of(&b->out);
  return SSD_RUN_TILES(c, k, c->g.slots * c->s->n_heads, 1, ARG_DATA(a->x), ARG_DATA(a->C), ARG_DATA(a->D),
                       ARG_DATA(a->z), ARG_DATA(b->dout), ARG_ENDS(c), ARG_DATA(b->out), ARG_DATA(b->dz),
                       ARG_WORK(c));
}

static clm_status run_inner(ssd_call *c, const clm_ssd_backward_args *b) {
  const clm_ssd_args *a = &b->forward;
  const ssd_shape *s = c->s;
  opencl_kernel *inner, *crossing;
  clm_status status = ssd_kernel(c, "ssd_backward", "ssd_inner", "", &inner);
  if (!status) status = ssd_kernel(c, "ssd_backward", "ssd_crossing", "", &crossing);
  c->g.out = opencl_view_of(&b->dx);
  if (!status)
    status = SSD_RUN_TILES(c, inner, c->g.slots * s->n_heads, 1, ARG_DATA(a->x), ARG_DATA(a->B), ARG_DATA(a->D),
                           ARG_DATA(a->z), ARG_DATA(b->dout), ARG_ENDS(c), ARG_DATA(b->dx), ARG_WORK(c));
  if (status) return status;
  return SSD_RUN_TILES(c, crossing, c->g.slots * s->n_groups, c->g.parts, ARG_DATA(a->x), ARG_DATA(a->z),
                       ARG_DATA(b->dout), ARG_ENDS(c), ARG_WORK(c));
}

/* dB, or dC. */
static clm_status run_inputs(ssd_call *c, const clm_ssd_backward_args *b, bool of_C) {
  const clm_ssd_args *a = &b->forward;
  const ssd_shape *s = c->s;
  const clm_tensor *out = of_C ? &b->dC : &b->dB;
  const int64_t tiles = div_up(s->d_state, c->tile), numbers = s->batch * s->length * s->n_groups * s->d_state;
  opencl_kernel *k;
  if (!out->buffer) return CLM_OK;
  clm_status status = ssd_kernel(c, "ssd_backward", "ssd_inputs", of_C ? " -DSSD_OF_C" : "", &k);
  if (!status)
    status = SSD_RUN_TILES(c, k, c->g.slots * s->n_groups, c->g.parts * tiles, ARG_DATA(a->x),
                           ARG_DATA(of_C ? a->B : a->C), ARG_DATA(a->z), ARG_DATA(b->dout), ARG_ENDS(c), ARG_WORK(c));
  if (status) return status;
  return scan_reduce(c->ctx, c->work, c->g.inputs, c->g.parts, numbers, out);
}

static clm_status run_steps(ssd_call *c, const clm_ssd_backward_args *b) {
  const clm_ssd_args *a = &b->forward;
  const ssd_shape *s = c->s;
  opencl_kernel *k;
  clm_status status = ssd_kernel(c, "ssd_backward", "ssd_steps_backward", "", &k);
  if (status) return status;
  const size_t local = opencl_kernel_work_group(k, 64), global = (size_t)(c->g.slots * s->n_heads) * local;
  status =
      OPENCL_RUN(c->ctx, k, 1, &global, &local, ARG_STRUCT(c->g), ARG_DATA(a->dt), ARG_DATA(a->A),
                 ARG_DATA(a->dt_bias), ARG_ENDS(c), ARG_DATA(b->ddt), ARG_WORK(c), ARG_LOCAL(local * sizeof(float)));
  const struct {
    const clm_tensor *out;
    int64_t at, numbers;
  } sums[] = {{&b->dA, c->g.dA, s->n_heads},
              {&b->ddt_bias, c->g.dbias, s->n_heads},
              {&b->dD, c->g.dD, s->n_heads * (b->dD.rank == 2 ? s->head_dim : 1)}};
  for (size_t i = 0; i < sizeof sums / sizeof *sums && !status; i++)
    if (sums[i].out->buffer)
      status = scan_reduce(c->ctx, c->work, sums[i].at, c->g.slots, sums[i].numbers, sums[i].out);
  return status;
}

size_t opencl_ssd_backward_workspace(clm_context *ctx, const ssd_shape *s, const clm_ssd_backward_args *b) {
  return (size_t)call_of(ctx, s, b).floats * sizeof(float);
}

static clm_status run(ssd_call *c, const void *args) {
  const clm_ssd_backward_args *b = args;
  clm_status status = ssd_run_steps(c);
  if (!status) status = ssd_run_between(c);
  if (!status) status = ssd_run_states(c, NULL, &b->forward.initial_state, &(clm_tensor){0});
  if (!status) status = ssd_run_states(c, &b->dout, &b->dfinal_state, &b->dinitial_state);
  if (!status) status = run_result(c, b);
  if (!status) status = run_inner(c, b);
  if (!status) status = run_inputs(c, b, false);
  if (!status) status = run_inputs(c, b, true);
  return status ? status : run_steps(c, b);
}

static int32_t wanted(const clm_tensor *t) { return t->buffer ? (int32_t)t->dtype + 1 : 0; }

clm_status opencl_ssd_backward(clm_context *ctx, const ssd_shape *s, const clm_ssd_backward_args *b) {
  clm_status status = ssd_check(ctx, "ssd_backward", s, &b->forward);
  if (status) return status;
  ssd_call c = call_of(ctx, s, b);
  const ssd_direction direction = {"ssd_backward",
                                   run,
                                   {b->out.buffer || b->dz.buffer, wanted(&b->dB), wanted(&b->dC), wanted(&b->dA),
                                    wanted(&b->ddt_bias), wanted(&b->dD)}};
  status = ssd_run(&c, &direction, b);
  if (!status)
    context_explain(ctx, "ssd_backward: opencl, %s, %lld pieces of %d steps, heads of a group in %d part%s",
                    ssd_form(&c), (long long)c.g.slots, c.g.steps, c.g.parts, c.g.parts == 1 ? "" : "s");
  return status;
}
