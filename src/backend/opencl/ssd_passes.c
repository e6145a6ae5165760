#include "backend/opencl/opencl.h"
#include "backend/opencl/ssd_family.h"
#include "schedule/arith.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  ENGINE_TILE = 64,         /* cl/tile_engine.h                   */
  ENGINE_LOCAL = 47 * 1024, /* bytes that its tiles take, at most */
  CHUNK = 8,                /* numbers                            */
};

clm_status ssd_check(clm_context *ctx, const char *op, const ssd_shape *s, const clm_ssd_args *a) {
  clm_status status = opencl_only_storage(ctx, op, (const operand[]){OPERAND(a, x)}, 1);
  if (!status) status = opencl_fits_int(ctx, op, "n_heads * head_dim", s->n_heads * s->head_dim);
  if (!status) status = opencl_fits_int(ctx, op, "d_state", s->d_state);
  if (!status) status = opencl_fits_int(ctx, op, "batch", s->batch);
  return status;
}

static bool is_off(const char *variable) {
  const char *value = getenv(variable);
  return value && strcmp(value, "0") == 0;
}

/* Whether the elements of a piece are near enough to each other for an index of 32 bits. */
static bool is_near(const clm_tensor *t) {
  int64_t reach = 0;
  if (!t->buffer) return true;
  for (int i = 1; i < t->rank; i++)
    if (i != 2) reach += llabs(t->stride[i]) * (i == 1 ? ENGINE_TILE : t->shape[i]);
  return reach < INT32_MAX;
}

bool ssd_has_chunks(const clm_tensor *t) {
  if (!t->buffer) return true;
  bool whole = t->offset % CHUNK == 0 && t->shape[3] % CHUNK == 0 && t->stride[3] == 1 && is_near(t);
  for (int i = 0; i < 3; i++) whole = whole && t->stride[i] % CHUNK == 0;
  return whole;
}

/* An engine multiplies by 0 what belongs to another sequence, and would not keep its NaN out: with seq_idx the plain
 * form runs. */
static void choose_form(ssd_call *c, const clm_tensor *dout) {
  const clm_tensor *sequences[] = {&c->a->x, &c->a->B, &c->a->C, &c->a->z, dout ? dout : &c->a->x};
  const int side = opencl_tile_side(c->ctx, "CLM_SSD_SIDE");
  bool fits = opencl_schedule_device(c->ctx)->local_memory_bytes >= ENGINE_LOCAL, chunks = true;
  for (size_t i = 0; i < sizeof sequences / sizeof *sequences; i++) {
    fits = fits && is_near(sequences[i]);
    chunks = chunks && ssd_has_chunks(sequences[i]);
  }
  if (fits && !c->a->seq_idx.buffer && !is_off("CLM_SSD_ENGINE")) c->engine = opencl_fragment_engine(c->ctx);
  c->chunks = c->engine && chunks;
  c->tile = c->engine ? ENGINE_TILE : 4 * side;
  c->group[0] = (size_t)(c->engine ? c->engine->items : side);
  c->group[1] = (size_t)(c->engine ? 1 : side);
}

const char *ssd_form(const ssd_call *c) { return c->engine ? c->engine->name : "plain"; }

int64_t ssd_take(ssd_call *c, int64_t floats) {
  const int64_t at = c->floats;
  c->floats += round_up(floats, 16);
  return at;
}

static int32_t flags_of(const ssd_shape *s, const clm_ssd_args *a) {
  return (a->D.buffer ? SSD_HAS_D : 0) | (a->z.buffer ? SSD_HAS_Z : 0) | (a->dt_bias.buffer ? SSD_HAS_BIAS : 0) |
         (a->dt_softplus ? SSD_SOFTPLUS : 0) | (a->A_is_log ? SSD_A_LOG : 0) | (s->limited ? SSD_LIMITED : 0);
}

/* Pieces of a row's `length` steps (cl/ssd.h: count_pieces). */
static int64_t count_pieces(const ssd_args *g, int64_t length) {
  return length / g->chunk * g->pieces_of_chunk + div_up(length % g->chunk, g->steps);
}

void ssd_cut(ssd_args *g, const ssd_shape *s, int64_t chunk, int64_t most) {
  g->chunk = chunk;
  const int64_t pieces = div_up(g->chunk, most);
  g->steps = (int32_t)div_up(g->chunk, pieces);
  g->pieces_of_chunk = (int32_t)(pieces < INT32_MAX ? pieces : INT32_MAX); /* longer than any row */
  g->slots_of_row = count_pieces(g, g->length);
  g->slots = s->batch * g->slots_of_row;
  if (s->packed) g->slots = g->length / g->steps + g->length / g->chunk + 3 * s->sequences;
}

ssd_call ssd_call_of(clm_context *ctx, const ssd_shape *s, const clm_ssd_args *a, const clm_tensor *dout) {
  ssd_call c = {.ctx = ctx, .s = s, .a = a};
  choose_form(&c, dout);
  const bool walks = !dout && ssd_walks(&c);
  ssd_args *g = &c.g;
  *g = (ssd_args){
      .x = opencl_view_of(&a->x),
      .dt = opencl_view_of(&a->dt),
      .B = opencl_view_of(&a->B),
      .C = opencl_view_of(&a->C),
      .z = opencl_view_of(&a->z),
      .out = opencl_view_of(&a->out),
      .A = opencl_view_of(&a->A),
      .D = opencl_view_of(&a->D),
      .bias = opencl_view_of(&a->dt_bias),
      .ends_offset = opencl_view_of(&a->cu_seqlens).offset,
      .ends_stride = a->cu_seqlens.stride[0],
      .length = s->length,
      .batch = (int32_t)s->batch,
      .rows = (int32_t)s->sequences,
      .reversed = s->reversed,
      .heads = (int32_t)s->n_heads,
      .head_dim = (int32_t)s->head_dim,
      .groups = (int32_t)s->n_groups,
      .d_state = (int32_t)s->d_state,
      .parts = 1,
      .flags = flags_of(s, a),
      .dt_min = a->dt_min,
      .dt_max = a->dt_max,
  };
  ssd_cut(g, s, a->chunk > 0 ? a->chunk : walks ? SSD_WALK_CHUNK : c.tile, walks ? SSD_WALK_STEPS : c.tile);
  const int64_t steps = g->slots * s->n_heads * g->steps;
  if (a->seq_idx.buffer) {
    g->marks = ssd_take(&c, div_up(s->batch * s->length, 4));
    g->segments = ssd_take(&c, g->slots * g->steps);
  }
  g->d = ssd_take(&c, steps);
  g->sum = ssd_take(&c, steps);
  g->rest = ssd_take(&c, steps);
  g->total = ssd_take(&c, g->slots * s->n_heads);
  const bool ptx = c.engine && !c.engine->emulated && opencl_schedule_device(ctx)->ptx == PTX_BF16;
  snprintf(c.defines, sizeof c.defines, "-DSSD_SIDE=%d -DX_TYPE=%s%s%s%s%s%s%s", c.tile / 4, clm_dtype_name(s->dtype),
           a->seq_idx.buffer ? " -DSSD_SEQ" : "", s->packed ? " -DSSD_PACKED" : "", c.engine ? " -DSSD_ENGINE" : "",
           c.engine ? c.engine->defines : "", c.chunks ? " -DSSD_CHUNKS" : "",
           ptx ? " -DCLM_PTX -DCLM_PTX_BF16" : "");
  return c;
}

void ssd_take_pieces(ssd_call *c) {
  ssd_args *g = &c->g;
  g->between = ssd_take(c, g->slots * g->groups * g->steps * g->steps);
  g->states = ssd_take(c, g->slots * g->heads * g->head_dim * g->d_state);
}

/* As a plan that says nothing: it is there once all kernels have been made. */
typedef struct ready_key {
  char name[16], defines[sizeof((ssd_call *)0)->defines];
  int32_t wanted[sizeof((ssd_direction *)0)->wanted / sizeof(int32_t)];
} ready_key;
_Static_assert(sizeof(ready_key) <= PLAN_KEY_BYTES, "a key of the plans");

static clm_status make_kernels(ssd_call *c, const ssd_direction *direction, const void *args) {
  opencl_state *state = opencl_state_of(c->ctx);
  const bool dry_run = state->dry_run;
  bool made;
  ready_key key = {{0}, {0}, {0}};
  strncpy(key.name, direction->name, sizeof key.name - 1);
  memcpy(key.defines, c->defines, sizeof key.defines); /* zeros after the text */
  memcpy(key.wanted, direction->wanted, sizeof key.wanted);
  plan_cache_get(opencl_plans(c->ctx), &key, sizeof key, &made);
  if (made) return CLM_OK;
  state->dry_run = true;
  const clm_status status = direction->all(c, args);
  state->dry_run = dry_run;
  if (status) plan_cache_forget(opencl_plans(c->ctx));
  return status;
}

clm_status ssd_run(ssd_call *c, const ssd_direction *direction, const void *args) {
  clm_status status = context_workspace(c->ctx, (size_t)c->floats * sizeof(float), &c->work);
  if (!status) status = make_kernels(c, direction, args);
  return status || opencl_state_of(c->ctx)->dry_run ? status : direction->all(c, args);
}

clm_status ssd_kernel(ssd_call *c, const char *family, const char *name, const char *defines, opencl_kernel **k) {
  char all[224];
  snprintf(all, sizeof all, "%s%s", c->defines, defines);
  return opencl_kernel_get(c->ctx, family, name, all, k);
}

clm_status ssd_run_steps(ssd_call *c) {
  const ssd_shape *s = c->s;
  const clm_ssd_args *a = c->a;
  opencl_kernel *marks, *steps;
  if (a->seq_idx.buffer) {
    clm_status status = opencl_kernel_get(c->ctx, "scan_marks", "scan_marks", "", &marks);
    if (!status)
      status = OPENCL_RUN(c->ctx, marks, 1, &(size_t){(size_t)(s->batch * s->length)}, NULL, ARG_TENSOR2(a->seq_idx),
                          ARG_WORK(c), ARG_I64(c->g.marks * 4), ARG_I64(s->length));
    if (status) return status;
  }
  clm_status status = ssd_kernel(c, "ssd", "ssd_steps", "", &steps);
  if (status) return status;
  const size_t group = SSD_STEP_ITEMS, groups = (size_t)(c->g.slots * div_up(s->n_heads, SSD_STEP_HEADS));
  return OPENCL_RUN(c->ctx, steps, 1, &(size_t){groups * group}, &group, ARG_STRUCT(c->g), ARG_DATA(a->dt),
                    ARG_DATA(a->A), ARG_DATA(a->dt_bias), ARG_ENDS(c), ARG_WORK(c));
}

clm_status ssd_run_between(ssd_call *c) {
  opencl_kernel *between;
  clm_status status = ssd_kernel(c, "ssd", "ssd_between", "", &between);
  if (status) return status;
  return SSD_RUN_TILES(c, between, c->g.slots * c->s->n_groups, 1, ARG_DATA(c->a->B), ARG_DATA(c->a->C), ARG_ENDS(c),
                       ARG_WORK(c));
}

void ssd_set_states(ssd_args *g, const clm_tensor *in, const clm_tensor *out) {
  g->state_in = opencl_view_of(in);
  g->state_out = opencl_view_of(out);
  g->flags &= ~(SSD_HAS_INITIAL | SSD_HAS_FINAL);
  g->flags |= (in->buffer ? SSD_HAS_INITIAL : 0) | (out->buffer ? SSD_HAS_FINAL : 0);
}

clm_status ssd_run_pass(ssd_call *c, const ssd_args *g, const char *defines, const clm_tensor *in,
                        const clm_tensor *out) {
  const ssd_shape *s = c->s;
  opencl_kernel *pass;
  clm_status status = ssd_kernel(c, "ssd", "ssd_pass", defines, &pass);
  if (status) return status;
  const size_t global = (size_t)(s->sequences * s->n_heads * s->head_dim * s->d_state);
  return OPENCL_RUN(c->ctx, pass, 1, &global, NULL, ARG_STRUCT(*g), ARG_DATA(*in), ARG_DATA(*out), ARG_ENDS(c),
                    ARG_WORK(c));
}

clm_status ssd_run_states(ssd_call *c, const clm_tensor *dout, const clm_tensor *in, const clm_tensor *out) {
  const ssd_shape *s = c->s;
  const clm_ssd_args *a = c->a;
  /* States are fp32 whatever the dtype: their summands lose nothing. */
  const char *defines = dout ? " -DSSD_GRADIENT -DPLANES_COMPUTED=3" : " -DPLANES_COMPUTED=3";
  const int64_t tile = c->tile, tiles = div_up(s->head_dim, tile) * div_up(s->d_state, tile);
  opencl_kernel *states;
  ssd_set_states(&c->g, in, out);
  clm_status status = ssd_kernel(c, "ssd", "ssd_states", defines, &states);
  if (!status)
    status = SSD_RUN_TILES(c, states, c->g.slots * s->n_heads, tiles, ARG_DATA(*(dout ? dout : &a->x)),
                           ARG_DATA(dout ? a->C : a->B), ARG_DATA(a->z), ARG_ENDS(c), ARG_WORK(c));
  return status ? status : ssd_run_pass(c, &c->g, defines, in, out);
}
