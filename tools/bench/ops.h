/* For the tables of operations. */
#ifndef CLM_BENCH_OPS_H
#define CLM_BENCH_OPS_H

#include "bench/bench.h"

#define INPUT(kind, factor) .input = true, .fill = kind, .scale = factor
#define NORMAL(factor)      INPUT(BENCH_NORMAL, factor)

extern const bench_op bench_scan, bench_scan_backward, bench_scan_train, bench_update, bench_ssd, bench_ssd_backward,
    bench_ssd_train, bench_attention, bench_attention_train, bench_conv, bench_conv_backward, bench_assoc_scan,
    bench_gemm, bench_block, bench_block_train, bench_block_mamba2, bench_block_mamba2_train, bench_lm_prefill,
    bench_lm_decode, bench_lm_load, bench_lm_train, bench_backbone_step;

/* Of a block's forward pass -> with its backward pass: two products more for each, each sigmoid once more. */
static inline bench_cost bench_train_cost(bench_cost forward) {
  forward.flops *= 3;
  forward.exponentials *= 2;
  return forward;
}

#endif
