/* Causal convolution, associative scan, matrix product. */
#include "bench/ops.h"

BENCH_OPERATION(causal_conv1d);
BENCH_OPERATION(causal_conv1d_backward);
BENCH_OPERATION(assoc_scan);
BENCH_OPERATION(matmul);

static bench_cost conv_cost(const bench_shape *s) {
  double elements = (double)s->batch * (double)s->length * (double)s->dim;
  return (bench_cost){.exponentials = elements};
}

#define CONV_SHAPES                                                                                                  \
  .dims = "batch dim length width", .channels = "dim", .gpu = {.batch = 8, .length = 2048, .dim = 2048, .width = 4}, \
  .cpu = {.batch = 1, .length = 2048, .dim = 1536, .width = 4}

const bench_op bench_conv = {.name = "conv",
                             .help = "causal convolution with SiLU, forward",
                             CONV_SHAPES,
                             .calls = {&operation_causal_conv1d},
                             .given = "bias",
                             .set = "silu",
                             .cost = conv_cost,
                             .tolerance = 1e-5};
const bench_op bench_conv_backward = {.name = "conv-bwd",
                                      .help = "causal convolution with SiLU, backward",
                                      CONV_SHAPES,
                                      .calls = {&operation_causal_conv1d_backward},
                                      .given = "bias dx dweight dbias",
                                      .set = "silu",
                                      .cost = conv_cost,
                                      .tolerance = 1e-4};

static bench_cost no_cost(const bench_shape *s) {
  (void)s;
  return (bench_cost){0};
}

const bench_op bench_assoc_scan = {.name = "assoc-scan",
                                   .help = "associative scan of a first-order recurrence",
                                   .dims = "batch dim length",
                                   .channels = "dim",
                                   .gpu = {.batch = 8, .length = 2048, .dim = 2048},
                                   .cpu = {.batch = 1, .length = 2048, .dim = 1536},
                                   .calls = {&operation_assoc_scan},
                                   .cost = no_cost,
                                   .tolerance = 1e-5};

static bench_cost gemm_cost(const bench_shape *s) {
  return (bench_cost){.flops = 2 * (double)s->batch * (double)s->m * (double)s->n * (double)s->k};
}

const bench_op bench_gemm = {.name = "gemm",
                             .help = "matrix product",
                             .dims = "batch m n k",
                             .channels = "n",
                             .gpu = {.batch = 1, .m = 4096, .n = 4096, .k = 4096},
                             .cpu = {.batch = 1, .m = 1024, .n = 1024, .k = 1024},
                             .calls = {&operation_matmul},
                             .cost = gemm_cost,
                             .tolerance = 1e-5};
