/* SSD and its gradients. */
#include "bench/ops.h"

BENCH_OPERATION(ssd);
BENCH_OPERATION(ssd_backward);

/* Products with the state alone, those within a piece being a choice: of `products` such for each step and head.
 * Three exponentials: softplus, and the decay. */
static bench_cost cost_of(const bench_shape *s, int products) {
  const double steps = (double)s->batch * (double)s->length * (double)s->heads;
  return (bench_cost){.exponentials = 3 * steps,
                      .flops = products * 2.0 * steps * (double)s->head_dim * (double)s->state};
}

/* x B^T and S C. */
static bench_cost forward_cost(const bench_shape *s) { return cost_of(s, 2); }

/* The states again; the gradients of x, B, C and the state. */
static bench_cost backward_cost(const bench_shape *s) { return cost_of(s, 5); }
static bench_cost train_cost(const bench_shape *s) { return cost_of(s, 7); }

#define SSD_SHAPES                                                                                                   \
  .dims = "batch length heads head_dim state groups", .channels = "heads", .samples = 2,                             \
  .gpu = {.batch = 8, .length = 2048, .heads = 32, .head_dim = 64, .state = 128, .groups = 1},                       \
  .cpu = {.batch = 1, .length = 1024, .heads = 24, .head_dim = 64, .state = 128, .groups = 1}

#define GIVEN     "D dt_bias"
#define GRADIENTS GIVEN " dx ddt dA dB dC dD ddt_bias"

const bench_op bench_ssd = {.name = "ssd",
                            .help = "SSD (Mamba-2), forward",
                            SSD_SHAPES,
                            .calls = {&operation_ssd},
                            .given = GIVEN,
                            .set = "dt_softplus",
                            .cost = forward_cost,
                            .tolerance = 2e-5};
const bench_op bench_ssd_backward = {.name = "ssd-bwd",
                                     .help = "SSD (Mamba-2), backward",
                                     SSD_SHAPES,
                                     .calls = {&operation_ssd_backward},
                                     .given = GRADIENTS,
                                     .set = "dt_softplus",
                                     .cost = backward_cost,
                                     .tolerance = 1e-4};
const bench_op bench_ssd_train = {.name = "ssd-train",
                                  .help = "SSD (Mamba-2), forward and backward",
                                  SSD_SHAPES,
                                  .calls = {&operation_ssd, &operation_ssd_backward},
                                  .given = GRADIENTS,
                                  .set = "dt_softplus",
                                  .cost = train_cost,
                                  .tolerance = 1e-4};
