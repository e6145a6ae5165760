/* Training a backbone on sequences of frames. A batch has the length of its longest sequence; the others are padded,
 * and what is padded does not count. */
#include "core/context.h"
#include "core/try.h"
#include "train/trainer.h"
#include <stdlib.h>
#include <string.h>

#define ALIGN 64

static bool is_every(const clm_trainer *t) { return t->backbone->config.output == CLM_OUTPUT_EVERY; }
static bool has_numbers(const clm_trainer *t) { return t->backbone->config.task == CLM_TASK_REGRESSION; }
static int64_t target_width(const clm_trainer *t) {
  return has_numbers(t) ? clm_backbone_output_size(t->backbone) : 1;
}

/* The parts of a batch in the queue, in 4-byte numbers: frames, rows of outputs, targets; room for the longest. */
typedef struct parts {
  size_t rows, targets, end;
} parts;

static parts parts_of(const clm_trainer *t) {
  size_t batch = (size_t)t->options.batch, longest = (size_t)t->frames.longest, each = is_every(t) ? longest : 1;
  const size_t unit = ALIGN / sizeof(float);
  parts p;
  p.rows = (batch * longest * (size_t)t->backbone->config.embed_dim + unit - 1) / unit * unit;
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
  else if (has_numbers(t)) memcpy(out, t->frames.sequences.targets + at, (size_t)width * sizeof(float));
  else memcpy(out, t->frames.sequences.classes + at, sizeof(int32_t));
}

static void next(clm_trainer *t, data_position *position, int slot, void *memory) {
  const parts p = parts_of(t);
  const int64_t batch = t->options.batch, width = t->backbone->config.embed_dim;
  frames_slot *f = &t->slots[slot];
  const backbone_sequence **s = t->slot_sequences;
  *f = (frames_slot){0};
  t->slot_tokens[slot] = 0;
  for (int64_t i = 0; i < batch; i++) {
    s[i] = frames_next(&t->frames, position);
    if (s[i]->length > f->length) f->length = s[i]->length;
    t->slot_tokens[slot] += s[i]->length;
    t->slot_lengths[i] = s[i]->length;
  }
  float *frames = memory;
  char *targets = (char *)memory + p.targets * sizeof(float);
  memset(frames, 0, p.rows * sizeof *frames);
  for (int64_t i = 0; i < batch; i++) {
    memcpy(frames + i * f->length * width, t->frames.sequences.frames + s[i]->begin * width,
           (size_t)(s[i]->length * width) * sizeof *frames);
    for (int64_t row = 0; row < (is_every(t) ? f->length : 1);
         row++, targets += (size_t)target_width(t) * sizeof(float))
      put_target(t, s[i], row, targets);
  }
  f->counted =
      backbone_rows(t->backbone->config.output, batch, f->length, t->slot_lengths, (int32_t *)memory + p.rows);
}

static clm_status run(clm_trainer *t, int slot, uint64_t seed, clm_tensor loss) {
  const parts p = parts_of(t);
  const frames_slot *f = &t->slots[slot];
  const size_t at = trainer_slot(t, slot);
  int64_t frames[] = {t->options.batch, f->length, t->backbone->config.embed_dim};
  int64_t targets[] = {t->options.batch * (is_every(t) ? f->length : 1), target_width(t)};
  backbone_batch batch = {
      .frames = clm_tensor_of(t->queue, at, CLM_F32, 3, frames),
      .targets = clm_tensor_of(t->queue, at + p.targets * sizeof(float), has_numbers(t) ? CLM_F32 : CLM_I32,
                               has_numbers(t) ? 2 : 1, targets),
      .loss = loss,
      .counted = f->counted,
      .gradient = true,
      .dropout = {(float)t->options.dropout, seed},
  };
  if (!is_every(t) || f->counted < targets[0])
    batch.rows = clm_tensor_of(t->queue, at + p.rows * sizeof(float), CLM_I32, 1, targets);
  return backbone_loss(t->backbone, &batch);
}

static clm_status validate(clm_trainer *t, double *loss) {
  const frames_data *d = &t->frames;
  clm_backbone_score score;
  TRY(backbone_evaluate(t->backbone, &d->sequences, d->list + d->training, d->count - d->training, &score));
  *loss = score.loss;
  t->quality = score.quality;
  return CLM_OK;
}

static clm_status save(clm_trainer *t, const char *directory) { return clm_backbone_save(t->backbone, directory); }
static uint64_t hash(const clm_trainer *t) { return frames_hash(&t->frames, t->backbone); }

static void destroy(clm_trainer *t) {
  frames_destroy(&t->frames);
  free(t->slot_sequences);
  free(t->slot_lengths);
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
  t->options = *options;
  TRY(frames_create(t->backbone, sequences, options->length, options->seed, &t->frames));
  t->options.length = t->frames.longest;
  if (t->options.dropout == 0) t->options.dropout = (double)t->backbone->config.dropout;
  TRY(train_options_complete(t->context, &t->options));
  for (int64_t i = t->frames.training; i < t->frames.count; i++) t->validation_tokens += t->frames.list[i].length;
  t->slot_sequences = calloc((size_t)t->options.batch, sizeof(backbone_sequence *));
  t->slot_lengths = calloc((size_t)t->options.batch, sizeof *t->slot_lengths);
  if (!t->slot_sequences || !t->slot_lengths)
    return context_fail(t->context, CLM_OUT_OF_MEMORY, "training: out of host memory");
  return trainer_prepare(t);
}

clm_status clm_trainer_create_backbone(clm_backbone *backbone, const clm_sequences *sequences,
                                       const clm_train_options *options, clm_trainer **trainer) {
  if (trainer) *trainer = NULL;
  TRY(HANDLE_NEED(backbone, "trainer_create", sequences, options, trainer));
  TRY(trainer_new(backbone->model, &frames_task, trainer));
  (*trainer)->backbone = backbone;
  return trainer_made(prepare(*trainer, sequences, options), trainer);
}
