/* Causal convolution, associative scan, matrix product. */
#include "bench/ops.h"
#include <string.h>

#define SEQUENCE .rank = 3, .shape = {s->batch, s->length, s->dim}, .channel = 2, .length = 1
#define CHANNEL  .rank = 1, .shape = {s->dim}, .channel = 0, .length = -1, .fixed = true
#define WEIGHT   .rank = 2, .shape = {s->dim, s->width}, .channel = 0, .length = -1, .fixed = true

enum { X, WEIGHTS, BIAS, OUT, CONV_COUNT, DOUT = OUT, DX, DWEIGHTS, DBIAS, CONV_BACKWARD_COUNT };

static int conv_tensors(const bench_shape *s, bench_tensor *t) {
  t[X] = (bench_tensor){.name = "x", SEQUENCE, NORMAL(1)};
  t[WEIGHTS] = (bench_tensor){.name = "weight", WEIGHT, NORMAL(0.5f)};
  t[BIAS] = (bench_tensor){.name = "bias", CHANNEL, NORMAL(1)};
  t[OUT] = (bench_tensor){.name = "out", SEQUENCE, .output = true};
  return CONV_COUNT;
}

static int conv_backward_tensors(const bench_shape *s, bench_tensor *t) {
  conv_tensors(s, t);
  t[DOUT] = (bench_tensor){.name = "dout", SEQUENCE, NORMAL(1)};
  t[DX] = (bench_tensor){.name = "dx", SEQUENCE, .output = true};
  t[DWEIGHTS] = (bench_tensor){.name = "dweight", WEIGHT, .output = true};
  t[DBIAS] = (bench_tensor){.name = "dbias", CHANNEL, .output = true};
  return CONV_BACKWARD_COUNT;
}

static clm_status call_conv(clm_context *context, const bench_shape *s, const clm_tensor *t) {
  (void)s;
  return clm_causal_conv1d(
      context,
      &(clm_causal_conv1d_args){.x = t[X], .weight = t[WEIGHTS], .bias = t[BIAS], .out = t[OUT], .silu = true});
}

static clm_status call_conv_backward(clm_context *context, const bench_shape *s, const clm_tensor *t) {
  (void)s;
  return clm_causal_conv1d_backward(
      context,
      &(clm_causal_conv1d_backward_args){.forward = {.x = t[X], .weight = t[WEIGHTS], .bias = t[BIAS], .silu = true},
                                         .dout = t[DOUT],
                                         .dx = t[DX],
                                         .dweight = t[DWEIGHTS],
                                         .dbias = t[DBIAS]});
}

static bench_cost conv_cost(const bench_shape *s) {
  double elements = (double)s->batch * (double)s->length * (double)s->dim;
  return (bench_cost){.exponentials = elements};
}

#define CONV_SHAPES                                                                                                  \
  .dims = "batch dim length width", .channels = "dim", .gpu = {.batch = 8, .length = 2048, .dim = 2048, .width = 4}, \
  .cpu = {.batch = 1, .length = 2048, .dim = 1536, .width = 4}

const bench_op bench_conv = {
    "conv",           "causal convolution with SiLU, forward", CONV_SHAPES, conv_tensors, call_conv, conv_cost,
    .tolerance = 1e-5};
const bench_op bench_conv_backward = {"conv-bwd",         "causal convolution with SiLU, backward",
                                      CONV_SHAPES,        conv_backward_tensors,
                                      call_conv_backward, conv_cost,
                                      .tolerance = 1e-4};

static int assoc_tensors(const bench_shape *s, bench_tensor *t) {
  t[0] = (bench_tensor){.name = "a", SEQUENCE, INPUT(BENCH_DECAY, 1), .complex = true};
  t[1] = (bench_tensor){.name = "b", SEQUENCE, NORMAL(1), .complex = true};
  t[2] = (bench_tensor){.name = "h", SEQUENCE, .output = true, .complex = true};
  return 3;
}

static clm_status call_assoc(clm_context *context, const bench_shape *s, const clm_tensor *t) {
  (void)s;
  return clm_assoc_scan(context, &(clm_assoc_scan_args){.a = t[0], .b = t[1], .h = t[2]});
}

static bench_cost no_cost(const bench_shape *s) {
  (void)s;
  return (bench_cost){0};
}

const bench_op bench_assoc_scan = {"assoc-scan",
                                   "associative scan of a first-order recurrence",
                                   .dims = "batch dim length",
                                   .channels = "dim",
                                   .gpu = {.batch = 8, .length = 2048, .dim = 2048},
                                   .cpu = {.batch = 1, .length = 2048, .dim = 1536},
                                   assoc_tensors,
                                   call_assoc,
                                   no_cost,
                                   .tolerance = 1e-5};

/* As they lie in memory. */
static int gemm_tensors(const bench_shape *s, bench_tensor *t) {
  t[0] = (bench_tensor){.name = "a", .rank = 2, .shape = {s->m, s->k}, .channel = -1, .length = -1, NORMAL(1)};
  t[1] = (bench_tensor){.name = "b", .rank = 2, .shape = {s->k, s->n}, .channel = 1, .length = -1, NORMAL(1)};
  t[2] = (bench_tensor){.name = "out", .rank = 2, .shape = {s->m, s->n}, .channel = 1, .length = -1, .output = true};
  if (s->a_transposed) t[0].shape[0] = s->k, t[0].shape[1] = s->m;
  if (s->b_transposed) t[1].shape[0] = s->n, t[1].shape[1] = s->k, t[1].channel = 0;
  t[0].weights = s->a_packed;
  t[1].weights = s->b_packed;
  for (int i = 0; i < 3 && s->batch > 1; i++) {
    t[i].rank = 3;
    memmove(t[i].shape + 1, t[i].shape, 2 * sizeof *t[i].shape);
    t[i].shape[0] = s->batch;
    if (t[i].channel >= 0) t[i].channel++;
  }
  return 3;
}

static clm_status call_gemm(clm_context *context, const bench_shape *s, const clm_tensor *t) {
  const int row = t[0].rank - 2, column = row + 1;
  return clm_matmul(context, &(clm_matmul_args){.a = s->a_transposed ? clm_tensor_transpose(t[0], row, column) : t[0],
                                                .b = s->b_transposed ? clm_tensor_transpose(t[1], row, column) : t[1],
                                                .out = t[2],
                                                .math = s->math});
}

static bench_cost gemm_cost(const bench_shape *s) {
  return (bench_cost){.flops = 2 * (double)s->batch * (double)s->m * (double)s->n * (double)s->k};
}

const bench_op bench_gemm = {"gemm",
                             "matrix product",
                             .dims = "batch m n k",
                             .channels = "n",
                             .gpu = {.batch = 1, .m = 4096, .n = 4096, .k = 4096},
                             .cpu = {.batch = 1, .m = 1024, .n = 1024, .k = 1024},
                             gemm_tensors,
                             call_gemm,
                             gemm_cost,
                             .tolerance = 1e-5};
