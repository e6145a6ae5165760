/* Attention and its gradients: causal, as many keys as queries. */
#include "bench/ops.h"

BENCH_OPERATION(attention);
BENCH_OPERATION(attention_backward);

/* Of `products` such as q k^T, and of `times` the weights, without the half that is masked. */
static bench_cost cost_of(const bench_shape *s, int products, int times) {
  const double scores = (double)s->batch * (double)s->heads * (double)s->length * ((double)s->length + 1) / 2;
  return (bench_cost){.exponentials = times * scores, .flops = products * 2.0 * scores * (double)s->head_dim};
}

/* q k^T and the weights' v. */
static bench_cost forward_cost(const bench_shape *s) { return cost_of(s, 2, 1); }

/* The same; the scores again, the gradients of the weights, of q, k and v. */
static bench_cost train_cost(const bench_shape *s) { return cost_of(s, 7, 2); }

#define ATTENTION_SHAPES                                                                                             \
  .dims = "batch length heads kv_heads head_dim", .channels = "heads", .samples = 2,                                 \
  .gpu = {.batch = 4, .length = 2048, .heads = 32, .kv_heads = 8, .head_dim = 128},                                  \
  .cpu = {.batch = 1, .length = 1024, .heads = 8, .kv_heads = 2, .head_dim = 128}

const bench_op bench_attention = {.name = "attention",
                                  .help = "causal attention, forward",
                                  ATTENTION_SHAPES,
                                  .calls = {&operation_attention},
                                  .given = "",
                                  .set = "",
                                  .cost = forward_cost,
                                  .tolerance = 2e-5};
const bench_op bench_attention_train = {.name = "attention-train",
                                        .help = "causal attention, forward and backward",
                                        ATTENTION_SHAPES,
                                        .calls = {&operation_attention, &operation_attention_backward},
                                        .given = "lse dq dk dv",
                                        .set = "",
                                        .cost = train_cost,
                                        .tolerance = 1e-4};
