/* Causal attention (Vaswani et al. 2017) with heads of keys that several heads of queries share, and rotary
 * positions:
 *
 *   q, k, v = q_proj(x), k_proj(x), v_proj(x)     normed by head (qk_norm), q and k rotated (rope_theta)
 *   out     = o_proj(attention(q, k, v))
 *
 * Its sizes are members of the model's configuration. The state is a cache of keys and values in f32, which grows
 * with the sequence. */
#include "core/context.h"
#include "core/try.h"
#include "model/layers/kinds.h"
#include "model/linear.h"
#include "ops/view.h"
#include <clmamba/attention.h>
#include <clmamba/elementwise.h>
#include <clmamba/norm.h>
#include <inttypes.h>
#include <stdio.h>

enum { Q_PROJ, Q_BIAS, K_PROJ, K_BIAS, V_PROJ, V_BIAS, Q_NORM, K_NORM, O_PROJ, O_BIAS };
enum { STATE_K, STATE_V };
enum { Q, K, V, MIXED, LSE, PROJECTED_Q, PROJECTED_K };  /* kept; the last two before their norms           */
enum { DQ, DK, DV, DMIXED, DPROJECTED_Q, DPROJECTED_K }; /* scratch of the backward pass                   */
enum { WIDE_Q, WIDE_MIXED };                             /* scratch beside it: f32, against the cache's f32 */

static clm_status check(clm_context *ctx, const clm_model_config *c, const int64_t *options) {
  (void)options;
  if (c->attention_heads % c->kv_heads)
    return context_fail(ctx, CLM_INVALID_ARGUMENT,
                        "model: kv_heads is %" PRId64 ", which does not divide attention_heads %" PRId64, c->kv_heads,
                        c->attention_heads);
  if (c->rope_theta > 0 && (c->rope_theta < 1 || c->rotary_dim % 2 || c->rotary_dim > c->attention_head_dim))
    return context_fail(ctx, CLM_INVALID_ARGUMENT,
                        "model: rotary_dim is %" PRId64 " and rope_theta %g, expected an even number of at most "
                        "attention_head_dim %" PRId64 ", and a number of at least 1",
                        c->rotary_dim, (double)c->rope_theta, c->attention_head_dim);
  return CLM_OK;
}

/* ---- Parameters ---- */

static int64_t q_width(const model_layer *l) { return l->config->attention_heads * l->config->attention_head_dim; }
static int64_t kv_width(const model_layer *l) { return l->config->kv_heads * l->config->attention_head_dim; }

/* clang-format off */
static void params(const model_layer *l, param *p) {
  const clm_model_config *c = l->config;
  const int64_t model = c->d_model, q = q_width(l), kv = kv_width(l), head = c->attention_head_dim;
  p[Q_PROJ] = (param){"q_proj.weight", "attn_q.weight",      .number = 4,  .rank = 2, .shape = {q, model},  .init = param_uniform_fan_in, .decay = true, .matrix = true};
  p[K_PROJ] = (param){"k_proj.weight", "attn_k.weight",      .number = 6,  .rank = 2, .shape = {kv, model}, .init = param_uniform_fan_in, .decay = true, .matrix = true};
  p[V_PROJ] = (param){"v_proj.weight", "attn_v.weight",      .number = 8,  .rank = 2, .shape = {kv, model}, .init = param_uniform_fan_in, .decay = true, .matrix = true};
  p[O_PROJ] = (param){"o_proj.weight", "attn_output.weight", .number = 13, .rank = 2, .shape = {model, q},  .init = param_uniform_out,    .decay = true, .matrix = true};
  if (c->qk_norm) {
    p[Q_NORM] = (param){"q_norm.weight", "attn_q_norm.weight", .number = 10, .rank = 1, .shape = {head}, .init = param_ones};
    p[K_NORM] = (param){"k_norm.weight", "attn_k_norm.weight", .number = 11, .rank = 1, .shape = {head}, .init = param_ones};
  }
  if (!c->attention_bias) return;
  p[Q_BIAS] = (param){"q_proj.bias", "attn_q.bias",      .number = 5,  .rank = 1, .shape = {q}};
  p[K_BIAS] = (param){"k_proj.bias", "attn_k.bias",      .number = 7,  .rank = 1, .shape = {kv}};
  p[V_BIAS] = (param){"v_proj.bias", "attn_v.bias",      .number = 9,  .rank = 1, .shape = {kv}};
  p[O_BIAS] = (param){"o_proj.bias", "attn_output.bias", .number = 14, .rank = 1, .shape = {model}};
}
/* clang-format on */

/* ---- Memory ---- */

static void state(const model_layer *l, const state_shape *s, tensor_list *list) {
  const int64_t shape[] = {s->batch, s->room, l->config->kv_heads, l->config->attention_head_dim};
  static const char *const names[] = {"keys", "values"};
  for (int i = 0; i < 2; i++) {
    tensor_list_add(list, names[i], CLM_F32, 4, shape);
    list->items[list->count - 1].grows = 1;
  }
}

static void add_rows(tensor_list *list, const char *name, const layer_shape *s, clm_dtype dtype, int64_t width) {
  tensor_list_add(list, name, dtype, 3, (int64_t[]){s->batch, s->length, width});
}

static void kept(const model_layer *l, const layer_shape *s, tensor_list *list) {
  const clm_model_config *c = l->config;
  add_rows(list, "q", s, s->dtype, q_width(l));
  add_rows(list, "k", s, s->dtype, kv_width(l));
  add_rows(list, "v", s, s->dtype, kv_width(l));
  add_rows(list, "mixed", s, s->dtype, q_width(l));
  add_rows(list, "lse", s, CLM_F32, c->attention_heads);
  if (!c->qk_norm) return;
  add_rows(list, "projected_q", s, s->dtype, q_width(l));
  add_rows(list, "projected_k", s, s->dtype, kv_width(l));
}

static void scratch(const model_layer *l, const layer_shape *s, tensor_list *list) {
  if (!s->train) {
    add_rows(list, "wide_q", s, CLM_F32, s->dtype == CLM_F32 ? 1 : q_width(l));
    add_rows(list, "wide_mixed", s, CLM_F32, s->dtype == CLM_F32 ? 1 : q_width(l));
    return;
  }
  add_rows(list, "dq", s, s->dtype, q_width(l));
  add_rows(list, "dk", s, s->dtype, kv_width(l));
  add_rows(list, "dv", s, s->dtype, kv_width(l));
  add_rows(list, "dmixed", s, s->dtype, q_width(l));
  if (!l->config->qk_norm) return;
  add_rows(list, "dprojected_q", s, s->dtype, q_width(l));
  add_rows(list, "dprojected_k", s, s->dtype, kv_width(l));
}

static void describe(const model_layer *l, char text[LAYER_TEXT]) {
  snprintf(text, LAYER_TEXT, "kv_heads %" PRId64 ", attention_head_dim %" PRId64, l->config->kv_heads,
           l->config->attention_head_dim);
}

/* ---- Operations ---- */

/* (batch, length, heads, head_dim) of rows. */
static clm_tensor heads_of(const model_layer *l, clm_tensor t) {
  return view_parts(t, l->config->attention_head_dim);
}

/* A head as a row of its own. */
static clm_tensor head_rows(const model_layer *l, clm_tensor t) {
  const int64_t head = l->config->attention_head_dim;
  return clm_tensor_reshape(t, 2, (int64_t[]){clm_tensor_count(t) / head, head});
}

static linear product(const model_layer *l, int weight, clm_tensor input, clm_tensor out) {
  return (linear){.input = rows_of(input),
                  .weight = l->params.value[weight],
                  .scale = l->params.scale[weight],
                  .bias = l->params.value[weight + 1], /* each bias follows its weight */
                  .out = rows_of(out)};
}

/* The three of x, where their products go, and the norms of the first two. */
typedef struct projection {
  int weight, norm, projected, kept, gradient, dprojected;
} projection;

static const projection projections[] = {{Q_PROJ, Q_NORM, PROJECTED_Q, Q, DQ, DPROJECTED_Q},
                                         {K_PROJ, K_NORM, PROJECTED_K, K, DK, DPROJECTED_K},
                                         {V_PROJ, -1, V, V, DV, DV}};
enum { PROJECTIONS = sizeof projections / sizeof *projections };

static bool is_normed(const model_layer *l, const projection *p) { return l->config->qk_norm && p->norm >= 0; }

static clm_norm_args norm_args(const model_layer *l, const projection *p) {
  return (clm_norm_args){.x = head_rows(l, l->kept[p->projected]),
                         .weight = l->params.value[p->norm],
                         .out = head_rows(l, l->kept[p->kept]),
                         .epsilon = l->config->norm_epsilon,
                         .kind = CLM_RMS_NORM};
}

static clm_status rotate(clm_context *ctx, const model_layer *l, const layer_pass *pass, clm_tensor rows,
                         bool inverse) {
  const clm_model_config *c = l->config;
  const clm_tensor x = heads_of(l, rows);
  if (c->rope_theta == 0) return CLM_OK;
  return clm_rope(ctx, &(clm_rope_args){.x = x,
                                        .offsets = pass->positions,
                                        .cu_seqlens = pass->cu_seqlens,
                                        .out = x,
                                        .rotary = c->rotary_dim,
                                        .theta = c->rope_theta,
                                        .interleaved = c->rope_interleaved,
                                        .inverse = inverse});
}

static clm_attention_args attention_args(const model_layer *l, const layer_pass *pass) {
  return (clm_attention_args){.q = heads_of(l, l->kept[Q]),
                              .k = heads_of(l, l->kept[K]),
                              .v = heads_of(l, l->kept[V]),
                              .cu_seqlens = pass->cu_seqlens,
                              .out = heads_of(l, l->kept[MIXED]),
                              .lse = l->kept[LSE],
                              .scale = l->config->attention_scale,
                              .window = l->config->attention_window};
}

/* ---- Forward ---- */

static clm_status cast(clm_context *ctx, clm_tensor x, clm_tensor out) {
  return clm_cast(ctx, &(clm_cast_args){.x = x, .out = out});
}

/* From the cache, whose keys and values are f32: 16-bit queries are widened. */
static clm_status attend_cached(clm_context *ctx, const model_layer *l, const layer_pass *pass) {
  const bool wide = l->kept[Q].dtype != CLM_F32;
  clm_attention_args a = attention_args(l, pass);
  TRY(clm_kv_append(ctx, &(clm_kv_append_args){.k = a.k,
                                               .v = a.v,
                                               .offsets = pass->positions,
                                               .cu_seqlens = pass->cu_seqlens,
                                               .k_cache = pass->state[STATE_K],
                                               .v_cache = pass->state[STATE_V]}));
  a.k = pass->state[STATE_K];
  a.v = pass->state[STATE_V];
  a.offsets = pass->positions;
  if (wide) {
    a.q = heads_of(l, l->scratch[WIDE_Q]);
    a.out = heads_of(l, l->scratch[WIDE_MIXED]);
    TRY(cast(ctx, l->kept[Q], l->scratch[WIDE_Q]));
  }
  TRY(clm_attention(ctx, &a));
  return wide ? cast(ctx, l->scratch[WIDE_MIXED], l->kept[MIXED]) : CLM_OK;
}

static clm_status attend(clm_context *ctx, const model_layer *l, const layer_pass *pass) {
  const clm_attention_args a = attention_args(l, pass);
  return pass->state ? attend_cached(ctx, l, pass) : clm_attention(ctx, &a);
}

static clm_status forward(clm_context *ctx, const model_layer *l, const layer_pass *pass) {
  linear out = product(l, O_PROJ, l->kept[MIXED], pass->out);
  if (pass->residual.buffer) out.residual = rows_of(pass->residual);
  for (int i = 0; i < PROJECTIONS; i++) {
    const projection *p = &projections[i];
    const linear in = product(l, p->weight, pass->x, l->kept[is_normed(l, p) ? p->projected : p->kept]);
    TRY(linear_forward(ctx, &in));
    if (is_normed(l, p)) {
      const clm_norm_args norm = norm_args(l, p);
      TRY(clm_norm(ctx, &norm));
    }
  }
  TRY(rotate(ctx, l, pass, l->kept[Q], false));
  TRY(rotate(ctx, l, pass, l->kept[K], false));
  TRY(attend(ctx, l, pass));
  return linear_forward(ctx, &out);
}

/* ---- Backward ---- */

static clm_status project_backward(clm_context *ctx, const model_layer *l, const layer_gradient *g,
                                   const projection *p) {
  const linear in = product(l, p->weight, g->x, l->kept[p->kept]);
  clm_tensor dout = l->scratch[p->gradient];
  if (is_normed(l, p)) {
    const clm_norm_args norm = norm_args(l, p);
    TRY(clm_norm_backward(ctx, &(clm_norm_backward_args){.forward = norm,
                                                         .dout = head_rows(l, dout),
                                                         .dx = head_rows(l, l->scratch[p->dprojected]),
                                                         .dweight = l->params.gradient[p->norm]}));
    dout = l->scratch[p->dprojected];
  }
  return linear_backward(ctx, &in,
                         &(linear_gradients){.dout = rows_of(dout),
                                             .dinput = rows_of(g->dx),
                                             .accumulate_dinput = g->accumulate || p != projections,
                                             .dweight = l->params.gradient[p->weight],
                                             .dbias = l->params.gradient[p->weight + 1]});
}

static clm_status backward(clm_context *ctx, const model_layer *l, const layer_gradient *g) {
  const clm_tensor *dw = l->params.gradient, *scratch = l->scratch;
  const layer_pass from_zero = {.cu_seqlens = {0}};
  const linear out = product(l, O_PROJ, l->kept[MIXED], g->dout);
  TRY(linear_backward(
      ctx, &out,
      &(linear_gradients){
          .dout = rows_of(g->dout), .dinput = rows_of(scratch[DMIXED]), .dweight = dw[O_PROJ], .dbias = dw[O_BIAS]}));
  TRY(clm_attention_backward(ctx, &(clm_attention_backward_args){.forward = attention_args(l, &from_zero),
                                                                 .dout = heads_of(l, scratch[DMIXED]),
                                                                 .dq = heads_of(l, scratch[DQ]),
                                                                 .dk = heads_of(l, scratch[DK]),
                                                                 .dv = heads_of(l, scratch[DV])}));
  TRY(rotate(ctx, l, &from_zero, scratch[DQ], true));
  TRY(rotate(ctx, l, &from_zero, scratch[DK], true));
  for (int i = 0; i < PROJECTIONS; i++) TRY(project_backward(ctx, l, g, &projections[i]));
  return CLM_OK;
}

const layer_kind layer_attention = {.name = "attention",
                                    .module = "self_attn",
                                    .check = check,
                                    .params = params,
                                    .state = state,
                                    .kept = kept,
                                    .scratch = scratch,
                                    .forward = forward,
                                    .backward = backward,
                                    .describe = describe};
