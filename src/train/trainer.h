/* The inside of a trainer, for src/train. */
#ifndef CLM_TRAIN_TRAINER_H
#define CLM_TRAIN_TRAINER_H

#include "model/model.h"
#include "train/data.h"
#include <clmamba/train.h>

/* Batches are uploaded, and their losses fetched, this many at a time: the stream is not waited for in between. */
#define TRAIN_QUEUE 8

struct clm_trainer {
  clm_model *model;
  clm_context *context;
  clm_train_options options;
  data_windows data;

  clm_buffer *m, *v;       /* moments, laid out as the parameters                     */
  clm_buffer *accumulated; /* sum of gradients; NULL if there is one batch in a step  */
  clm_buffer *queue;       /* ids and targets of TRAIN_QUEUE batches, losses of one   */
  clm_buffer *scalars;     /* TRAIN_QUEUE sums of losses, the gradient's sum of squares */
  int32_t *host_queue;
  int queued, used;                         /* batches in the queue, and those of them that have been run */
  int summed;                               /* of those, the ones whose losses have been fetched          */
  data_position positions[TRAIN_QUEUE + 1]; /* before each batch of the queue                             */

  int64_t step, tokens;
  double seconds_before; /* of the parts of the run before this one */
  double started;
  double validation_seconds; /* the last one took, 0: none yet */
  double loss_sum;
  int64_t loss_count;
  double lr;
};

double trainer_seconds(const clm_trainer *trainer); /* wall time of the run */

/* Fraction of the run that is done, by steps or by time. */
double trainer_fraction(const clm_trainer *trainer);

/* Learning rate for a fraction of the run. */
double schedule_lr(const clm_train_options *options, double fraction);

/* Defaults for zeroed members, then ranges. */
clm_status train_options_complete(clm_context *context, clm_train_options *options);

#endif
