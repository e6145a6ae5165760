/* The arguments of a checked call as backends take them: one direction, one form. `ready` is a copy of them. */
#ifndef CLM_OPS_READY_H
#define CLM_OPS_READY_H

#include "ops/check.h"

/* Every tensor that has the dimension runs backwards along it (a negative stride). */
void ready_reverse(const op_call *, void *ready, char letter);

/* Dimensions that the call's tensors do not have are there, of size 1. */
void ready_spread(const op_call *, void *ready);

#endif
