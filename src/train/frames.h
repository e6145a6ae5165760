/* The sequences to train on: every epoch in another order drawn from the seed, so that a position is two numbers. */
#ifndef CLM_TRAIN_FRAMES_H
#define CLM_TRAIN_FRAMES_H

#include "model/backbone.h"
#include "train/data.h"

typedef struct frames_data {
  clm_sequences sequences; /* the caller's memory                                        */
  backbone_sequence *list; /* cut to `longest` frames                                    */
  int64_t count, training; /* of the list; those to train on, the others to validate on  */
  int64_t longest, frames; /* of one, of all                                             */
  uint64_t seed;
  int64_t made_epoch; /* what `order` was made for, -1: nothing */
  int64_t *order;
} frames_data;

/* `length` 0: whole sequences. With an output at every frame, longer ones become several; with one output, they lose
 * their beginning to the backbone's window, and `length` may not be less than the longest that is left. */
clm_status frames_create(clm_backbone *backbone, const clm_sequences *sequences, int64_t length, uint64_t seed,
                         frames_data *data);
void frames_destroy(frames_data *data);

/* The sequence at `position`, which moves on. */
const backbone_sequence *frames_next(frames_data *data, data_position *position);

uint64_t frames_hash(const frames_data *data, const clm_backbone *backbone);

#endif
