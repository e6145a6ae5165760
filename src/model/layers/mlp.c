/* SwiGLU (Shazeer 2020): out = down_proj(silu(gate_proj(x)) * up_proj(x)), no biases. */
#include "core/try.h"
#include "model/layers/kinds.h"
#include "model/linear.h"
#include <clmamba/elementwise.h>

enum { WIDTH }; /* the only option */
enum { GATE_PROJ, UP_PROJ, DOWN_PROJ };
enum { KEPT_GATE, KEPT_UP };
enum { HIDDEN, DHIDDEN, DGATE, DUP }; /* scratch; all but the first on the way back */

#define WIDTH_MAX ((int64_t)1 << 22)

static const layer_option options[] = {{"width", 1, WIDTH_MAX}, {NULL, 0, 0}};

/* 8/3 of d_model, so that three matrices have the parameters of two of 4 d_model; a multiple of 128. */
static void complete(const clm_model_config *c, int64_t *option) {
  if (option[WIDTH] == 0) option[WIDTH] = (8 * c->d_model / 3 + 127) / 128 * 128;
}

/* clang-format off */
static void params(const model_layer *l, param *p) {
  const int64_t model = l->config->d_model, width = l->options[WIDTH];
  p[GATE_PROJ] = (param){"gate_proj.weight", "ffn_gate.weight", .original = "fc1.weight", .half = 2, .number = 4, .rank = 2, .shape = {width, model}, .init = param_uniform_fan_in, .decay = true, .matrix = true};
  p[UP_PROJ] =   (param){"up_proj.weight",   "ffn_up.weight",   .original = "fc1.weight", .half = 1, .number = 5, .rank = 2, .shape = {width, model}, .init = param_uniform_fan_in, .decay = true, .matrix = true};
  p[DOWN_PROJ] = (param){"down_proj.weight", "ffn_down.weight", .original = "fc2.weight",            .number = 6, .rank = 2, .shape = {model, width}, .init = param_uniform_out,    .decay = true, .matrix = true};
}
/* clang-format on */

static void add_rows(const model_layer *l, const layer_shape *s, tensor_list *list, const char *name) {
  tensor_list_add(list, name, s->dtype, 2, (int64_t[]){s->batch * s->length, l->options[WIDTH]});
}

static void kept(const model_layer *l, const layer_shape *s, tensor_list *list) {
  add_rows(l, s, list, "gate");
  add_rows(l, s, list, "up");
}

static void scratch(const model_layer *l, const layer_shape *s, tensor_list *list) {
  static const char *const names[] = {"hidden", "dhidden", "dgate", "dup"};
  for (int i = 0; i < (s->train ? 4 : 1); i++) add_rows(l, s, list, names[i]);
}

static linear product(const model_layer *l, int weight, clm_tensor input, clm_tensor out) {
  return (linear){.input = input, .weight = l->params.value[weight], .scale = l->params.scale[weight], .out = out};
}

static clm_swiglu_args gated(const model_layer *l) {
  return (clm_swiglu_args){.gate = l->kept[KEPT_GATE], .up = l->kept[KEPT_UP], .out = l->scratch[HIDDEN]};
}

static clm_status forward(clm_context *ctx, const model_layer *l, const layer_pass *pass) {
  linear gate = product(l, GATE_PROJ, rows_of(pass->x), l->kept[KEPT_GATE]),
         up = product(l, UP_PROJ, rows_of(pass->x), l->kept[KEPT_UP]),
         down = product(l, DOWN_PROJ, l->scratch[HIDDEN], rows_of(pass->out));
  clm_swiglu_args hidden = gated(l);
  if (pass->residual.buffer) down.residual = rows_of(pass->residual);
  TRY(linear_forward(ctx, &gate));
  TRY(linear_forward(ctx, &up));
  TRY(clm_swiglu(ctx, &hidden));
  return linear_forward(ctx, &down);
}

static clm_status backward(clm_context *ctx, const model_layer *l, const layer_gradient *g) {
  const clm_tensor *dw = l->params.gradient, x = rows_of(g->x), dx = rows_of(g->dx);
  clm_tensor dhidden = l->scratch[DHIDDEN], dgate = l->scratch[DGATE], dup = l->scratch[DUP];
  linear gate = product(l, GATE_PROJ, x, l->kept[KEPT_GATE]), up = product(l, UP_PROJ, x, l->kept[KEPT_UP]),
         down = product(l, DOWN_PROJ, l->scratch[HIDDEN], g->dout);
  clm_swiglu_args hidden = gated(l);
  TRY(clm_swiglu(ctx, &hidden));
  TRY(linear_backward(ctx, &down,
                      &(linear_gradients){.dout = rows_of(g->dout), .dinput = dhidden, .dweight = dw[DOWN_PROJ]}));
  TRY(clm_swiglu_backward(
      ctx, &(clm_swiglu_backward_args){.forward = hidden, .dout = dhidden, .dgate = dgate, .dup = dup}));
  TRY(linear_backward(
      ctx, &gate,
      &(linear_gradients){
          .dout = dgate, .dinput = dx, .accumulate_dinput = g->accumulate, .dweight = dw[GATE_PROJ]}));
  return linear_backward(
      ctx, &up, &(linear_gradients){.dout = dup, .dinput = dx, .accumulate_dinput = true, .dweight = dw[UP_PROJ]});
}

const layer_kind layer_mlp = {.name = "mlp",
                              .options = options,
                              .complete = complete,
                              .params = params,
                              .kept = kept,
                              .scratch = scratch,
                              .forward = forward,
                              .backward = backward};
