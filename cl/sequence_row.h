/* Which sequence a step belongs to: its batch row, or the packed sequence that it lies in. */
#ifndef CLM_SEQUENCE_ROW_H
#define CLM_SEQUENCE_ROW_H

#include "kernel_args.h"

typedef struct sequence_row {
  long row;   /* -1: in none */
  long begin; /* first step  */
} sequence_row;

/* `ends`: cu_seqlens, or NULL. */
static inline sequence_row sequence_row_of(global const int *ends, const kernel_view *view, long length,
                                           long sequences, long batch, long step) {
  sequence_row r = {batch, 0};
  if (!ends) return r;
  for (r.row = 0; r.row < sequences; r.row++) {
    r.begin = clamp((long)ends[view->offset + r.row * view->stride[0]], 0L, length);
    const long end = clamp((long)ends[view->offset + (r.row + 1) * view->stride[0]], r.begin, length);
    if (step >= r.begin && step < end) return r;
  }
  r.row = -1;
  return r;
}

#endif
