#include "train/frames.h"
#include "core/context.h"
#include "core/try.h"
#include <stdlib.h>
#include <xxhash.h>

static int64_t least_set(int64_t a, int64_t b) { return !a ? b : !b ? a : a < b ? a : b; }

/* Pieces of up to `max_frames` frames each (0: any number), outputs at every frame. */
static clm_status cut(clm_backbone *b, frames_data *d, int64_t max_frames) {
  int64_t pieces = 0;
  for (int64_t i = 0; i < d->count; i++) pieces += max_frames ? (d->list[i].length - 1) / max_frames + 1 : 1;
  if (pieces == d->count) return CLM_OK;
  backbone_sequence *list = malloc((size_t)pieces * sizeof *list), *piece = list;
  if (!list) return context_fail(b->context, CLM_OUT_OF_MEMORY, "training: out of host memory");
  for (int64_t i = 0; i < d->count; i++)
    for (int64_t at = 0; at < d->list[i].length; at += max_frames, piece++) {
      int64_t left = d->list[i].length - at;
      *piece =
          (backbone_sequence){d->list[i].begin + at, left < max_frames ? left : max_frames, d->list[i].target + at};
    }
  free(d->list);
  d->list = list;
  d->count = pieces;
  return CLM_OK;
}

/* The last `window` frames of each (0: all of them), one output. */
static void crop(frames_data *d, int64_t window) {
  for (int64_t i = 0; window && i < d->count; i++) {
    backbone_sequence *s = &d->list[i];
    if (s->length <= window) continue;
    s->begin += s->length - window;
    s->length = window;
  }
}

static clm_status fill(clm_backbone *b, int64_t length, frames_data *d) {
  bool every = b->config.output == CLM_OUTPUT_EVERY;
  TRY(backbone_sequences(b, "training", &d->sequences, &d->list));
  if (every) TRY(cut(b, d, least_set(length, b->config.window)));
  else crop(d, b->config.window);
  for (int64_t i = 0; i < d->count; i++) {
    if (d->list[i].length > d->longest) d->longest = d->list[i].length;
    d->frames += d->list[i].length;
  }
  if (!every && length && length < d->longest)
    return context_fail(
        b->context, CLM_INVALID_ARGUMENT,
        "training: length is %lld, but a sequence has %lld frames and one output at its end: give the "
        "backbone a window instead",
        (long long)length, (long long)d->longest);
  d->training = d->count / 10 * 9 + d->count % 10 * 9 / 10;
  if (d->training < 1)
    return context_fail(b->context, CLM_INVALID_ARGUMENT,
                        "training: there is one sequence only, at least 2 are needed, since the last tenth is for "
                        "validation%s",
                        every ? " (a length cuts one into several)" : "");
  d->order = malloc((size_t)d->training * sizeof *d->order);
  return d->order ? CLM_OK : context_fail(b->context, CLM_OUT_OF_MEMORY, "training: out of host memory");
}

clm_status frames_create(clm_backbone *b, const clm_sequences *sequences, int64_t length, uint64_t seed,
                         frames_data *d) {
  *d = (frames_data){.sequences = *sequences, .count = sequences->count, .seed = seed, .made_epoch = -1};
  clm_status status = fill(b, length, d);
  if (status) frames_destroy(d);
  return status;
}

void frames_destroy(frames_data *d) {
  free(d->list);
  free(d->order);
  *d = (frames_data){0};
}

static void make_epoch(frames_data *d, int64_t epoch) {
  rng r = rng_seed(d->seed, (uint64_t)epoch);
  data_shuffle(&r, d->order, d->training);
  d->made_epoch = epoch;
}

const backbone_sequence *frames_next(frames_data *d, data_position *position) {
  if (position->index >= d->training) *position = (data_position){.epoch = position->epoch + 1};
  if (d->made_epoch != position->epoch) make_epoch(d, position->epoch);
  return &d->list[d->order[position->index++]];
}

uint64_t frames_hash(const frames_data *d, const clm_backbone *b) {
  bool every = b->config.output == CLM_OUTPUT_EVERY, numbers = b->config.task == CLM_TASK_REGRESSION;
  size_t width = (size_t)b->config.embed_dim, size = numbers ? (size_t)clm_backbone_output_size(b) : 1;
  uint64_t hash = 0;
  for (int64_t i = 0; i < d->count; i++) {
    const backbone_sequence *s = &d->list[i];
    size_t length = (size_t)s->length, targets = (every ? length : 1) * size, at = (size_t)s->target * size;
    const void *target = numbers ? (const void *)(d->sequences.targets + at) : d->sequences.classes + at;
    hash = XXH64(d->sequences.frames + (size_t)s->begin * width, length * width * sizeof(float), hash);
    hash = XXH64(target, targets * sizeof(float), hash);
  }
  return hash;
}
