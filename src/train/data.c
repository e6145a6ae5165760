#include "train/data.h"
#include "core/context.h"
#include <stdlib.h>
#include <string.h>

clm_status data_create(clm_context *ctx, const int32_t *ids, size_t count, int64_t length, uint64_t seed,
                       data_windows *data) {
  int64_t total = (int64_t)count, training = total / 10 * 9 + total % 10 * 9 / 10;
  *data = (data_windows){.count = total, .training = training, .length = length, .seed = seed, .made_epoch = -1};
  if (training < length + 1 || total - training < 2)
    return context_fail(
        ctx, CLM_INVALID_ARGUMENT,
        "the text is too short: %lld tokens, of which 9 in 10 must hold a window of %lld and the token "
        "after it, and the others at least 2",
        (long long)total, (long long)length);
  data->ids = malloc(count * sizeof *ids);
  data->order = malloc((size_t)(training / length) * sizeof *data->order);
  if (!data->ids || !data->order) {
    data_destroy(data);
    return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for a text of %zu tokens", count);
  }
  memcpy(data->ids, ids, count * sizeof *ids);
  return CLM_OK;
}

void data_destroy(data_windows *data) {
  free(data->ids);
  free(data->order);
  *data = (data_windows){0};
}

void data_shuffle(rng *r, int64_t *order, int64_t count) {
  for (int64_t i = 0; i < count; i++) { /* Fisher-Yates, inside out */
    int64_t j = (int64_t)rng_below(r, (uint64_t)i + 1);
    order[i] = order[j];
    order[j] = i;
  }
}

static void make_epoch(data_windows *d, int64_t epoch) {
  rng r = rng_seed(d->seed, (uint64_t)epoch);
  int64_t last_start = d->training - d->length - 1;
  d->offset = (int64_t)rng_below(&r, (uint64_t)(last_start + 1 < d->length ? last_start + 1 : d->length));
  d->windows = (d->training - 1 - d->offset) / d->length;
  data_shuffle(&r, d->order, d->windows);
  d->made_epoch = epoch;
}

void data_next(data_windows *d, data_position *position, int32_t *ids, int32_t *targets) {
  if (d->made_epoch != position->epoch) make_epoch(d, position->epoch);
  if (position->index >= d->windows) {
    *position = (data_position){.epoch = position->epoch + 1};
    make_epoch(d, position->epoch);
  }
  const int32_t *window = d->ids + d->offset + d->order[position->index++] * d->length;
  memcpy(ids, window, (size_t)d->length * sizeof *ids);
  memcpy(targets, window + 1, (size_t)d->length * sizeof *ids);
}

const int32_t *data_validation(const data_windows *d, size_t *count) {
  *count = (size_t)(d->count - d->training);
  return d->ids + d->training;
}
