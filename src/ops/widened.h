/* Small weights stored in 16 bits, where backends take f32: widened copies for one call, and gradients of them
 * rounded back. */
#ifndef CLM_OPS_WIDENED_H
#define CLM_OPS_WIDENED_H

#include "ops/check.h"

#define MAX_WIDENED 10

typedef struct ops_widened {
  clm_tensor *view[MAX_WIDENED];  /* of the call that the backend gets */
  clm_tensor stored[MAX_WIDENED]; /* what stood there                  */
  bool written[MAX_WIDENED];
  int count;
  size_t bytes;
} ops_widened;

/* The tensors of a checked call that its table says are widened and that are f16 or bf16; views into `ready`, a copy
 * of its arguments. */
ops_widened widened_of(const op_call *, void *ready);

/* Makes the views f32, for a question about the call; the bytes that the copies take. */
size_t widened_assume(ops_widened *);

/* Makes the views f32 copies. After CLM_OK comes widened_end with the call's status, and gives what came of it all.
 */
clm_status widened_begin(clm_context *, ops_widened *);
clm_status widened_end(clm_context *, ops_widened *, clm_status);

#endif
