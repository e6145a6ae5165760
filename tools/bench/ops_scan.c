/* Selective scan, its gradients, and the single step. */
#include "bench/ops.h"

BENCH_OPERATION(selective_scan);
BENCH_OPERATION(selective_scan_backward);
BENCH_OPERATION(selective_state_update);

/* An exponential per state, and four for softplus and the gate. */
static bench_cost forward_cost(const bench_shape *s) {
  double elements = (double)s->batch * (double)s->length * (double)s->dim;
  return (bench_cost){.exponentials = elements * ((double)s->state + 4)};
}

static bench_cost train_cost(const bench_shape *s) {
  bench_cost cost = forward_cost(s);
  cost.exponentials *= 2;
  return cost;
}

#define SCAN_SHAPES                                                                                                  \
  .dims = "batch dim length state groups", .channels = "dim",                                                        \
  .gpu = {.batch = 8, .length = 2048, .dim = 2048, .state = 16, .groups = 1},                                        \
  .cpu = {.batch = 1, .length = 2048, .dim = 1536, .state = 16, .groups = 1}

#define GIVEN     "D z delta_bias"
#define GRADIENTS GIVEN " du ddelta dA dB dC dD dz ddelta_bias"

const bench_op bench_scan = {.name = "scan",
                             .help = "selective scan, forward",
                             SCAN_SHAPES,
                             .calls = {&operation_selective_scan},
                             .given = GIVEN,
                             .set = "delta_softplus",
                             .cost = forward_cost,
                             .tolerance = 2e-5};
const bench_op bench_scan_backward = {.name = "scan-bwd",
                                      .help = "selective scan, backward",
                                      SCAN_SHAPES,
                                      .calls = {&operation_selective_scan_backward},
                                      .given = GRADIENTS,
                                      .set = "delta_softplus",
                                      .cost = forward_cost,
                                      .tolerance = 1e-4};
/* The gradient also writes `out` if asked; here the forward call does. */
const bench_op bench_scan_train = {.name = "scan-train",
                                   .help = "selective scan, forward and backward",
                                   SCAN_SHAPES,
                                   .calls = {&operation_selective_scan, &operation_selective_scan_backward},
                                   .given = GRADIENTS,
                                   .set = "delta_softplus",
                                   .cost = train_cost,
                                   .tolerance = 1e-4};

static bench_cost update_cost(const bench_shape *s) {
  return (bench_cost){.exponentials = (double)s->batch * (double)s->dim * ((double)s->state + 4)};
}

const bench_op bench_update = {.name = "update",
                               .help = "selective scan, one step",
                               .dims = "batch dim state groups",
                               .channels = "dim",
                               .gpu = {.batch = 64, .dim = 5120, .state = 16, .groups = 1},
                               .cpu = {.batch = 1, .dim = 1536, .state = 16, .groups = 1},
                               .calls = {&operation_selective_state_update},
                               .given = GIVEN,
                               .set = "delta_softplus",
                               .cost = update_cost,
                               .tolerance = 1e-5};
