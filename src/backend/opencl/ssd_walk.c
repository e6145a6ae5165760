/* Launches of cl/ssd_walk.cl: SSD forward with states in registers. */
#include "backend/opencl/opencl.h"
#include "backend/opencl/ssd_family.h"
#include "schedule/arith.h"
#include <stdio.h>

enum {
  WALK_ITEMS = 128, /* cl/ssd_walk.cl */
  WALK_DIMS = 64,
  WALK_STATES = 128, /* d_state, at most */
};

bool ssd_walks(const ssd_call *c) {
  return c->engine && c->engine->chained && c->s->dtype == CLM_BF16 && c->s->d_state <= WALK_STATES &&
         c->s->length < INT32_MAX && c->chunks && ssd_has_chunks(&c->a->out);
}

static int64_t work_groups(const ssd_call *c, int64_t segments) {
  return segments * c->s->n_heads * div_up(c->s->head_dim, WALK_DIMS);
}

/* Whether rows are enough to fill the device: whatever their length, so that parts of a row give the same bits. */
static bool has_many_rows(const ssd_call *c) {
  return 2 * work_groups(c, c->s->sequences) >= 3 * (int64_t)opencl_schedule_device(c->ctx)->compute_units;
}

void ssd_take_segments(ssd_call *c) {
  const ssd_shape *s = c->s;
  ssd_args *g = &c->segments;
  *g = c->g;
  c->segments_are_rows = has_many_rows(c);
  const int64_t chunk = c->segments_are_rows || c->g.chunk > s->length ? s->length : c->g.chunk;
  ssd_cut(g, s, chunk, chunk);
  if (c->segments_are_rows) return;
  g->total = ssd_take(c, g->slots * s->n_heads);
  g->states = ssd_take(c, g->slots * s->n_heads * s->head_dim * s->d_state);
}

static clm_status run_segments(ssd_call *c, const char *form) {
  const clm_ssd_args *a = c->a;
  char defines[64];
  opencl_kernel *k;
  snprintf(defines, sizeof defines, " -DWALK_STATE=%d%s", (int)round_up(c->s->d_state, 16), form);
  clm_status status = ssd_kernel(c, "ssd_walk", "ssd_walk", defines, &k);
  if (status) return status;
  const size_t group = WALK_ITEMS, global = (size_t)work_groups(c, c->segments.slots) * group;
  return OPENCL_RUN(c->ctx, k, 1, &global, &group, ARG_STRUCT(c->g), ARG_STRUCT(c->segments), ARG_DATA(a->x),
                    ARG_DATA(a->B), ARG_DATA(a->C), ARG_DATA(a->D), ARG_DATA(a->z), ARG_ENDS(c),
                    ARG_DATA(a->initial_state), ARG_DATA(a->final_state), ARG_DATA(a->out), ARG_WORK(c));
}

clm_status ssd_run_walk(ssd_call *c) {
  const clm_ssd_args *a = c->a;
  ssd_set_states(&c->g, &a->initial_state, &a->final_state);
  ssd_set_states(&c->segments, &a->initial_state, &a->final_state);
  if (c->segments_are_rows) return run_segments(c, " -DWALK_WHOLE");
  clm_status status = run_segments(c, " -DWALK_ENDS");
  if (!status) status = ssd_run_pass(c, &c->segments, "", &a->initial_state, &a->final_state);
  return status ? status : run_segments(c, "");
}
