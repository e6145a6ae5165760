/* Small weights stored in 16 bits, where backends take f32: copies for one call, and back again for their
 * gradients. */
#ifndef CLM_OPS_HALVES_H
#define CLM_OPS_HALVES_H

#include "ops/check.h"

#define MOST_HALVES 10

typedef struct ops_halves {
  clm_tensor *view[MOST_HALVES];  /* of the call that the backend gets */
  clm_tensor stored[MOST_HALVES]; /* what stood there                  */
  bool written[MOST_HALVES];
  int count;
  size_t bytes;
} ops_halves;

/* The tensors of a checked call that its table says are widened and that are f16 or bf16; views into `ready`, a copy
 * of its arguments. */
ops_halves halves_of(const op_call *, void *ready);

/* Makes the views f32, for a question about the call; the bytes that the copies take. */
size_t halves_pretend(ops_halves *);

/* Makes the views f32 copies. After CLM_OK comes halves_end with the call's status, and gives what came of it all. */
clm_status halves_begin(clm_context *, ops_halves *);
clm_status halves_end(clm_context *, ops_halves *, clm_status);

#endif
