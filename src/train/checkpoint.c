/* trainer.safetensors: parameters, moments and, as JSON in its metadata, everything else of a run. One file, so that
 * it is of one moment even if the program is killed between two renames. */
#include "core/context.h"
#include "core/file.h"
#include "core/json.h"
#include "core/json_print.h"
#include "core/try.h"
#include "files/safetensors.h"
#include "train/trainer.h"
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_NAME    "trainer.safetensors"
#define METADATA_KEY "trainer"

static const struct {
  const char *key;
  size_t member;
  bool whole, optional; /* optional: absent from the files of earlier versions, then 0 */
} option_keys[] = {
#define WHOLE(member)                                                                                                \
  { #member, offsetof(clm_train_options, member), true, false }
#define REAL(member)                                                                                                 \
  { #member, offsetof(clm_train_options, member), false, false }
    WHOLE(batch), WHOLE(length), WHOLE(accumulate),
    WHOLE(steps), WHOLE(seed),   REAL(minutes),
    REAL(lr),     REAL(lr_end),  REAL(warmup),
    REAL(beta1),  REAL(beta2),   REAL(weight_decay),
    REAL(clip),   REAL(dropout), {"validation_tokens", offsetof(clm_train_options, validation_tokens), true, true},
};

static const struct {
  const char *key;
  size_t member;
} counter_keys[] = {{"step", offsetof(clm_trainer, step)},
                    {"tokens", offsetof(clm_trainer, tokens)},
                    {"skipped", offsetof(clm_trainer, scaling.skipped)},
                    {"steps_at_scale", offsetof(clm_trainer, scaling.good)}};

/* Absent from the files of earlier versions, whose activations were f32. */
#define ACTIVATIONS_KEY "activations"
#define SCALE_KEY       "loss_scale"
static const clm_dtype activation_dtypes[] = {CLM_F32, CLM_BF16, CLM_F16};

/* The flat buffers of a checkpoint. */
#define FLAT_BUFFERS 3
static const char *const flat_names[FLAT_BUFFERS] = {"parameters", "m", "v"};
static clm_buffer *flat_buffer(const clm_trainer *t, int i) {
  return i == 0 ? t->model->parameters : i == 1 ? t->m : t->v;
}

static void data_hash(const clm_trainer *t, char hash[17]) {
  snprintf(hash, 17, "%016llx", (unsigned long long)t->task->hash(t));
}

static char *describe(const clm_trainer *t) {
  json_t *json = json_object(), *options = json_object();
  int failed = json_object_set_new(json, "options", options);
  for (size_t i = 0; i < sizeof option_keys / sizeof *option_keys; i++) {
    const char *member = (const char *)&t->options + option_keys[i].member;
    json_t *value = option_keys[i].whole ? json_integer(*(const int64_t *)(const void *)member)
                                         : json_real(*(const double *)(const void *)member);
    failed |= json_object_set_new(options, option_keys[i].key, value);
  }
  failed |= json_object_set_new(options, ACTIVATIONS_KEY, json_string(clm_dtype_name(t->options.activations)));
  failed |= json_object_set_new(json, SCALE_KEY, json_real(t->scaling.scale));
  for (size_t i = 0; i < sizeof counter_keys / sizeof *counter_keys; i++) {
    const char *member = (const char *)t + counter_keys[i].member;
    failed |= json_object_set_new(json, counter_keys[i].key, json_integer(*(const int64_t *)(const void *)member));
  }
  char hash[17];
  data_hash(t, hash);
  const data_position *position = &t->positions[t->used];
  failed |= json_object_set_new(json, "epoch", json_integer(position->epoch));
  failed |= json_object_set_new(json, "window", json_integer(position->index));
  failed |= json_object_set_new(json, "seconds", json_real(trainer_seconds(t)));
  failed |= json_object_set_new(json, "text", json_string(hash));
  char *text = failed ? NULL : json_print(json, JSON_COMPACT);
  json_decref(json);
  return text;
}

static clm_status write_state(clm_trainer *t, const char *path, const char *description) {
  if (!path || !description) return context_fail(t->context, CLM_OUT_OF_MEMORY, "out of host memory");
  const size_t total = t->model->layout.total;
  safetensor tensors[FLAT_BUFFERS];
  for (int i = 0; i < FLAT_BUFFERS; i++)
    tensors[i] = (safetensor){.name = flat_names[i],
                              .dtype = "F32",
                              .rank = 1,
                              .shape = {(int64_t)total},
                              .buffer = flat_buffer(t, i),
                              .bytes = total * sizeof(float)};
  return safetensors_write(t->context, path, tensors, FLAT_BUFFERS,
                           (safetensors_text[]){{METADATA_KEY, description}, {NULL, NULL}});
}

clm_status clm_trainer_save(clm_trainer *t, const char *directory) {
  TRY(HANDLE_NEED(t, "trainer_save", directory));
  TRY(trainer_check(t, "trainer_save"));
  TRY(t->task->save(t, directory));
  return clm_trainer_save_state(t, directory);
}

clm_status clm_trainer_save_state(clm_trainer *t, const char *directory) {
  TRY(HANDLE_NEED(t, "trainer_save_state", directory));
  char *path = file_path(directory, FILE_NAME), *description = describe(t);
  clm_status status = write_state(t, path, description);
  free(description);
  free(path);
  return status;
}

/* An opened checkpoint and its description. */
typedef struct checkpoint {
  source file;
  json_t *json;
} checkpoint;

static void checkpoint_close(checkpoint *c) {
  json_decref(c->json);
  source_close(&c->file);
}

static clm_status checkpoint_open(clm_context *ctx, const char *directory, checkpoint *c) {
  *c = (checkpoint){0};
  char *path = file_path(directory, FILE_NAME);
  if (!path) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory");
  clm_status status = safetensors_open(ctx, path, &c->file);
  free(path);
  if (status) return status;
  const char *text = safetensors_metadata(&c->file, METADATA_KEY);
  json_error_t error;
  c->json = text ? json_parse(text, strlen(text), JSON_EXACT, &error) : NULL;
  if (json_is_object(c->json)) return CLM_OK;
  status = context_fail(ctx, CLM_BAD_FORMAT, "%s does not describe a training run", c->file.path);
  checkpoint_close(c);
  return status;
}

static clm_status read_activations(clm_context *ctx, const checkpoint *c, const json_t *options, clm_dtype *dtype) {
  const char *name = json_string_value(json_object_get(options, ACTIVATIONS_KEY));
  *dtype = CLM_F32;
  if (!json_object_get(options, ACTIVATIONS_KEY)) return CLM_OK;
  for (size_t i = 0; name && i < sizeof activation_dtypes / sizeof *activation_dtypes; i++)
    if (strcmp(name, clm_dtype_name(activation_dtypes[i])) == 0) return *dtype = activation_dtypes[i], CLM_OK;
  return context_fail(ctx, CLM_BAD_FORMAT, "%s: the option \"%s\" is not f32, bf16 or f16", c->file.path,
                      ACTIVATIONS_KEY);
}

static clm_status read_options(clm_context *ctx, const checkpoint *c, clm_train_options *o) {
  const json_t *options = json_object_get(c->json, "options");
  *o = (clm_train_options){0};
  for (size_t i = 0; i < sizeof option_keys / sizeof *option_keys; i++) {
    const json_t *value = json_object_get(options, option_keys[i].key);
    void *member = (char *)o + option_keys[i].member;
    if (!value && option_keys[i].optional) continue;
    if (!json_is_number(value))
      return context_fail(ctx, CLM_BAD_FORMAT, "%s lacks the option \"%s\"", c->file.path, option_keys[i].key);
    if (option_keys[i].whole) *(int64_t *)member = json_integer_value(value);
    else *(double *)member = json_number_value(value);
  }
  return read_activations(ctx, c, options, &o->activations);
}

clm_status clm_trainer_saved_options(clm_context *ctx, const char *directory, clm_train_options *options) {
  TRY(CONTEXT_NEED(ctx, "trainer_saved_options", directory, options));
  checkpoint c;
  TRY(checkpoint_open(ctx, directory, &c));
  clm_status status = read_options(ctx, &c, options);
  checkpoint_close(&c);
  return status;
}

static clm_status check_counters(clm_trainer *t, const checkpoint *c, data_position *position, double *seconds) {
  char hash[17];
  data_hash(t, hash);
  const char *saved = json_string_value(json_object_get(c->json, "text"));
  if (!saved || strcmp(saved, hash) != 0)
    return context_fail(t->context, CLM_INVALID_ARGUMENT, "the %s is not the one that the run of %s was trained on",
                        t->task->data, c->file.path);
  *position = (data_position){.epoch = json_integer_value(json_object_get(c->json, "epoch")),
                              .index = json_integer_value(json_object_get(c->json, "window"))};
  *seconds = json_number_value(json_object_get(c->json, "seconds"));
  bool good = position->epoch >= 0 && position->index >= 0 && *seconds >= 0;
  for (size_t i = 0; i < sizeof counter_keys / sizeof *counter_keys; i++)
    good = good && json_integer_value(json_object_get(c->json, counter_keys[i].key)) >= 0;
  return good ? CLM_OK : context_fail(t->context, CLM_BAD_FORMAT, "%s has a negative position", c->file.path);
}

static clm_status restore(clm_trainer *t, const checkpoint *c, float *flat) {
  const size_t bytes = t->model->layout.total * sizeof *flat;
  const source_tensor *tensors[FLAT_BUFFERS];
  data_position position;
  double seconds = 0;
  const double scale = json_number_value(json_object_get(c->json, SCALE_KEY));
  if (!flat) return context_fail(t->context, CLM_OUT_OF_MEMORY, "out of host memory");
  TRY(check_counters(t, c, &position, &seconds));
  for (int i = 0; i < FLAT_BUFFERS; i++) {
    tensors[i] = source_find(&c->file, flat_names[i]);
    if (!tensors[i] || tensors[i]->dtype != SOURCE_F32 || tensors[i]->bytes != bytes)
      return context_fail(t->context, CLM_BAD_FORMAT,
                          "%s does not fit the model: \"%s\" is absent or of another size", c->file.path,
                          flat_names[i]);
  }
  t->unfinished = true;
  for (int i = 0; i < FLAT_BUFFERS; i++) {
    TRY(source_read(t->context, tensors[i], 0, bytes, flat));
    TRY(clm_buffer_write(flat_buffer(t, i), 0, bytes, flat));
  }
  for (size_t i = 0; i < sizeof counter_keys / sizeof *counter_keys; i++)
    *(int64_t *)(void *)((char *)t + counter_keys[i].member) =
        json_integer_value(json_object_get(c->json, counter_keys[i].key));
  if (t->options.activations == CLM_F16 && scale > 0) t->scaling.scale = scale;
  t->positions[0] = position;
  t->queued = t->used = t->summed = 0;
  t->unfinished = false;
  t->seconds_before = seconds;
  return CLM_OK;
}

clm_status clm_trainer_resume(clm_trainer *t, const char *directory) {
  TRY(HANDLE_NEED(t, "trainer_resume", directory));
  checkpoint c;
  TRY(checkpoint_open(t->context, directory, &c));
  float *flat = malloc(t->model->layout.total * sizeof *flat);
  clm_status status = restore(t, &c, flat);
  free(flat);
  checkpoint_close(&c);
  return status;
}
