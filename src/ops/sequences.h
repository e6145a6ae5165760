/* What operations along a sequence share: seq_idx, cu_seqlens (clmamba/selective_scan.h) and their checks. Their
 * tables name the dimensions alike: b batch, l length, s the packed sequences, e one more than those. */
#ifndef CLM_OPS_SEQUENCES_H
#define CLM_OPS_SEQUENCES_H

#include "ops/check.h"

/* Rows of a table's dimensions: those of states are one for each batch row, or for each packed sequence. */
/* clang-format off */
#define SEQUENCE_DIMS                                                                                                \
  OP_DIM('b', "batch"), OP_DIM('l', "length"),                                                                       \
  OP_DIM('s', "sequences", .with = "cu_seqlens", .otherwise = 'b'), OP_DIM('e', "sequences + 1")
/* clang-format on */

/* Of tables with offsets, (c): a number for each batch row or packed sequence, which caches have a row for. */
/* clang-format off */
#define OFFSETS_DIM OP_DIM('c', "cache rows", .with = "offsets", .otherwise = 'b')
/* clang-format on */

/* Rows of a table's tensors. */
#define SEQUENCE_TENSORS(args)                                                                                       \
  OP_TENSOR(args, seq_idx, OP_IN, OP_IS_INDEX, "b l", .flags = OP_OPTIONAL),                                         \
      OP_TENSOR(args, cu_seqlens, OP_IN, OP_IS_INDEX, "e", .flags = OP_OPTIONAL)

/* What the table cannot say. `input` is the tensor that gave batch and length. */
clm_status check_sequences(const op_call *, const char *input);

/* That there are as many offsets as rows or sequences. */
clm_status check_offsets(const op_call *);

bool sequences_packed(const op_call *);
static inline int64_t sequence_count(const op_call *c) {
  return sequences_packed(c) ? op_length(c, 'e') - 1 : op_length(c, 'b');
}

#endif
