/* Where a row of a scan or convolution begins and ends, and which of its steps begin a sequence or are padding:
 * seq_idx and cu_seqlens (clmamba/selective_scan.h) read on the host. */
#ifndef CLM_OPS_ROWS_H
#define CLM_OPS_ROWS_H

#include "core/context.h"

typedef struct seq_row {
  int64_t batch;      /* of the sequences                          */
  int64_t state;      /* of initial_state, final_state             */
  int64_t begin, end; /* steps; none where a packed sequence is empty */
} seq_row;

static inline int64_t seq_clamp(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }

/* Row `row` of batch, or of the packed sequences. `reversed`: the views run backwards, cu_seqlens does not. */
static inline seq_row seq_row_of(const clm_tensor *cu_seqlens, bool reversed, int64_t length, int64_t row) {
  if (!cu_seqlens->buffer) return (seq_row){row, row, 0, length};
  const int32_t *ends = (const int32_t *)(const void *)((const char *)cu_seqlens->buffer->host + cu_seqlens->offset);
  int64_t begin = seq_clamp(ends[row * cu_seqlens->stride[0]], 0, length);
  int64_t end = seq_clamp(ends[(row + 1) * cu_seqlens->stride[0]], begin, length);
  return reversed ? (seq_row){0, row, length - end, length - begin} : (seq_row){0, row, begin, end};
}

/* Of a row: where its first step stands; 0 without offsets. */
static inline int64_t seq_offset_of(const clm_tensor *offsets, int64_t row) {
  if (!offsets->buffer) return 0;
  const int32_t *numbers = (const int32_t *)(const void *)((const char *)offsets->buffer->host + offsets->offset);
  return numbers[row * offsets->stride[0]];
}

typedef enum seq_step { SEQ_GOES_ON, SEQ_BEGINS, SEQ_PADDING } seq_step;

/* What step `step` of batch row `batch` is. `last`: the number of the nearest step before that is not padding,
 * negative where there is none; kept by the caller from step to step. */
static inline seq_step seq_step_of(const clm_tensor *seq_idx, int64_t batch, int64_t step, int32_t *last) {
  if (!seq_idx->buffer) return SEQ_GOES_ON;
  const int32_t *numbers = (const int32_t *)(const void *)((const char *)seq_idx->buffer->host + seq_idx->offset);
  int32_t number = numbers[batch * seq_idx->stride[0] + step * seq_idx->stride[1]], before = *last;
  if (number < 0) return SEQ_PADDING;
  *last = number;
  return before >= 0 && before != number ? SEQ_BEGINS : SEQ_GOES_ON;
}

#endif
