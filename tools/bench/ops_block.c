/* The Mamba-1 block from in_proj to out_proj, without norm and skip, as src/model runs it: batch rows are
 * independent, so the check looks at one of them. */
#include "bench/ops.h"
#include "core/try.h"
#include "model/linear.h"
#include "ops/view.h"

enum {
  X,
  IN_PROJ,
  CONV_WEIGHT,
  CONV_BIAS,
  X_PROJ,
  DT_PROJ,
  DT_BIAS,
  A_LOG,
  D,
  OUT_PROJ,
  XZ,
  CONV,
  DBC,
  DELTA,
  Y,
  OUT,
  FORWARD_COUNT,
  DOUT = FORWARD_COUNT,
  DX,
  DIN_PROJ,
  DCONV_WEIGHT,
  DCONV_BIAS,
  DX_PROJ,
  DDT_PROJ,
  DDT_BIAS,
  DA_LOG,
  DD,
  DOUT_PROJ,
  DXZ,
  DCONV,
  DDBC,
  DDELTA,
  DY,
  TRAIN_COUNT
};

typedef struct sizes {
  int64_t d_model, d_inner, dt_rank, state, dbc;
} sizes;

static sizes sizes_of(const bench_shape *s) {
  sizes z = {.d_model = s->dim, .d_inner = 2 * s->dim, .dt_rank = (s->dim + 15) / 16, .state = s->state};
  z.dbc = z.dt_rank + 2 * z.state;
  return z;
}

#define ROWS(s, width)        .rank = 3, .shape = {(s)->batch, (s)->length, width}, .channel = 0, .length = -1
#define MATRIX(rows, columns) .rank = 2, .shape = {rows, columns}, .channel = -1, .length = -1, .fixed = true
#define WEIGHT(rows, columns) .rank = 2, .shape = {rows, columns}, .channel = -1, .length = -1, .weights = true
#define VECTOR(size)          .rank = 1, .shape = {size}, .channel = -1, .length = -1, .fixed = true

static int forward_tensors(const bench_shape *s, bench_tensor *t) {
  sizes z = sizes_of(s);
  t[X] = (bench_tensor){.name = "x", ROWS(s, z.d_model), NORMAL(1)};
  t[IN_PROJ] = (bench_tensor){.name = "in_proj", WEIGHT(2 * z.d_inner, z.d_model), NORMAL(0.03f)};
  t[CONV_WEIGHT] = (bench_tensor){.name = "conv.weight", MATRIX(z.d_inner, s->width), NORMAL(0.5f)};
  t[CONV_BIAS] = (bench_tensor){.name = "conv.bias", VECTOR(z.d_inner), NORMAL(0.5f)};
  t[X_PROJ] = (bench_tensor){.name = "x_proj", WEIGHT(z.dbc, z.d_inner), NORMAL(0.03f)};
  t[DT_PROJ] = (bench_tensor){.name = "dt_proj", WEIGHT(z.d_inner, z.dt_rank), NORMAL(0.1f)};
  t[DT_BIAS] = (bench_tensor){.name = "dt_bias", VECTOR(z.d_inner), INPUT(BENCH_STEP, 1)};
  t[A_LOG] = (bench_tensor){.name = "A_log", MATRIX(z.d_inner, z.state), NORMAL(1)};
  t[D] = (bench_tensor){.name = "D", VECTOR(z.d_inner), NORMAL(1)};
  t[OUT_PROJ] = (bench_tensor){.name = "out_proj", WEIGHT(z.d_model, z.d_inner), NORMAL(0.03f)};
  t[XZ] = (bench_tensor){.name = "xz", ROWS(s, 2 * z.d_inner)};
  t[CONV] = (bench_tensor){.name = "conv", ROWS(s, z.d_inner)};
  t[DBC] = (bench_tensor){.name = "dbc", ROWS(s, z.dbc)};
  t[DELTA] = (bench_tensor){.name = "delta", ROWS(s, z.d_inner)};
  t[Y] = (bench_tensor){.name = "y", ROWS(s, z.d_inner)};
  t[OUT] = (bench_tensor){.name = "out", ROWS(s, z.d_model), .output = true};
  return FORWARD_COUNT;
}

static int train_tensors(const bench_shape *s, bench_tensor *t) {
  sizes z = sizes_of(s);
  forward_tensors(s, t);
  t[DOUT] = (bench_tensor){.name = "dout", ROWS(s, z.d_model), NORMAL(1), .gradient = true};
  t[DX] = (bench_tensor){.name = "dx", ROWS(s, z.d_model), .output = true};
  for (int i = IN_PROJ; i <= OUT_PROJ; i++) { /* the gradients of the weights, in the same order */
    static const char *const names[] = {"din_proj", "dconv.weight", "dconv.bias", "dx_proj",  "ddt_proj",
                                        "ddt_bias", "dA_log",       "dD",         "dout_proj"};
    bench_tensor gradient = t[i];
    gradient.name = names[i - IN_PROJ];
    gradient.input = false;
    gradient.output = true;
    gradient.fixed = true;
    gradient.weights = false;
    t[i - IN_PROJ + DIN_PROJ] = gradient;
    t[i].passes = 2;
    t[i].weights = false; /* they change with every step, and are packed in each */
  }
  t[DXZ] = (bench_tensor){.name = "dxz", ROWS(s, 2 * z.d_inner)};
  t[DCONV] = (bench_tensor){.name = "dconv", ROWS(s, z.d_inner)};
  t[DDBC] = (bench_tensor){.name = "ddbc", ROWS(s, z.dbc)};
  t[DDELTA] = (bench_tensor){.name = "ddelta", ROWS(s, z.d_inner)};
  t[DY] = (bench_tensor){.name = "dy", ROWS(s, z.d_inner)};
  return TRAIN_COUNT;
}

/* (batch, length, d_state) as (batch, length, 1, d_state) */
static clm_tensor one_group(clm_tensor t) {
  t.shape[3] = t.shape[2], t.stride[3] = t.stride[2];
  t.shape[2] = 1, t.stride[2] = t.shape[3];
  t.rank = 4;
  return t;
}

static linear layer(clm_tensor input, clm_tensor weight, clm_tensor out) {
  return (linear){.input = input, .weight = weight, .out = out};
}

typedef struct parts {
  linear in, x, dt, out;
  clm_causal_conv1d_args conv;
  clm_selective_scan_args scan;
} parts;

static parts parts_of(const bench_shape *s, const clm_tensor *t) {
  sizes z = sizes_of(s);
  return (parts){
      .in = layer(rows_of(t[X]), t[IN_PROJ], rows_of(t[XZ])),
      .x = layer(rows_of(t[CONV]), t[X_PROJ], rows_of(t[DBC])),
      .dt = layer(view_columns(rows_of(t[DBC]), 0, z.dt_rank), t[DT_PROJ], rows_of(t[DELTA])),
      .out = layer(rows_of(t[Y]), t[OUT_PROJ], rows_of(t[OUT])),
      .conv = {.x = view_columns(t[XZ], 0, z.d_inner),
               .weight = t[CONV_WEIGHT],
               .bias = t[CONV_BIAS],
               .out = t[CONV],
               .silu = true},
      .scan = {.u = t[CONV],
               .delta = t[DELTA],
               .A = t[A_LOG],
               .B = one_group(view_columns(t[DBC], z.dt_rank, z.state)),
               .C = one_group(view_columns(t[DBC], z.dt_rank + z.state, z.state)),
               .D = t[D],
               .z = view_columns(t[XZ], z.d_inner, z.d_inner),
               .delta_bias = t[DT_BIAS],
               .out = t[Y],
               .delta_softplus = true,
               .A_is_log = true},
  };
}

static clm_status call_forward(clm_context *context, const bench_shape *s, const clm_tensor *t) {
  parts p = parts_of(s, t);
  TRY(linear_forward(context, &p.in));
  TRY(clm_causal_conv1d(context, &p.conv));
  TRY(linear_forward(context, &p.x));
  TRY(linear_forward(context, &p.dt));
  TRY(clm_selective_scan(context, &p.scan));
  return linear_forward(context, &p.out);
}

/* Back through the block, with the convolution's output, the step sizes and the gated y made again on the way, as in
 * training. */
static clm_status call_train(clm_context *context, const bench_shape *s, const clm_tensor *t) {
  sizes z = sizes_of(s);
  parts p = parts_of(s, t);
  clm_tensor dout = rows_of(t[DOUT]);
  TRY(call_forward(context, s, t));
  TRY(clm_causal_conv1d(context, &p.conv));
  TRY(linear_forward(context, &p.dt));
  TRY(linear_backward(context, &p.out, &(linear_gradients){.dout = dout, .dinput = rows_of(t[DY])}));
  TRY(clm_selective_scan_backward(context, &(clm_selective_scan_backward_args){
                                               .forward = p.scan,
                                               .dout = t[DY],
                                               .du = t[DCONV],
                                               .ddelta = t[DDELTA],
                                               .dz = view_columns(t[DXZ], z.d_inner, z.d_inner),
                                               .dA = t[DA_LOG],
                                               .dB = one_group(view_columns(t[DDBC], z.dt_rank, z.state)),
                                               .dC = one_group(view_columns(t[DDBC], z.dt_rank + z.state, z.state)),
                                               .dD = t[DD],
                                               .ddelta_bias = t[DDT_BIAS],
                                               .out = t[Y]}));
  TRY(linear_backward(context, &p.out, &(linear_gradients){.dout = dout, .dweight = t[DOUT_PROJ]}));
  TRY(linear_backward(context, &p.dt,
                      &(linear_gradients){.dout = rows_of(t[DDELTA]),
                                          .dinput = view_columns(rows_of(t[DDBC]), 0, z.dt_rank),
                                          .dweight = t[DDT_PROJ]}));
  TRY(linear_backward(
      context, &p.x,
      &(linear_gradients){
          .dout = rows_of(t[DDBC]), .dinput = rows_of(t[DCONV]), .accumulate_dinput = true, .dweight = t[DX_PROJ]}));
  TRY(clm_causal_conv1d_backward(context, &(clm_causal_conv1d_backward_args){.forward = p.conv,
                                                                             .dout = t[DCONV],
                                                                             .dx = view_columns(t[DXZ], 0, z.d_inner),
                                                                             .dweight = t[DCONV_WEIGHT],
                                                                             .dbias = t[DCONV_BIAS]}));
  return linear_backward(
      context, &p.in, &(linear_gradients){.dout = rows_of(t[DXZ]), .dinput = rows_of(t[DX]), .dweight = t[DIN_PROJ]});
}

static bench_cost forward_cost(const bench_shape *s) {
  sizes z = sizes_of(s);
  double rows = (double)s->batch * (double)s->length;
  double weights = (double)(3 * z.d_model + z.dbc + z.dt_rank) * (double)z.d_inner;
  return (bench_cost){.flops = 2 * rows * weights, .exponentials = rows * (double)z.d_inner * ((double)z.state + 5)};
}

static bench_cost train_cost(const bench_shape *s) { return bench_train_cost(forward_cost(s)); }

#define BLOCK_SHAPES                                                                                                 \
  .dims = "batch dim length state width", .channels = "batch", .samples = 1,                                         \
  .gpu = {.batch = 8, .length = 2048, .dim = 1024, .state = 16, .width = 4},                                         \
  .cpu = {.batch = 1, .length = 512, .dim = 768, .state = 16, .width = 4}

const bench_op bench_block = {.name = "block",
                              .help = "Mamba block, forward; --kind mamba2: of Mamba-2",
                              BLOCK_SHAPES,
                              .tensors = forward_tensors,
                              .call = call_forward,
                              .cost = forward_cost,
                              .tolerance = 2e-5};
const bench_op bench_block_train = {.name = "block-train",
                                    .help = "Mamba block, forward and backward; --kind mamba2: of Mamba-2",
                                    BLOCK_SHAPES,
                                    .tensors = train_tensors,
                                    .call = call_train,
                                    .cost = train_cost,
                                    .tolerance = 2e-4};
