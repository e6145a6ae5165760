/* Mixture of experts: a router chooses a few experts for each token, MLPs whose results are added up with the
 * router's weights (clmamba/moe.h). Rows are pairs of token and expert, sorted by expert. An expert's gate and up are
 * one matrix, the gate's rows first; a plain expert has no gate. Experts may work on `latent` features, between two
 * projections that all share. Experts that every token takes are an `mlp` parallel to this layer. */
#include "core/context.h"
#include "core/try.h"
#include "model/layers/gate.h"
#include "model/layers/kinds.h"
#include "model/linear.h"
#include "ops/view.h"
#include <clmamba/language.h>
#include <clmamba/moe.h>
#include <inttypes.h>

enum {
  EXPERTS,
  CHOSEN,
  WIDTH,
  ACTIVATION,
  PLAIN,
  SCORES,
  NORMALIZE,
  BIAS, /* of the router, for the choice alone */
  GROUPS,
  TOP_GROUPS,
  LATENT,
  LATENT_BIAS
};

#define EXPERTS_MAX 4096

static const char *const scores_words[] = {"softmax", "sigmoid", NULL}; /* in the order of clm_route_scores */

static const layer_option options[] = {{"experts", 1, EXPERTS_MAX, NULL},
                                       {"chosen", 1, EXPERTS_MAX, NULL},
                                       {"width", 1, WIDTH_MAX, NULL},
                                       {"activation", 0, 0, gate_words},
                                       {"plain", 0, 1, NULL},
                                       {"scores", 0, 0, scores_words},
                                       {"normalize", 0, 1, NULL},
                                       {"bias", 0, 1, NULL},
                                       {"groups", 0, EXPERTS_MAX, NULL},
                                       {"top_groups", 0, EXPERTS_MAX, NULL},
                                       {"latent", 0, WIDTH_MAX, NULL},
                                       {"latent_bias", 0, 1, NULL},
                                       {0}};

enum { ROUTER, ROUTER_BIAS, INPUT, OUTPUT, LATENT_IN, LATENT_OUT, LATENT_IN_BIAS, LATENT_OUT_BIAS };
enum {
  KEPT_LOGITS,
  KEPT_WEIGHTS,
  KEPT_IDS,
  KEPT_OFFSETS,
  KEPT_ORDER,
  KEPT_TOKENS,
  KEPT_PLACES,
  KEPT_INNER,
  KEPT_LATENT
};
enum { GATHERED, HIDDEN, RESULT, COMBINED, DWEIGHTS, DLOGITS, DINNER, DHIDDEN, DROWS, DCOMBINED };

static void complete(const clm_model_config *c, int64_t *option) {
  if (option[EXPERTS] == 0) option[EXPERTS] = 8;
  if (option[CHOSEN] == 0) option[CHOSEN] = option[EXPERTS] < 2 ? 1 : 2;
  if (option[WIDTH] == 0) option[WIDTH] = gate_width(c);
}

static clm_status check(clm_context *ctx, const clm_model_config *c, const int64_t *o) {
  const int64_t groups = o[GROUPS] ? o[GROUPS] : 1, top = o[GROUPS] ? o[TOP_GROUPS] : 1;
  (void)c;
  if (o[EXPERTS] % groups)
    return context_fail(ctx, CLM_INVALID_ARGUMENT,
                        "model: layers: groups of moe is %" PRId64 ", which does not divide experts %" PRId64, groups,
                        o[EXPERTS]);
  if (top < 1 || top > groups)
    return context_fail(ctx, CLM_INVALID_ARGUMENT,
                        "model: layers: top_groups of moe is %" PRId64 ", expected 1 to groups %" PRId64, top,
                        groups);
  if (o[CHOSEN] > o[EXPERTS] / groups * top)
    return context_fail(ctx, CLM_INVALID_ARGUMENT,
                        "model: layers: chosen of moe is %" PRId64 ", expected at most the %" PRId64
                        " experts that are chosen from",
                        o[CHOSEN], o[EXPERTS] / groups * top);
  if (o[LATENT_BIAS] && !o[LATENT])
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "model: layers: latent_bias of moe is set, but not latent");
  return CLM_OK;
}

/* Features that an expert takes and gives, and those of its first matrix. */
static int64_t features_of(const model_layer *l) {
  return l->options[LATENT] ? l->options[LATENT] : l->config->d_model;
}
static int64_t inner_of(const model_layer *l) { return (l->options[PLAIN] ? 1 : 2) * l->options[WIDTH]; }

/* clang-format off */
static void params(const model_layer *l, param *p) {
  const int64_t *o = l->options, model = l->config->d_model, features = features_of(l);
  p[ROUTER] = (param){"router.weight",        "ffn_gate_inp.weight", .number = 4, .rank = 2, .shape = {o[EXPERTS], model},                 .init = param_uniform_fan_in, .decay = true};
  p[INPUT] =  (param){"input_linear.weight",  NULL,                  .number = 5, .rank = 3, .shape = {o[EXPERTS], inner_of(l), features}, .init = param_uniform_fan_in, .decay = true, .matrix = true};
  p[OUTPUT] = (param){"output_linear.weight", "ffn_down_exps.weight", .number = 6, .rank = 3, .shape = {o[EXPERTS], features, o[WIDTH]},   .init = param_uniform_out,    .decay = true, .matrix = true};
  if (o[BIAS]) p[ROUTER_BIAS] = (param){"router.bias", "exp_probs_b.bias", .number = 21, .rank = 1, .shape = {o[EXPERTS]}};
  if (!o[LATENT]) return;
  p[LATENT_IN] =  (param){"latent_in.weight",  "ffn_latent_down.weight", .number = 7, .rank = 2, .shape = {features, model}, .init = param_uniform_fan_in, .decay = true, .matrix = true};
  p[LATENT_OUT] = (param){"latent_out.weight", "ffn_latent_up.weight",   .number = 8, .rank = 2, .shape = {model, features}, .init = param_uniform_out,    .decay = true, .matrix = true};
  if (!o[LATENT_BIAS]) return;
  p[LATENT_IN_BIAS] =  (param){"latent_in.bias",  "ffn_latent_down.bias", .number = 22, .rank = 1, .shape = {features}};
  p[LATENT_OUT_BIAS] = (param){"latent_out.bias", "ffn_latent_up.bias",   .number = 23, .rank = 1, .shape = {model}};
}
/* clang-format on */

/* ---- Memory ---- */

static void add(tensor_list *list, const char *name, clm_dtype dtype, int64_t rows, int64_t columns) {
  tensor_list_add(list, name, dtype, 2, (int64_t[]){rows, columns});
}

static void add_vector(tensor_list *list, const char *name, int64_t count) {
  tensor_list_add(list, name, CLM_I32, 1, &count);
}

static void kept(const model_layer *l, const layer_shape *s, tensor_list *list) {
  const int64_t *o = l->options, tokens = s->batch * s->length, rows = tokens * o[CHOSEN];
  add(list, "logits", CLM_F32, tokens, o[EXPERTS]);
  add(list, "weights", CLM_F32, tokens, o[CHOSEN]);
  add(list, "ids", CLM_I32, tokens, o[CHOSEN]);
  add_vector(list, "offsets", o[EXPERTS] + 1);
  add_vector(list, "order", rows);
  add_vector(list, "tokens", rows);
  add(list, "places", CLM_I32, tokens, o[CHOSEN]);
  add(list, "inner", s->dtype, rows, inner_of(l));
  if (o[LATENT]) add(list, "latent", s->dtype, tokens, o[LATENT]);
}

static void scratch(const model_layer *l, const layer_shape *s, tensor_list *list) {
  const int64_t *o = l->options, tokens = s->batch * s->length, rows = tokens * o[CHOSEN], features = features_of(l);
  add(list, "gathered", s->dtype, rows, features);
  add(list, "hidden", s->dtype, rows, o[WIDTH]);
  add(list, "result", s->dtype, rows, features);
  add(list, "combined", s->dtype, tokens, o[LATENT] ? o[LATENT] : 1);
  if (!s->train) return;
  add(list, "dweights", CLM_F32, tokens, o[CHOSEN]);
  add(list, "dlogits", CLM_F32, tokens, o[EXPERTS]);
  add(list, "dinner", s->dtype, rows, inner_of(l));
  add(list, "dhidden", s->dtype, rows, o[WIDTH]);
  add(list, "drows", s->dtype, rows, features);
  add(list, "dcombined", s->dtype, tokens, o[LATENT] ? o[LATENT] : 1);
}

/* ---- Operations ---- */

/* In f32 whatever the activations are: what is rounded would choose others. */
static clm_matmul_args router_args(const model_layer *l, clm_tensor x) {
  return (clm_matmul_args){
      .a = rows_of(x), .b = clm_tensor_transpose(l->params.value[ROUTER], 0, 1), .out = l->kept[KEPT_LOGITS]};
}

static clm_route_args route_args(const model_layer *l) {
  const int64_t *o = l->options;
  return (clm_route_args){.logits = l->kept[KEPT_LOGITS],
                          .bias = l->params.value[ROUTER_BIAS],
                          .ids = l->kept[KEPT_IDS],
                          .weights = l->kept[KEPT_WEIGHTS],
                          .scores = (clm_route_scores)o[SCORES],
                          .normalize = o[NORMALIZE],
                          .scale = l->config->expert_scale,
                          .n_groups = o[GROUPS],
                          .top_groups = o[TOP_GROUPS]};
}

static linear latent(const model_layer *l, int weight, clm_tensor input, clm_tensor out) {
  return (linear){.input = input,
                  .weight = l->params.value[weight],
                  .scale = l->params.scale[weight],
                  .bias = l->params.value[weight + LATENT_IN_BIAS - LATENT_IN],
                  .out = out};
}

/* The scales of a matrix in i8, (experts, rows). */
static clm_tensor scale_of(const model_layer *l, int weight) {
  const clm_tensor b = l->params.value[weight], scale = l->params.scale[weight];
  return scale.buffer ? clm_tensor_reshape(scale, 2, b.shape) : scale;
}

static clm_grouped_matmul_args product(const model_layer *l, int weight, clm_tensor a, clm_tensor out) {
  return (clm_grouped_matmul_args){.a = a,
                                   .b = l->params.value[weight],
                                   .group_offsets = l->kept[KEPT_OFFSETS],
                                   .out = out,
                                   .b_scale = scale_of(l, weight)};
}

/* The gate and what it opens: halves of the rows of INNER, or of its gradient. */
static clm_tensor gate_of(const model_layer *l, clm_tensor inner) {
  return view_columns(inner, 0, l->options[WIDTH]);
}
static clm_tensor up_of(const model_layer *l, clm_tensor inner) {
  const int64_t width = l->options[WIDTH];
  return l->options[PLAIN] ? (clm_tensor){0} : view_columns(inner, width, width);
}

static clm_swiglu_args gated(const model_layer *l) {
  return (clm_swiglu_args){.gate = gate_of(l, l->kept[KEPT_INNER]),
                           .up = up_of(l, l->kept[KEPT_INNER]),
                           .out = l->scratch[HIDDEN],
                           .activation = (clm_gate_activation)l->options[ACTIVATION]};
}

static clm_combine_args sums(const model_layer *l, clm_tensor y, clm_tensor weights, clm_tensor out) {
  return (clm_combine_args){.y = y, .places = l->kept[KEPT_PLACES], .weights = weights, .out = out};
}

/* What the experts take: x, or what latent_in makes of it. */
static clm_tensor input_of(const model_layer *l, clm_tensor x) {
  return l->options[LATENT] ? l->kept[KEPT_LATENT] : rows_of(x);
}

static clm_status gather(clm_context *ctx, const model_layer *l, clm_tensor x) {
  return clm_embedding(
      ctx, &(clm_embedding_args){.ids = l->kept[KEPT_TOKENS], .table = input_of(l, x), .out = l->scratch[GATHERED]});
}

static clm_status choose(clm_context *ctx, const model_layer *l, clm_tensor x) {
  const clm_matmul_args router = router_args(l, x);
  const clm_route_args route = route_args(l);
  TRY(clm_matmul(ctx, &router));
  TRY(clm_route(ctx, &route));
  return clm_expert_rows(ctx, &(clm_expert_rows_args){.ids = l->kept[KEPT_IDS],
                                                      .group_offsets = l->kept[KEPT_OFFSETS],
                                                      .order = l->kept[KEPT_ORDER],
                                                      .tokens = l->kept[KEPT_TOKENS],
                                                      .places = l->kept[KEPT_PLACES]});
}

/* From INNER to the experts' results; again on the way back. */
static clm_status finish_experts(clm_context *ctx, const model_layer *l) {
  const clm_swiglu_args hidden = gated(l);
  const clm_grouped_matmul_args output = product(l, OUTPUT, l->scratch[HIDDEN], l->scratch[RESULT]);
  TRY(clm_swiglu(ctx, &hidden));
  return clm_grouped_matmul(ctx, &output);
}

static clm_status forward(clm_context *ctx, const model_layer *l, const layer_pass *pass) {
  const bool has_latent = l->options[LATENT];
  const clm_tensor residual = pass->residual.buffer ? rows_of(pass->residual) : (clm_tensor){0},
                   out = rows_of(pass->out);
  const clm_grouped_matmul_args input = product(l, INPUT, l->scratch[GATHERED], l->kept[KEPT_INNER]);
  const linear in = latent(l, LATENT_IN, rows_of(pass->x), l->kept[KEPT_LATENT]);
  linear last = latent(l, LATENT_OUT, l->scratch[COMBINED], out);
  clm_combine_args sum = sums(l, l->scratch[RESULT], l->kept[KEPT_WEIGHTS], has_latent ? l->scratch[COMBINED] : out);
  if (has_latent) last.residual = residual;
  else sum.residual = residual;
  TRY(choose(ctx, l, pass->x));
  if (has_latent) TRY(linear_forward(ctx, &in));
  TRY(gather(ctx, l, pass->x));
  TRY(clm_grouped_matmul(ctx, &input));
  TRY(finish_experts(ctx, l));
  TRY(clm_combine(ctx, &sum));
  return has_latent ? linear_forward(ctx, &last) : CLM_OK;
}

/* ---- Backward ---- */

/* The gradient of what is combined: dout, or what latent_out makes of it. */
static clm_status combined_backward(clm_context *ctx, const model_layer *l, const layer_gradient *g,
                                    clm_tensor *dcombined) {
  const clm_combine_args sum = sums(l, l->scratch[RESULT], l->kept[KEPT_WEIGHTS], l->scratch[COMBINED]);
  const linear last = latent(l, LATENT_OUT, l->scratch[COMBINED], g->dout);
  *dcombined = rows_of(g->dout);
  if (!l->options[LATENT]) return CLM_OK;
  *dcombined = l->scratch[DCOMBINED];
  TRY(clm_combine(ctx, &sum));
  return linear_backward(ctx, &last,
                         &(linear_gradients){.dout = rows_of(g->dout),
                                             .dinput = *dcombined,
                                             .dweight = l->params.gradient[LATENT_OUT],
                                             .dbias = l->params.gradient[LATENT_OUT_BIAS]});
}

/* From RESULT to DROWS, the gradient of what was gathered, and DWEIGHTS. */
static clm_status experts_backward(clm_context *ctx, const model_layer *l, const layer_gradient *g,
                                   clm_tensor dcombined) {
  const clm_tensor *dw = l->params.gradient, dresult = l->scratch[DROWS], dhidden = l->scratch[DHIDDEN],
                   dinner = l->scratch[DINNER];
  const clm_tensor none = {0};
  TRY(clm_combine_backward(
      ctx, &(clm_combine_backward_args){.forward = sums(l, l->scratch[RESULT], l->kept[KEPT_WEIGHTS], none),
                                        .order = l->kept[KEPT_ORDER],
                                        .dout = dcombined,
                                        .dy = dresult,
                                        .dweights = l->scratch[DWEIGHTS]}));
  TRY(clm_grouped_matmul_backward(
      ctx, &(clm_grouped_matmul_backward_args){.forward = product(l, OUTPUT, l->scratch[HIDDEN], none),
                                               .dout = dresult,
                                               .da = dhidden,
                                               .db = dw[OUTPUT]}));
  TRY(clm_swiglu_backward(
      ctx, &(clm_swiglu_backward_args){
               .forward = gated(l), .dout = dhidden, .dgate = gate_of(l, dinner), .dup = up_of(l, dinner)}));
  TRY(gather(ctx, l, g->x));
  return clm_grouped_matmul_backward(
      ctx, &(clm_grouped_matmul_backward_args){.forward = product(l, INPUT, l->scratch[GATHERED], none),
                                               .dout = dinner,
                                               .da = l->scratch[DROWS],
                                               .db = dw[INPUT]});
}

/* From DROWS to dx. */
static clm_status input_backward(clm_context *ctx, const model_layer *l, const layer_gradient *g) {
  const clm_tensor none = {0}, dx = rows_of(g->dx);
  const bool has_latent = l->options[LATENT];
  clm_combine_args sum = sums(l, l->scratch[DROWS], none, has_latent ? l->scratch[DCOMBINED] : dx);
  if (!has_latent && g->accumulate) sum.residual = dx;
  TRY(clm_combine(ctx, &sum));
  if (!has_latent) return CLM_OK;
  const linear in = latent(l, LATENT_IN, rows_of(g->x), l->kept[KEPT_LATENT]);
  return linear_backward(ctx, &in,
                         &(linear_gradients){.dout = l->scratch[DCOMBINED],
                                             .dinput = dx,
                                             .accumulate_dinput = g->accumulate,
                                             .dweight = l->params.gradient[LATENT_IN],
                                             .dbias = l->params.gradient[LATENT_IN_BIAS]});
}

/* From DWEIGHTS to dx, which is added to. The bias only chooses: its gradient is 0. */
static clm_status router_backward(clm_context *ctx, const model_layer *l, const layer_gradient *g) {
  const clm_tensor dlogits = l->scratch[DLOGITS], *dw = l->params.gradient;
  TRY(clm_route_backward(ctx, &(clm_route_backward_args){
                                  .forward = route_args(l), .dweights = l->scratch[DWEIGHTS], .dlogits = dlogits}));
  if (dw[ROUTER_BIAS].buffer) TRY(clm_axpby(ctx, &(clm_axpby_args){.out = dw[ROUTER_BIAS]}));
  TRY(clm_matmul(
      ctx, &(clm_matmul_args){.a = clm_tensor_transpose(dlogits, 0, 1), .b = rows_of(g->x), .out = dw[ROUTER]}));
  return clm_matmul(
      ctx, &(clm_matmul_args){.a = dlogits, .b = l->params.value[ROUTER], .out = rows_of(g->dx), .accumulate = true});
}

static clm_status backward(clm_context *ctx, const model_layer *l, const layer_gradient *g) {
  clm_tensor dcombined;
  TRY(finish_experts(ctx, l));
  TRY(combined_backward(ctx, l, g, &dcombined));
  TRY(experts_backward(ctx, l, g, dcombined));
  TRY(input_backward(ctx, l, g));
  return router_backward(ctx, l, g);
}

const layer_kind layer_moe = {.name = "moe",
                              .module = "feed_forward",
                              .options = options,
                              .complete = complete,
                              .check = check,
                              .params = params,
                              .kept = kept,
                              .scratch = scratch,
                              .forward = forward,
                              .backward = backward};
