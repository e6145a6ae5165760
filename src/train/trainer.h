/* The inside of a trainer, for src/train. */
#ifndef CLM_TRAIN_TRAINER_H
#define CLM_TRAIN_TRAINER_H

#include "model/model.h"
#include "train/data.h"
#include <clmamba/train.h>

/* Batches are uploaded, and their losses fetched, this many at a time: the stream is not waited for in between. */
#define TRAIN_QUEUE 8

/* What losses are multiplied by for the way back, so that small gradients are not lost in f16: as much as goes
 * without overflow. */
typedef struct loss_scaling {
  double scale; /* of the next step */
  double last;  /* of the last one: the gradients' */
  int64_t good; /* steps since it was last changed */
  int64_t skipped;
} loss_scaling;

/* What is learnt: where batches come from, and what is computed of one. */
typedef struct train_task {
  const char *data;                            /* its name in messages: "text"                     */
  size_t (*batch_bytes)(const clm_trainer *t); /* of a batch in the queue                          */
  void (*next)(clm_trainer *t, data_position *position, int slot, void *batch); /* cuts the next one */
  /* Gradients of the batch in `slot` of the queue; loss (1) times t->loss_weight is its mean. */
  clm_status (*run)(clm_trainer *t, int slot, uint64_t seed, clm_tensor loss);
  clm_status (*validate)(clm_trainer *t, double *loss);
  clm_status (*save)(clm_trainer *t, const char *directory);
  uint64_t (*hash)(const clm_trainer *t); /* of all the data */
  void (*destroy)(clm_trainer *t);
} train_task;

struct clm_trainer {
  const train_task *task;
  clm_model *model;
  clm_context *context;
  clm_train_options options;

  void *task_state; /* what the task alone knows                                             */

  clm_buffer *m, *v;       /* moments, laid out as the parameters                            */
  clm_buffer *accumulated; /* sum of gradients; NULL if there is one batch in a step         */
  clm_buffer *queue;       /* TRAIN_QUEUE batches                                            */
  clm_buffer *scalars;     /* TRAIN_QUEUE losses, the gradient's sum of squares              */
  char *host_queue;
  int64_t slot_tokens[TRAIN_QUEUE];
  int queued, used;                         /* batches in the queue, and those of them that have been run */
  int summed;                               /* of those, the ones whose losses have been fetched          */
  data_position positions[TRAIN_QUEUE + 1]; /* before each batch of the queue                             */
  loss_scaling scaling;                     /* always 1 but in f16 */
  bool unfinished; /* a call failed with the parameters changed in part: they are of no step              */

  int64_t step, tokens;
  int64_t validation_tokens;
  double seconds_before; /* of the parts of the run before this one */
  double started;
  double validation_seconds; /* the last one took, 0: none yet */
  double loss_weight, loss_sum;
  int64_t loss_count;
  double lr, quality;
};

/* A trainer without data, and `state_bytes` of zeroed task_state, which is freed with it; trainer_prepare makes the
 * rest once options and data are there. trainer_made ends both: `status` is theirs. */
clm_status trainer_new(clm_model *model, const train_task *task, size_t state_bytes, clm_trainer **trainer);
clm_status trainer_prepare(clm_trainer *trainer);
clm_status trainer_made(clm_status status, clm_trainer **trainer);

/* An error and a message where the trainer is unfinished. */
clm_status trainer_check(const clm_trainer *trainer, const char *call);

/* Where batch `slot` lies in the queue, in bytes. */
size_t trainer_slot(const clm_trainer *trainer, int slot);

/* The rate of options.dropout, where negative is none. */
float trainer_dropout(const clm_trainer *trainer);

/* What gradients of a batch are multiplied by. */
float trainer_loss_scale(const clm_trainer *trainer);

double trainer_seconds(const clm_trainer *trainer); /* wall time of the run */

/* Fraction of the run that is done, by steps or by time. */
double trainer_fraction(const clm_trainer *trainer);

/* Learning rate for a fraction of the run. */
double schedule_lr(const clm_train_options *options, double fraction);

/* Defaults for zeroed members, then ranges. */
clm_status train_options_complete(clm_context *context, clm_train_options *options);

#endif
