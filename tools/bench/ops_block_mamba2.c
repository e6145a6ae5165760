/* The Mamba-2 block from in_proj to out_proj, without norm and skip, as src/model runs it: batch rows are
 * independent, so the check looks at one of them. d_inner is twice d_model. */
#include "bench/ops.h"
#include "core/context.h"
#include "core/try.h"
#include "model/linear.h"
#include "ops/view.h"
#include <inttypes.h>

enum {
  X,
  IN_PROJ,
  CONV_WEIGHT,
  CONV_BIAS,
  DT_BIAS,
  A_LOG,
  D,
  NORM,
  OUT_PROJ,
  PROJECTED,
  XBC,
  Y,
  GATED,
  OUT,
  FORWARD_COUNT,
  DOUT = FORWARD_COUNT,
  DX,
  DIN_PROJ,
  DCONV_WEIGHT,
  DCONV_BIAS,
  DDT_BIAS,
  DA_LOG,
  DD,
  DNORM,
  DOUT_PROJ,
  DPROJECTED,
  DXBC,
  DY,
  DGATED,
  TRAIN_COUNT
};

typedef struct sizes {
  int64_t d_model, d_inner, heads, between; /* between: columns of B, and of C */
  int64_t conv, projected;                  /* channels of the convolution, rows of in_proj */
} sizes;

static sizes sizes_of(const bench_shape *s) {
  sizes z = {.d_model = s->dim,
             .d_inner = 2 * s->dim,
             .heads = (2 * s->dim + s->head_dim - 1) / s->head_dim,
             .between = s->groups * s->state};
  z.conv = z.d_inner + 2 * z.between;
  z.projected = z.d_inner + z.conv + z.heads;
  return z;
}

#define ROWS(s, width)        .rank = 3, .shape = {(s)->batch, (s)->length, width}, .channel = 0, .length = -1
#define MATRIX(rows, columns) .rank = 2, .shape = {rows, columns}, .channel = -1, .length = -1, .fixed = true
#define WEIGHT(rows, columns) .rank = 2, .shape = {rows, columns}, .channel = -1, .length = -1, .weights = true
#define VECTOR(size)          .rank = 1, .shape = {size}, .channel = -1, .length = -1, .fixed = true

static int forward_tensors(const bench_shape *s, bench_tensor *t) {
  const sizes z = sizes_of(s);
  t[X] = (bench_tensor){.name = "x", ROWS(s, z.d_model), NORMAL(1)};
  t[IN_PROJ] = (bench_tensor){.name = "in_proj", WEIGHT(z.projected, z.d_model), NORMAL(0.03f)};
  t[CONV_WEIGHT] = (bench_tensor){.name = "conv.weight", MATRIX(z.conv, s->width), NORMAL(0.5f)};
  t[CONV_BIAS] = (bench_tensor){.name = "conv.bias", VECTOR(z.conv), NORMAL(0.5f)};
  t[DT_BIAS] = (bench_tensor){.name = "dt_bias", VECTOR(z.heads), INPUT(BENCH_STEP, 1)};
  t[A_LOG] = (bench_tensor){.name = "A_log", VECTOR(z.heads), NORMAL(1)};
  t[D] = (bench_tensor){.name = "D", VECTOR(z.heads), NORMAL(1)};
  t[NORM] = (bench_tensor){.name = "norm", VECTOR(z.d_inner), NORMAL(1)};
  t[OUT_PROJ] = (bench_tensor){.name = "out_proj", WEIGHT(z.d_model, z.d_inner), NORMAL(0.03f)};
  t[PROJECTED] = (bench_tensor){.name = "projected", ROWS(s, z.projected)};
  t[XBC] = (bench_tensor){.name = "xbc", ROWS(s, z.conv)};
  t[Y] = (bench_tensor){.name = "y", ROWS(s, z.d_inner)};
  t[GATED] = (bench_tensor){.name = "gated", ROWS(s, z.d_inner)};
  t[OUT] = (bench_tensor){.name = "out", ROWS(s, z.d_model), .output = true};
  return FORWARD_COUNT;
}

static int train_tensors(const bench_shape *s, bench_tensor *t) {
  static const char *const names[] = {"din_proj", "dconv.weight", "dconv.bias", "ddt_bias",
                                      "dA_log",   "dD",           "dnorm",      "dout_proj"};
  const sizes z = sizes_of(s);
  forward_tensors(s, t);
  t[DOUT] = (bench_tensor){.name = "dout", ROWS(s, z.d_model), NORMAL(1), .gradient = true};
  t[DX] = (bench_tensor){.name = "dx", ROWS(s, z.d_model), .output = true};
  for (int i = IN_PROJ; i <= OUT_PROJ; i++) { /* the gradients of the weights, in the same order */
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
  t[DPROJECTED] = (bench_tensor){.name = "dprojected", ROWS(s, z.projected)};
  t[DXBC] = (bench_tensor){.name = "dxbc", ROWS(s, z.conv)};
  t[DY] = (bench_tensor){.name = "dy", ROWS(s, z.d_inner)};
  t[DGATED] = (bench_tensor){.name = "dgated", ROWS(s, z.d_inner)};
  return TRAIN_COUNT;
}

/* What in_proj gives, or its gradient. */
static clm_tensor z_of(const sizes *z, clm_tensor t) { return view_columns(t, 0, z->d_inner); }
static clm_tensor xbc_of(const sizes *z, clm_tensor t) { return view_columns(t, z->d_inner, z->conv); }
static clm_tensor dt_of(const sizes *z, clm_tensor t) { return view_columns(t, z->d_inner + z->conv, z->heads); }

/* What the convolution gives, or its gradient. */
static clm_tensor x_of(const bench_shape *s, clm_tensor t) {
  return view_parts(view_columns(t, 0, 2 * s->dim), s->head_dim);
}
static clm_tensor B_of(const bench_shape *s, clm_tensor t) {
  return view_parts(view_columns(t, 2 * s->dim, s->groups * s->state), s->state);
}
static clm_tensor C_of(const bench_shape *s, clm_tensor t) {
  return view_parts(view_columns(t, 2 * s->dim + s->groups * s->state, s->groups * s->state), s->state);
}

typedef struct parts {
  linear in, out;
  clm_causal_conv1d_args conv;
  clm_ssd_args scan;
  clm_gated_norm_args norm;
} parts;

static parts parts_of(const bench_shape *s, const clm_tensor *t) {
  const sizes z = sizes_of(s);
  return (parts){.in = {.input = rows_of(t[X]), .weight = t[IN_PROJ], .out = rows_of(t[PROJECTED])},
                 .out = {.input = rows_of(t[GATED]), .weight = t[OUT_PROJ], .out = rows_of(t[OUT])},
                 .conv = {.x = xbc_of(&z, t[PROJECTED]),
                          .weight = t[CONV_WEIGHT],
                          .bias = t[CONV_BIAS],
                          .out = t[XBC],
                          .silu = true},
                 .scan = {.x = x_of(s, t[XBC]),
                          .dt = dt_of(&z, t[PROJECTED]),
                          .A = t[A_LOG],
                          .B = B_of(s, t[XBC]),
                          .C = C_of(s, t[XBC]),
                          .D = t[D],
                          .dt_bias = t[DT_BIAS],
                          .out = view_parts(t[Y], s->head_dim),
                          .dt_softplus = true,
                          .A_is_log = true},
                 .norm = {.x = rows_of(t[Y]),
                          .z = z_of(&z, rows_of(t[PROJECTED])),
                          .weight = t[NORM],
                          .out = rows_of(t[GATED]),
                          .epsilon = 1e-5f,
                          .n_groups = s->groups}};
}

static clm_status check(clm_context *context, const bench_shape *s) {
  const sizes z = sizes_of(s);
  if (z.d_inner % s->head_dim)
    return context_fail(context, CLM_INVALID_ARGUMENT,
                        "block: head_dim is %" PRId64 ", which does not divide d_inner %" PRId64, s->head_dim,
                        z.d_inner);
  return CLM_OK;
}

static clm_status call_forward(clm_context *context, const bench_shape *s, const clm_tensor *t) {
  TRY(check(context, s));
  const parts p = parts_of(s, t);
  TRY(linear_forward(context, &p.in));
  TRY(clm_causal_conv1d(context, &p.conv));
  TRY(clm_ssd(context, &p.scan));
  TRY(clm_gated_norm(context, &p.norm));
  return linear_forward(context, &p.out);
}

/* Back through the block, with the convolution's output, y and its gated norm made again on the way, as in
 * training. */
static clm_status call_train(clm_context *context, const bench_shape *s, const clm_tensor *t) {
  TRY(call_forward(context, s, t));
  const sizes z = sizes_of(s);
  const parts p = parts_of(s, t);
  const clm_tensor dout = rows_of(t[DOUT]);
  TRY(clm_causal_conv1d(context, &p.conv));
  TRY(clm_ssd(context, &p.scan));
  TRY(linear_backward(context, &p.out, &(linear_gradients){.dout = dout, .dinput = rows_of(t[DGATED])}));
  TRY(clm_gated_norm_backward(context, &(clm_gated_norm_backward_args){.forward = p.norm,
                                                                       .dout = rows_of(t[DGATED]),
                                                                       .dx = rows_of(t[DY]),
                                                                       .dz = z_of(&z, rows_of(t[DPROJECTED])),
                                                                       .dweight = t[DNORM],
                                                                       .out = rows_of(t[GATED])}));
  TRY(linear_backward(context, &p.out, &(linear_gradients){.dout = dout, .dweight = t[DOUT_PROJ]}));
  TRY(clm_ssd_backward(context, &(clm_ssd_backward_args){.forward = p.scan,
                                                         .dout = view_parts(t[DY], s->head_dim),
                                                         .dx = x_of(s, t[DXBC]),
                                                         .ddt = dt_of(&z, t[DPROJECTED]),
                                                         .dB = B_of(s, t[DXBC]),
                                                         .dC = C_of(s, t[DXBC]),
                                                         .dA = t[DA_LOG],
                                                         .ddt_bias = t[DDT_BIAS],
                                                         .dD = t[DD]}));
  TRY(clm_causal_conv1d_backward(context, &(clm_causal_conv1d_backward_args){.forward = p.conv,
                                                                             .dout = t[DXBC],
                                                                             .dx = xbc_of(&z, t[DPROJECTED]),
                                                                             .dweight = t[DCONV_WEIGHT],
                                                                             .dbias = t[DCONV_BIAS]}));
  return linear_backward(
      context, &p.in,
      &(linear_gradients){.dout = rows_of(t[DPROJECTED]), .dinput = rows_of(t[DX]), .dweight = t[DIN_PROJ]});
}

/* Of the scan as in ops_ssd.c; of the convolution and the gate a sigmoid each. */
static bench_cost forward_cost(const bench_shape *s) {
  const sizes z = sizes_of(s);
  const double rows = (double)s->batch * (double)s->length;
  const double weights = (double)(z.projected + z.d_inner) * (double)z.d_model,
               scan = 2 * (double)z.d_inner * (double)s->state;
  return (bench_cost){.flops = 2 * rows * (weights + scan),
                      .exponentials = rows * (double)(z.conv + z.d_inner + 3 * z.heads)};
}

static bench_cost train_cost(const bench_shape *s) { return bench_train_cost(forward_cost(s)); }

#define BLOCK_SHAPES                                                                                                 \
  .kind = "mamba2", .dims = "batch dim length state width head_dim groups", .channels = "batch", .samples = 1,       \
  .gpu = {.batch = 8, .length = 2048, .dim = 1024, .state = 128, .width = 4, .head_dim = 64, .groups = 1},           \
  .cpu = {.batch = 1, .length = 512, .dim = 768, .state = 128, .width = 4, .head_dim = 64, .groups = 1}

const bench_op bench_block_mamba2 = {.name = "block",
                                     .help = "Mamba-2 block, forward",
                                     BLOCK_SHAPES,
                                     .tensors = forward_tensors,
                                     .call = call_forward,
                                     .cost = forward_cost,
                                     .tolerance = 2e-5};
const bench_op bench_block_mamba2_train = {.name = "block-train",
                                           .help = "Mamba-2 block, forward and backward",
                                           BLOCK_SHAPES,
                                           .tensors = train_tensors,
                                           .call = call_train,
                                           .cost = train_cost,
                                           .tolerance = 2e-4};
