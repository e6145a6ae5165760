/* MLP: out = down_proj(activation(gate_proj(x)) * up_proj(x)), SwiGLU unless options say otherwise (Shazeer 2020); a
 * plain one has no gate, out = down_proj(activation(up_proj(x))). */
#include "core/try.h"
#include "model/layers/gate.h"
#include "model/layers/kinds.h"
#include "model/linear.h"

enum { WIDTH, ACTIVATION, PLAIN, BIAS }; /* options */
enum { GATE_PROJ, UP_PROJ, DOWN_PROJ, GATE_BIAS, UP_BIAS, DOWN_BIAS };
enum { KEPT_UP, KEPT_GATE };
enum { HIDDEN, DHIDDEN, DUP, DGATE }; /* scratch; all but the first on the way back */

static const layer_option options[] = {{"width", 1, WIDTH_MAX, NULL},
                                       {"activation", 0, 0, gate_words},
                                       {"plain", 0, 1, NULL},
                                       {"bias", 0, 1, NULL},
                                       {0}};

static void complete(const clm_model_config *c, int64_t *option) {
  if (option[WIDTH] == 0) option[WIDTH] = gate_width(c);
}

/* clang-format off */
static void params(const model_layer *l, param *p) {
  const int64_t model = l->config->d_model, width = l->options[WIDTH];
  if (!l->options[PLAIN])
    p[GATE_PROJ] = (param){"gate_proj.weight", "ffn_gate.weight", .original = "fc1.weight", .half = 2, .number = 4, .rank = 2, .shape = {width, model}, .init = param_uniform_fan_in, .decay = true, .matrix = true};
  p[UP_PROJ] =     (param){"up_proj.weight",   "ffn_up.weight",   .original = "fc1.weight", .half = 1, .number = 5, .rank = 2, .shape = {width, model}, .init = param_uniform_fan_in, .decay = true, .matrix = true};
  p[DOWN_PROJ] =   (param){"down_proj.weight", "ffn_down.weight", .original = "fc2.weight",            .number = 6, .rank = 2, .shape = {model, width}, .init = param_uniform_out,    .decay = true, .matrix = true};
  if (!l->options[BIAS]) return;
  if (!l->options[PLAIN])
    p[GATE_BIAS] = (param){"gate_proj.bias", "ffn_gate.bias", .number = 21, .rank = 1, .shape = {width}};
  p[UP_BIAS] =     (param){"up_proj.bias",   "ffn_up.bias",   .number = 22, .rank = 1, .shape = {width}};
  p[DOWN_BIAS] =   (param){"down_proj.bias", "ffn_down.bias", .number = 23, .rank = 1, .shape = {model}};
}
/* clang-format on */

static void add_rows(const model_layer *l, const layer_shape *s, tensor_list *list, const char *name) {
  tensor_list_add(list, name, s->dtype, 2, (int64_t[]){s->batch * s->length, l->options[WIDTH]});
}

static void kept(const model_layer *l, const layer_shape *s, tensor_list *list) {
  add_rows(l, s, list, "up");
  if (!l->options[PLAIN]) add_rows(l, s, list, "gate");
}

static void scratch(const model_layer *l, const layer_shape *s, tensor_list *list) {
  static const char *const names[] = {"hidden", "dhidden", "dup", "dgate"};
  for (int i = 0; i < (!s->train ? 1 : l->options[PLAIN] ? 3 : 4); i++) add_rows(l, s, list, names[i]);
}

static linear product(const model_layer *l, int weight, clm_tensor input, clm_tensor out) {
  return (linear){.input = input,
                  .weight = l->params.value[weight],
                  .scale = l->params.scale[weight],
                  .bias = l->params.value[weight + GATE_BIAS - GATE_PROJ],
                  .out = out};
}

/* What is activated is the gate, or of a plain one the only projection. */
static clm_swiglu_args gated(const model_layer *l) {
  const bool plain = l->options[PLAIN];
  return (clm_swiglu_args){.gate = l->kept[plain ? KEPT_UP : KEPT_GATE],
                           .up = plain ? (clm_tensor){0} : l->kept[KEPT_UP],
                           .out = l->scratch[HIDDEN],
                           .activation = (clm_gate_activation)l->options[ACTIVATION]};
}

static clm_status forward(clm_context *ctx, const model_layer *l, const layer_pass *pass) {
  linear gate = product(l, GATE_PROJ, rows_of(pass->x), l->kept[KEPT_GATE]),
         up = product(l, UP_PROJ, rows_of(pass->x), l->kept[KEPT_UP]),
         down = product(l, DOWN_PROJ, l->scratch[HIDDEN], rows_of(pass->out));
  clm_swiglu_args hidden = gated(l);
  if (pass->residual.buffer) down.residual = rows_of(pass->residual);
  if (!l->options[PLAIN]) TRY(linear_forward(ctx, &gate));
  TRY(linear_forward(ctx, &up));
  TRY(clm_swiglu(ctx, &hidden));
  return linear_forward(ctx, &down);
}

/* Of gate_proj or up_proj, `weight`, whose output has the gradient `dout`. */
static clm_status input_backward(clm_context *ctx, const model_layer *l, const layer_gradient *g, int weight,
                                 clm_tensor dout, bool accumulate) {
  const linear of = product(l, weight, rows_of(g->x), (clm_tensor){0});
  return linear_backward(ctx, &of,
                         &(linear_gradients){.dout = dout,
                                             .dinput = rows_of(g->dx),
                                             .accumulate_dinput = accumulate,
                                             .dweight = l->params.gradient[weight],
                                             .dbias = l->params.gradient[weight + GATE_BIAS - GATE_PROJ]});
}

static clm_status backward(clm_context *ctx, const model_layer *l, const layer_gradient *g) {
  const bool plain = l->options[PLAIN];
  const clm_tensor *dw = l->params.gradient, dhidden = l->scratch[DHIDDEN], dup = l->scratch[DUP];
  const linear down = product(l, DOWN_PROJ, l->scratch[HIDDEN], g->dout);
  const clm_swiglu_args hidden = gated(l);
  TRY(clm_swiglu(ctx, &hidden));
  TRY(linear_backward(
      ctx, &down,
      &(linear_gradients){
          .dout = rows_of(g->dout), .dinput = dhidden, .dweight = dw[DOWN_PROJ], .dbias = dw[DOWN_BIAS]}));
  TRY(clm_swiglu_backward(ctx, &(clm_swiglu_backward_args){.forward = hidden,
                                                           .dout = dhidden,
                                                           .dgate = l->scratch[plain ? DUP : DGATE],
                                                           .dup = plain ? (clm_tensor){0} : dup}));
  if (!plain) TRY(input_backward(ctx, l, g, GATE_PROJ, l->scratch[DGATE], g->accumulate));
  return input_backward(ctx, l, g, UP_PROJ, dup, g->accumulate || !plain);
}

const layer_kind layer_mlp = {.name = "mlp",
                              .module = "feed_forward",
                              .options = options,
                              .complete = complete,
                              .params = params,
                              .kept = kept,
                              .scratch = scratch,
                              .forward = forward,
                              .backward = backward};
