#include "train/trainer.h"
#include "core/clock.h"
#include "core/context.h"
#include "core/rng.h"
#include "core/try.h"
#include <clmamba/adamw.h>
#include <clmamba/elementwise.h>
#include <math.h>
#include <stdlib.h>

#define ADAM_EPSILON 1e-8f

/* Scales of the loss in f16: powers of two, so that nothing is rounded. */
#define FIRST_SCALE 65536.0
#define MAX_SCALE   16777216.0
#define GROW_AFTER  2000 /* steps without overflow */

float trainer_dropout(const clm_trainer *t) { return (float)fmax(t->options.dropout, 0); }

float trainer_loss_scale(const clm_trainer *t) { return (float)t->scaling.scale; }

double trainer_seconds(const clm_trainer *t) { return t->seconds_before + clock_seconds() - t->started; }

size_t trainer_slot(const clm_trainer *t, int slot) { return (size_t)slot * t->task->batch_bytes(t); }

/* Floats [begin, end) of a flat buffer. */
static clm_tensor flat_part(clm_buffer *flat, size_t begin, size_t end) {
  return clm_tensor_of(flat, begin * sizeof(float), CLM_F32, 1, (int64_t[]){(int64_t)(end - begin)});
}

static clm_tensor flat_all(const clm_trainer *t, clm_buffer *flat) {
  return flat_part(flat, 0, t->model->layout.total);
}

clm_status trainer_new(clm_model *model, const train_task *task, size_t state_bytes, clm_trainer **trainer) {
  void *state = calloc(1, state_bytes);
  *trainer = state ? calloc(1, sizeof **trainer) : NULL;
  if (!*trainer) free(state);
  if (!*trainer) return context_fail(model->context, CLM_OUT_OF_MEMORY, "training: out of host memory");
  **trainer = (clm_trainer){.task = task,
                            .model = model,
                            .context = model->context,
                            .task_state = state,
                            .started = clock_seconds(),
                            .loss_weight = 1,
                            .scaling = {.scale = 1, .last = 1},
                            .quality = (double)NAN};
  return CLM_OK;
}

clm_status trainer_prepare(clm_trainer *t) {
  clm_context *ctx = t->context;
  size_t queue = trainer_slot(t, TRAIN_QUEUE), flat = t->model->layout.total * sizeof(float);
  t->host_queue = malloc(queue);
  if (!t->host_queue) return context_fail(ctx, CLM_OUT_OF_MEMORY, "training: out of host memory");
  TRY(model_need_gradients(t->model));
  TRY(clm_model_set_activations(t->model, t->options.activations));
  if (t->options.activations == CLM_F16) t->scaling.scale = FIRST_SCALE;
  TRY(clm_buffer_create(ctx, flat, &t->m));
  TRY(clm_buffer_create(ctx, flat, &t->v));
  if (t->options.accumulate > 1) TRY(clm_buffer_create(ctx, flat, &t->accumulated));
  TRY(clm_buffer_create(ctx, queue, &t->queue));
  TRY(clm_buffer_create(ctx, (TRAIN_QUEUE + 1) * sizeof(float), &t->scalars));
  TRY(clm_axpby(ctx, &(clm_axpby_args){.out = flat_all(t, t->m)}));
  return clm_axpby(ctx, &(clm_axpby_args){.out = flat_all(t, t->v)});
}

clm_status trainer_made(clm_status status, clm_trainer **trainer) {
  if (status) clm_trainer_destroy(trainer);
  return status;
}

void clm_trainer_destroy(clm_trainer **trainer) {
  if (!trainer || !*trainer) return;
  clm_trainer *t = *trainer;
  clm_buffer_destroy(&t->m);
  clm_buffer_destroy(&t->v);
  clm_buffer_destroy(&t->accumulated);
  clm_buffer_destroy(&t->queue);
  clm_buffer_destroy(&t->scalars);
  t->task->destroy(t);
  free(t->task_state);
  free(t->host_queue);
  free(t);
  *trainer = NULL;
}

/* The end of a timed run is validation: what it will take is kept free. */
static double reserved_seconds(const clm_trainer *t, double elapsed) {
  double expected = t->validation_seconds;
  if (expected == 0 && t->tokens > 0) /* forward alone is about a third of a step */
    expected = 0.5 * (double)t->validation_tokens * elapsed / (double)t->tokens;
  return fmin(1.1 * expected, 30 * t->options.minutes);
}

double trainer_fraction(const clm_trainer *t) {
  if (t->options.steps > 0) return fmin((double)t->step / (double)t->options.steps, 1);
  double elapsed = trainer_seconds(t);
  return fmin(elapsed / (60 * t->options.minutes - reserved_seconds(t, elapsed)), 1);
}

/* Adds up the losses of the batches that have been run since the last time. */
static clm_status fetch_losses(clm_trainer *t) {
  float sums[TRAIN_QUEUE];
  if (t->summed == t->used) return CLM_OK;
  TRY(clm_buffer_read(t->scalars, 0, sizeof sums, sums));
  for (; t->summed < t->used; t->summed++) {
    t->loss_sum += (double)sums[t->summed] * t->loss_weight;
    t->loss_count++;
  }
  return CLM_OK;
}

/* Cuts the next batches and uploads them. */
static clm_status fill_queue(clm_trainer *t) {
  TRY(fetch_losses(t));
  data_position position = t->positions[t->used];
  for (int i = 0; i < TRAIN_QUEUE; i++) {
    t->positions[i] = position;
    t->task->next(t, &position, i, t->host_queue + trainer_slot(t, i));
  }
  t->positions[TRAIN_QUEUE] = position;
  t->queued = TRAIN_QUEUE;
  t->used = t->summed = 0;
  return clm_buffer_write(t->queue, 0, trainer_slot(t, TRAIN_QUEUE), t->host_queue);
}

clm_status trainer_check(const clm_trainer *t, const char *call) {
  if (!t->unfinished) return CLM_OK;
  return context_fail(t->context, CLM_INVALID_ARGUMENT,
                      "%s: a call before failed with the parameters changed in part: resume from a checkpoint", call);
}

/* Gradients and loss of one batch of the queue. */
static clm_status run_batch(clm_trainer *t, int64_t number) {
  if (t->used == t->queued) TRY(fill_queue(t));
  rng r = rng_seed(t->options.seed + 1, (uint64_t)number);
  int slot = t->used++;
  t->tokens += t->slot_tokens[slot];
  return t->task->run(t, slot, rng_next(&r), flat_part(t->scalars, (size_t)slot, (size_t)slot + 1));
}

/* One call for the parameters with weight decay, one for the others. */
static clm_status update(clm_trainer *t, clm_buffer *gradients) {
  const weights_layout *l = &t->model->layout;
  clm_tensor squares = flat_part(t->scalars, TRAIN_QUEUE, TRAIN_QUEUE + 1);
  TRY(clm_sum_squares(t->context, &(clm_sum_squares_args){.x = flat_all(t, gradients), .out = squares}));
  const size_t ends[] = {0, l->decayed, l->total};
  for (int part = 0; part < 2; part++) {
    if (ends[part] == ends[part + 1]) continue;
    double decay = part == 0 && t->options.weight_decay > 0 ? t->options.weight_decay : 0;
    clm_adamw_args args = {.parameter = flat_part(t->model->parameters, ends[part], ends[part + 1]),
                           .gradient = flat_part(gradients, ends[part], ends[part + 1]),
                           .m = flat_part(t->m, ends[part], ends[part + 1]),
                           .v = flat_part(t->v, ends[part], ends[part + 1]),
                           .sum_squares = squares,
                           .lr = (float)t->lr,
                           .beta1 = (float)t->options.beta1,
                           .beta2 = (float)t->options.beta2,
                           .epsilon = ADAM_EPSILON,
                           .weight_decay = (float)decay,
                           .gradient_scale = 1 / ((float)t->options.accumulate * (float)t->scaling.scale),
                           .max_norm = t->options.clip > 0 ? (float)t->options.clip : 0,
                           .step = t->step + 1 - t->scaling.skipped};
    TRY(clm_adamw(t->context, &args));
    t->unfinished = true;
  }
  t->unfinished = false;
  return CLM_OK;
}

/* The gradient's sum of squares of the last step. */
static clm_status read_squares(const clm_trainer *t, float *squares) {
  return clm_buffer_read(t->scalars, TRAIN_QUEUE * sizeof *squares, sizeof *squares, squares);
}

/* After a step in f16: an overflow shows in the sum of squares, without which clm_adamw writes nothing. */
static clm_status adapt_scale(clm_trainer *t) {
  loss_scaling *s = &t->scaling;
  float squares;
  s->last = s->scale;
  if (t->options.activations != CLM_F16) return CLM_OK;
  t->unfinished = true;
  TRY(read_squares(t, &squares));
  t->unfinished = false;
  if (!isfinite(squares)) {
    s->scale = fmax(s->scale / 2, 1);
    s->good = 0;
    s->skipped++;
  } else if (++s->good == GROW_AFTER) {
    s->scale = fmin(s->scale * 2, MAX_SCALE);
    s->good = 0;
  }
  return CLM_OK;
}

static clm_status step(clm_trainer *t) {
  clm_buffer *gradients = t->model->gradients;
  for (int64_t i = 0; i < t->options.accumulate; i++) {
    TRY(run_batch(t, t->step * t->options.accumulate + i));
    if (!t->accumulated) continue;
    TRY(clm_axpby(t->context, &(clm_axpby_args){.x = flat_all(t, gradients),
                                                .out = flat_all(t, t->accumulated),
                                                .alpha = 1,
                                                .beta = i > 0 ? 1.0f : 0.0f}));
  }
  /* Steps count from their end, so that the first one is not taken with learning rate 0. */
  double fraction = trainer_fraction(t);
  if (t->options.steps > 0) fraction = (double)(t->step + 1) / (double)t->options.steps;
  t->lr = schedule_lr(&t->options, fraction);
  TRY(update(t, t->accumulated ? t->accumulated : gradients));
  t->step++;
  return adapt_scale(t);
}

/* Whether the queue holds all batches of the next step. */
static bool holds_step(const clm_trainer *t) { return t->queued - t->used >= t->options.accumulate; }

/* Takes back what a step that failed has counted; where it had filled the queue anew, its batches are cut again. */
static void take_back(clm_trainer *t, const clm_trainer *before) {
  if (holds_step(before)) {
    t->used = before->used;
  } else {
    t->positions[0] = before->positions[before->used];
    t->queued = t->used = t->summed = 0;
  }
  t->tokens = before->tokens;
  t->loss_sum = before->loss_sum;
  t->loss_count = before->loss_count;
  t->lr = before->lr;
}

clm_status clm_trainer_step(clm_trainer *t) {
  if (!t) return CLM_INVALID_ARGUMENT;
  TRY(trainer_check(t, "trainer_step"));
  /* Losses of the steps before: those of this one may have to be taken back. */
  if (!holds_step(t)) TRY(fetch_losses(t));
  const clm_trainer before = *t;
  clm_status status = step(t);
  if (status && !t->unfinished) take_back(t, &before);
  return status;
}

clm_status clm_trainer_status(clm_trainer *t, clm_train_status *status) {
  TRY(HANDLE_NEED(t, "trainer_status", status));
  TRY(trainer_check(t, "trainer_status"));
  float squares = 0;
  TRY(fetch_losses(t));
  TRY(clm_context_finish(t->context));
  if (t->step > 0) TRY(read_squares(t, &squares));
  double fraction = trainer_fraction(t);
  *status = (clm_train_status){.step = t->step,
                               .tokens = t->tokens,
                               .seconds = trainer_seconds(t),
                               .fraction = fraction,
                               .lr = t->lr,
                               .loss = t->loss_count ? t->loss_sum / (double)t->loss_count : (double)NAN,
                               .norm = sqrt((double)squares) / (double)t->options.accumulate / t->scaling.last,
                               .finished = fraction >= 1,
                               .quality = t->quality,
                               .skipped = t->scaling.skipped,
                               .loss_scale = t->scaling.scale};
  t->loss_sum = 0;
  t->loss_count = 0;
  return CLM_OK;
}

clm_status clm_trainer_validate(clm_trainer *t, double *loss) {
  TRY(HANDLE_NEED(t, "trainer_validate", loss));
  double begin = clock_seconds();
  TRY(trainer_check(t, "trainer_validate"));
  TRY(fetch_losses(t));
  TRY(t->task->validate(t, loss));
  t->validation_seconds = clock_seconds() - begin;
  return CLM_OK;
}
