/* The text to train on, cut into windows: every epoch another offset and another order, both drawn from the seed, so
 * that a position is two numbers. */
#ifndef CLM_TRAIN_DATA_H
#define CLM_TRAIN_DATA_H

#include "core/rng.h"
#include <clmamba/context.h>

typedef struct data_position {
  int64_t epoch, index; /* the next window */
} data_position;

typedef struct data_windows {
  int32_t *ids;            /* all of the text                        */
  int64_t count, training; /* tokens; of them, those to train on     */
  int64_t length;          /* of a window                            */
  uint64_t seed;
  int64_t made_epoch;      /* what `order` was made for, -1: nothing */
  int64_t offset, windows; /* of that epoch                          */
  int64_t *order;
} data_windows;

clm_status data_create(clm_context *context, const int32_t *ids, size_t count, int64_t length, uint64_t seed,
                       data_windows *data);
void data_destroy(data_windows *data);

/* The numbers 0 .. count-1 in an order drawn from `r`. */
void data_shuffle(rng *r, int64_t *order, int64_t count);

/* The window at `position`, which moves on: `length` tokens and the tokens that follow them. */
void data_next(data_windows *data, data_position *position, int32_t *ids, int32_t *targets);

/* The tokens to validate on. */
const int32_t *data_validation(const data_windows *data, size_t *count);

#endif
