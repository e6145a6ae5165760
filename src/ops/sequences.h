/* What operations along a sequence share: seq_idx, cu_seqlens (clmamba/selective_scan.h) and their checks. */
#ifndef CLM_OPS_SEQUENCES_H
#define CLM_OPS_SEQUENCES_H

#include "ops/check.h"

typedef struct sequence_dims {
  check_dim batch, length;
  check_dim sequences, ends; /* with cu_seqlens: its length is one more */
} sequence_dims;

#define SEQUENCE_DIMS                                                                                                \
  {                                                                                                                  \
    CHECK_DIM(batch), CHECK_DIM(length), CHECK_DIM(sequences), .ends = {.name = "sequences + 1" }                    \
  }

/* The rows of a call's states: one for each batch row, or for each packed sequence. */
static inline check_dim *sequence_rows(sequence_dims *d, const clm_tensor *cu_seqlens) {
  return check_present(cu_seqlens) ? &d->sequences : &d->batch;
}

/* Rows of a table of tensors. */
#define SEQUENCE_ROWS(a, d)                                                                                          \
  CHECK_ROW(a, seq_idx, CHECK_OPTIONAL, .dtypes = CHECK_I32, .dims = {&(d)->batch, &(d)->length}),                   \
      CHECK_ROW(a, cu_seqlens, CHECK_OPTIONAL, .dtypes = CHECK_I32, .dims = {&(d)->ends})

/* What the table cannot say. `input` is the tensor that gave batch and length. */
clm_status check_sequences(checker *, const sequence_dims *, const char *input, const clm_tensor *seq_idx,
                           const clm_tensor *cu_seqlens);

static inline int64_t sequence_count(const sequence_dims *d, const clm_tensor *cu_seqlens) {
  return check_present(cu_seqlens) ? d->ends.size - 1 : d->batch.size;
}

#endif
