/* Training a backbone on sequences of frames. A batch has the length of its longest sequence; the others are padded,
 * and what is padded does not count. */
#include "core/context.h"
#include "core/try.h"
#include "train/frames.h"
#include "train/trainer.h"
#include <stdlib.h>
#include <string.h>

#define ALIGN 64

/* What the host knows of a batch. */
typedef struct frames_slot {
  int64_t length, counted; /* of its longest sequence; outputs that count */
} frames_slot;

typedef struct frames_state {
  clm_backbone *backbone;
  frames_data data;
  int64_t validation; /* sequences of the data to validate on, after those to train on */
  frames_slot slots[TRAIN_QUEUE];
  const backbone_sequence **sequences; /* of the batch that is being cut */
  int64_t *lengths;
} frames_state;

static frames_state *state_of(const clm_trainer *t) { return t->task_state; }

static bool is_every(const clm_trainer *t) { return state_of(t)->backbone->config.output == CLM_OUTPUT_EVERY; }
static bool has_numbers(const clm_trainer *t) { return state_of(t)->backbone->config.task == CLM_TASK_REGRESSION; }
static int64_t target_width(const clm_trainer *t) {
  return has_numbers(t) ? clm_backbone_output_size(state_of(t)->backbone) : 1;
}

/* The parts of a batch in the queue, in 4-byte numbers: frames, rows of outputs, targets; room for the longest. */
typedef struct parts {
  size_t rows, targets, end;
} parts;

static parts parts_of(const clm_trainer *t) {
  size_t batch = (size_t)t->options.batch, longest = (size_t)state_of(t)->data.longest,
         each = is_every(t) ? longest : 1;
  const size_t unit = ALIGN / sizeof(float);
  parts p;
  p.rows = (batch * longest * (size_t)state_of(t)->backbone->config.embed_dim + unit - 1) / unit * unit;
  p.targets = p.rows + (batch * each + unit - 1) / unit * unit;
  p.end = p.targets + (batch * each * (size_t)target_width(t) + unit - 1) / unit * unit;
  return p;
}

static size_t batch_bytes(const clm_trainer *t) { return parts_of(t).end * sizeof(float); }

/* Targets of row `row` of the sequence; past its end 0, and no class. */
static void put_target(const clm_trainer *t, const backbone_sequence *s, int64_t row, void *out) {
  int64_t width = target_width(t), at = (s->target + row) * width;
  bool inside = !is_every(t) || row < s->length;
  if (!inside) memset(out, has_numbers(t) ? 0 : 0xff, (size_t)width * sizeof(float));
  else if (has_numbers(t)) memcpy(out, state_of(t)->data.sequences.targets + at, (size_t)width * sizeof(float));
  else memcpy(out, state_of(t)->data.sequences.classes + at, sizeof(int32_t));
}

static void next(clm_trainer *t, data_position *position, int slot, void *memory) {
  const parts p = parts_of(t);
  frames_state *state = state_of(t);
  const int64_t batch = t->options.batch, width = state->backbone->config.embed_dim;
  frames_slot *f = &state->slots[slot];
  const backbone_sequence **s = state->sequences;
  *f = (frames_slot){0};
  t->slot_tokens[slot] = 0;
  for (int64_t i = 0; i < batch; i++) {
    s[i] = frames_next(&state->data, position);
    if (s[i]->length > f->length) f->length = s[i]->length;
    t->slot_tokens[slot] += s[i]->length;
    state->lengths[i] = s[i]->length;
  }
  float *frames = memory;
  char *targets = (char *)memory + p.targets * sizeof(float);
  memset(frames, 0, p.rows * sizeof *frames);
  for (int64_t i = 0; i < batch; i++) {
    memcpy(frames + i * f->length * width, state->data.sequences.frames + s[i]->begin * width,
           (size_t)(s[i]->length * width) * sizeof *frames);
    for (int64_t row = 0; row < (is_every(t) ? f->length : 1);
         row++, targets += (size_t)target_width(t) * sizeof(float))
      put_target(t, s[i], row, targets);
  }
  f->counted =
      backbone_rows(state->backbone->config.output, batch, f->length, state->lengths, (int32_t *)memory + p.rows);
}

static clm_status run(clm_trainer *t, int slot, uint64_t seed, clm_tensor loss) {
  const parts p = parts_of(t);
  const frames_slot *f = &state_of(t)->slots[slot];
  const size_t at = trainer_slot(t, slot);
  int64_t frames[] = {t->options.batch, f->length, state_of(t)->backbone->config.embed_dim};
  int64_t targets[] = {t->options.batch * (is_every(t) ? f->length : 1), target_width(t)};
  backbone_batch batch = {
      .frames = clm_tensor_of(t->queue, at, CLM_F32, 3, frames),
      .targets = clm_tensor_of(t->queue, at + p.targets * sizeof(float), has_numbers(t) ? CLM_F32 : CLM_I32,
                               has_numbers(t) ? 2 : 1, targets),
      .loss = loss,
      .counted = f->counted,
      .gradient = true,
      .dropout = {trainer_dropout(t), seed},
      .loss_scale = trainer_loss_scale(t),
  };
  if (!is_every(t) || f->counted < targets[0])
    batch.rows = clm_tensor_of(t->queue, at + p.rows * sizeof(float), CLM_I32, 1, targets);
  return backbone_loss(state_of(t)->backbone, &batch);
}

static clm_status validate(clm_trainer *t, double *loss) {
  const frames_data *d = &state_of(t)->data;
  clm_backbone_score score;
  TRY(backbone_evaluate(state_of(t)->backbone, &d->sequences, d->list + d->training, state_of(t)->validation,
                        &score));
  *loss = score.loss;
  t->quality = score.quality;
  return CLM_OK;
}

static clm_status save(clm_trainer *t, const char *directory) {
  return clm_backbone_save(state_of(t)->backbone, directory);
}
static uint64_t hash(const clm_trainer *t) { return frames_hash(&state_of(t)->data, state_of(t)->backbone); }

static void destroy(clm_trainer *t) {
  frames_destroy(&state_of(t)->data);
  free(state_of(t)->sequences);
  free(state_of(t)->lengths);
}

static const train_task frames_task = {.data = "data",
                                       .batch_bytes = batch_bytes,
                                       .next = next,
                                       .run = run,
                                       .validate = validate,
                                       .save = save,
                                       .hash = hash,
                                       .destroy = destroy};

static clm_status prepare(clm_trainer *t, const clm_sequences *sequences, const clm_train_options *options) {
  frames_state *f = state_of(t);
  t->options = *options;
  TRY(frames_create(f->backbone, sequences, options->length, options->seed, &f->data));
  t->options.length = f->data.longest;
  if (t->options.dropout == 0) t->options.dropout = (double)f->backbone->config.dropout;
  TRY(train_options_complete(t->context, &t->options));
  for (int64_t i = f->data.training; i < f->data.count; i++, f->validation++) {
    int64_t length = f->data.list[i].length, max = t->options.validation_tokens;
    if (max && f->validation && t->validation_tokens + length > max) break;
    t->validation_tokens += length;
  }
  f->sequences = calloc((size_t)t->options.batch, sizeof(backbone_sequence *));
  f->lengths = calloc((size_t)t->options.batch, sizeof *f->lengths);
  if (!f->sequences || !f->lengths)
    return context_fail(t->context, CLM_OUT_OF_MEMORY, "training: out of host memory");
  return trainer_prepare(t);
}

clm_status clm_trainer_create_backbone(clm_backbone *backbone, const clm_sequences *sequences,
                                       const clm_train_options *options, clm_trainer **trainer) {
  if (trainer) *trainer = NULL;
  TRY(HANDLE_NEED(backbone, "trainer_create", sequences, options, trainer));
  TRY(trainer_new(backbone->model, &frames_task, sizeof(frames_state), trainer));
  state_of(*trainer)->backbone = backbone;
  return trainer_made(prepare(*trainer, sequences, options), trainer);
}
