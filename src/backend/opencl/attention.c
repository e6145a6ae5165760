/* Launches of cl/attention.cl and cl/attention_backward.cl. */
#include "backend/opencl/opencl.h"
#include "backend/opencl/operands.h"
#include "backend/opencl/ops.h"
#include "backend/opencl/view.h"
#include "cl/attention_args.h"
#include "schedule/arith.h"
#include <stdio.h>

enum { LOOP_TILES = 4 /* on CPUs: programs for these, twice these, ... tiles of head_dim */ };

/* One call, with what all its kernels are told. */
typedef struct attention_call {
  clm_context *ctx;
  const attention_shape *s;
  const clm_attention_args *a;
  const clm_attention_backward_args *b; /* NULL: forward        */
  clm_buffer *work;                     /* of the backward      */
  attention_args g;
  int side; /* a work-group is side x side work-items */
  char defines[128];
} attention_call;

static clm_status check(clm_context *ctx, const char *op, const attention_shape *s, const clm_attention_args *a) {
  clm_status status = opencl_only_storage(ctx, op, (const operand[]){OPERAND(a, q)}, 1);
  if (!status) status = opencl_fits_int(ctx, op, "n_heads", s->n_heads);
  if (!status) status = opencl_fits_int(ctx, op, "head_dim", s->head_dim);
  if (!status) status = opencl_fits_int(ctx, op, "batch", s->sequences);
  return status;
}

static attention_call call_of(clm_context *ctx, const attention_shape *s, const clm_attention_args *a) {
  attention_call c = {.ctx = ctx, .s = s, .a = a, .side = opencl_tile_side(ctx, "CLM_ATTENTION_SIDE")};
  c.g = (attention_args){
      .q = opencl_view_of(&a->q),
      .k = opencl_view_of(&a->k),
      .v = opencl_view_of(&a->v),
      .out = opencl_view_of(&a->out),
      .lse = opencl_view_of(&a->lse),
      .offsets = opencl_view_of(&a->offsets),
      .ends = opencl_view_of(&a->cu_seqlens),
      .length = s->length,
      .keys = s->keys,
      .window = s->window,
      .rows = (int32_t)s->sequences,
      .heads = (int32_t)s->n_heads,
      .kv_heads = (int32_t)s->kv_heads,
      .head_dim = (int32_t)s->head_dim,
      .flags = (a->offsets.buffer ? ATTENTION_HAS_OFFSETS : 0) | (a->lse.buffer ? ATTENTION_WANT_LSE : 0) |
               (s->packed ? ATTENTION_IS_PACKED : 0),
      .scale = (float)s->scale,
  };
  const bool cpu = opencl_schedule_device(ctx)->is_cpu;
  const int64_t tiles = div_up(s->head_dim, 4 * c.side);
  snprintf(c.defines, sizeof c.defines, "-DATTENTION_SIDE=%d -DATTENTION_TILES=%d%s -DX_TYPE=%s", c.side,
           (int)(cpu ? round_up(tiles, LOOP_TILES) : tiles), cpu ? " -DATTENTION_LOOP" : "",
           clm_dtype_name(s->dtype));
  return c;
}

/* Work-groups for all blocks of `items` a row (pairs, or keys), for each head of keys. */
static void cut(attention_call *c, int64_t items, size_t global[2]) {
  const attention_shape *s = c->s;
  c->g.blocks_of_row = div_up(items, 4 * c->side);
  const int64_t slots = s->packed ? items / (4 * c->side) + s->sequences : s->sequences * c->g.blocks_of_row;
  global[0] = (size_t)slots * (size_t)c->side;
  global[1] = (size_t)s->kv_heads * (size_t)c->side;
}

#define RUN_BLOCKS(call, kernel, global, ...)                                                                        \
  OPENCL_RUN((call)->ctx, kernel, 2, global, ((const size_t[]){(size_t)(call)->side, (size_t)(call)->side}),         \
             ARG_STRUCT((call)->g), __VA_ARGS__)

static int64_t pairs_of(const attention_shape *s) { return s->length * (s->n_heads / s->kv_heads); }

clm_status opencl_attention(clm_context *ctx, const attention_shape *s, const clm_attention_args *a) {
  clm_status status = check(ctx, "attention", s, a);
  if (status) return status;
  attention_call c = call_of(ctx, s, a);
  opencl_kernel *k;
  size_t global[2];
  status = opencl_kernel_get(ctx, "attention", "attention", c.defines, &k);
  if (status) return status;
  cut(&c, pairs_of(s), global);
  status = RUN_BLOCKS(&c, k, global, ARG_DATA(a->q), ARG_DATA(a->k), ARG_DATA(a->v), ARG_DATA(a->offsets),
                      ARG_DATA(a->cu_seqlens), ARG_DATA(a->out), ARG_DATA(a->lse));
  if (!status) context_explain(ctx, "attention: opencl, plain, tiles of %d queries and keys", 4 * c.side);
  return status;
}

/* ---- Gradients ---- */

static clm_status run_common(attention_call *c, opencl_kernel *k) {
  const attention_shape *s = c->s;
  attention_args g = c->g;
  g.rows = (int32_t)s->batch;
  return OPENCL_RUN(c->ctx, k, 1, &(size_t){(size_t)(s->batch * s->length * s->n_heads)}, NULL, ARG_STRUCT(g),
                    ARG_DATA(c->a->out), ARG_DATA(c->b->dout), ARG_BUFFER(c->work));
}

static clm_status run_pairs(attention_call *c, opencl_kernel *k) {
  const clm_attention_args *a = c->a;
  size_t global[2];
  cut(c, pairs_of(c->s), global);
  return RUN_BLOCKS(c, k, global, ARG_DATA(a->q), ARG_DATA(a->k), ARG_DATA(a->v), ARG_DATA(c->b->dout),
                    ARG_DATA(a->offsets), ARG_DATA(a->cu_seqlens), ARG_DATA(a->lse), ARG_BUFFER(c->work),
                    ARG_DATA(c->b->dq));
}

static clm_status run_keys(attention_call *c, opencl_kernel *k, const clm_tensor *out) {
  const clm_attention_args *a = c->a;
  size_t global[2];
  cut(c, c->s->keys, global);
  c->g.flags = out == &c->b->dv ? c->g.flags | ATTENTION_OF_V : c->g.flags & ~ATTENTION_OF_V;
  c->g.dkv = opencl_view_of(out);
  return RUN_BLOCKS(c, k, global, ARG_DATA(a->q), ARG_DATA(a->k), ARG_DATA(a->v), ARG_DATA(c->b->dout),
                    ARG_DATA(a->offsets), ARG_DATA(a->cu_seqlens), ARG_DATA(a->lse), ARG_BUFFER(c->work),
                    ARG_DATA(*out));
}

static clm_status run_dk(attention_call *c, opencl_kernel *k) { return run_keys(c, k, &c->b->dk); }
static clm_status run_dv(attention_call *c, opencl_kernel *k) { return run_keys(c, k, &c->b->dv); }

clm_status opencl_attention_backward(clm_context *ctx, const attention_shape *s,
                                     const clm_attention_backward_args *b) {
  clm_status status = check(ctx, "attention_backward", s, &b->forward);
  if (status) return status;
  attention_call c = call_of(ctx, s, &b->forward);
  const struct {
    const char *name;
    bool wanted;
    clm_status (*run)(attention_call *, opencl_kernel *);
  } passes[] = {{"attention_common", true, run_common},
                {"attention_dq", b->dq.buffer != NULL, run_pairs},
                {"attention_dkv", b->dk.buffer != NULL, run_dk},
                {"attention_dkv", b->dv.buffer != NULL, run_dv}};
  enum { PASSES = sizeof passes / sizeof *passes };
  opencl_kernel *kernels[PASSES];
  c.b = b;
  c.g.dout = opencl_view_of(&b->dout);
  c.g.dq = opencl_view_of(&b->dq);
  status = context_workspace(ctx, (size_t)(s->batch * s->length * s->n_heads) * sizeof(float), &c.work);
  for (int i = 0; i < PASSES && !status; i++)
    if (passes[i].wanted)
      status = opencl_kernel_get(ctx, "attention_backward", passes[i].name, c.defines, &kernels[i]);
  for (int i = 0; i < PASSES && !status; i++)
    if (passes[i].wanted) status = passes[i].run(&c, kernels[i]);
  if (!status) context_explain(ctx, "attention_backward: opencl, plain, tiles of %d queries and keys", 4 * c.side);
  return status;
}
