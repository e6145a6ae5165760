/* Training: the order of the windows, the schedule, and runs that stop and go on bit for bit. */
#include "cmocka_all.h"
#include "devices.h"
#include "train/trainer.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/clmamba-test-XXXXXX";

static void check(clm_context *context, clm_status status, const char *what) {
  if (status) fail_msg("%s: %s: %s", what, clm_status_string(status), clm_context_error(context));
}
#define CHECK(context, call) check(context, call, #call)

static void expect_message(clm_status got, clm_status want, const char *part) {
  const char *error = clm_context_error(test_reference);
  if (got != want || !strstr(error, part))
    fail_msg("got %s: \"%s\", expected %s and \"%s\"", clm_status_string(got), error, clm_status_string(want), part);
}

/* ---- Data ---- */

static const struct data_case {
  size_t count;
  int64_t length;
} data_cases[] = {{1000, 7}, {1003, 64}, {19, 16}, {73, 64}, {12345, 1}};

/* In each epoch every window comes once, windows do not overlap, and none reaches into the validation text. */
static void test_windows(const test_device *device, const void *data) {
  (void)device;
  const struct data_case *c = data;
  int32_t *numbers = malloc(c->count * sizeof *numbers), *ids = malloc((size_t)c->length * 2 * sizeof *ids);
  for (size_t i = 0; i < c->count; i++) numbers[i] = (int32_t)i;
  data_windows d;
  CHECK(test_reference, data_create(test_reference, numbers, c->count, c->length, 42, &d));
  assert_int_equal(d.training, (int64_t)c->count * 9 / 10);
  size_t validation;
  assert_int_equal(data_validation(&d, &validation)[0], d.training);
  assert_int_equal(validation, (c->count + 9) / 10);
  data_position position = {0};
  int64_t offsets = 0;
  for (int64_t epoch = 0; epoch < 4; epoch++) {
    char *seen = calloc(c->count, 1);
    int64_t windows = 0;
    do {
      data_next(&d, &position, ids, ids + c->length);
      assert_int_equal(position.epoch, epoch);
      for (int64_t i = 0; i < c->length; i++) {
        assert_int_equal(ids[i], ids[0] + i);
        assert_int_equal(ids[c->length + i], ids[i] + 1);
        assert_true(ids[i] + 1 < d.training);
        assert_int_equal(seen[ids[i]]++, 0);
      }
      windows++;
    } while (position.index < d.windows);
    assert_int_equal(windows, d.windows);
    assert_true(windows * c->length + 2 * c->length > d.training - 1); /* only the ends are left out */
    offsets += d.offset;
    free(seen);
  }
  if (c->length > 16) assert_true(offsets > 0 || d.training == c->length + 1); /* not always the same cut */
  data_destroy(&d);
  free(ids);
  free(numbers);
}

static void test_short_text(const test_device *device, const void *data) {
  (void)device, (void)data;
  int32_t ids[20] = {0};
  data_windows d;
  expect_message(data_create(test_reference, ids, 1, 1, 1, &d), CLM_INVALID_ARGUMENT, "too short");
  expect_message(data_create(test_reference, ids, 20, 18, 1, &d), CLM_INVALID_ARGUMENT, "too short");
  expect_message(data_create(test_reference, ids, 10, 4, 1, &d), CLM_INVALID_ARGUMENT,
                 "too short"); /* 1 to validate */
  CHECK(test_reference, data_create(test_reference, ids, 20, 17, 1, &d));
  data_destroy(&d);
}

/* ---- Options ---- */

static void test_schedule(const test_device *device, const void *data) {
  (void)device, (void)data;
  const clm_train_options o = {.lr = 2, .lr_end = 0.1, .warmup = 0.2};
  const double expected[][2] = {{0.1, 1}, {0.2, 2}, {0.6, 1.1}, {1, 0.2}, {2, 0.2}};
  for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
    assert_true(fabs(schedule_lr(&o, expected[i][0]) - expected[i][1]) < 1e-12);
  for (double f = 0.2; f < 1; f += 0.01) assert_true(schedule_lr(&o, f) > schedule_lr(&o, f + 0.01));
}

static void test_bad_options(const test_device *device, const void *data) {
  (void)device, (void)data;
  static const clm_train_options bad[] = {
      {.steps = 0},
      {.steps = 5, .minutes = 1},
      {.steps = -5},
      {.steps = 5, .batch = -1},
      {.steps = 5, .lr = -1},
      {.steps = 5, .dropout = 1},
      {.steps = 5, .warmup = 2},
      {.steps = 5, .beta2 = 1},
      {.minutes = (double)NAN},
      {.steps = 5, .batch = 1 << 20, .length = 1 << 20},
      {.steps = 5, .activations = CLM_I8},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    clm_train_options o = bad[i];
    expect_message(train_options_complete(test_reference, &o), CLM_INVALID_ARGUMENT, "training: ");
  }
}

static void test_presets(const test_device *device, const void *data) {
  (void)device, (void)data;
  size_t count;
  const clm_train_preset *presets = clm_train_presets(&count);
  assert_string_equal(presets[0].name, "char-small");
  for (size_t i = 0; i < count; i++) {
    clm_train_options o = presets[i].train;
    o.steps = 1;
    CHECK(test_reference, train_options_complete(test_reference, &o));
  }
}

/* ---- Runs ---- */

#define TEXT_TOKENS 600
static void make_text(int32_t ids[TEXT_TOKENS]) {
  uint32_t x = 1;
  for (int i = 0; i < TEXT_TOKENS; i++) { /* a count that stumbles now and then */
    x = x * 1664525u + 1013904223u;
    ids[i] = (int32_t)((i + (x >> 30 == 0)) % 11);
  }
}

typedef struct training {
  clm_model *model;
  clm_trainer *trainer;
} training;

static training begin(clm_context *context, const clm_train_options *options) {
  training t;
  int32_t ids[TEXT_TOKENS];
  make_text(ids);
  const clm_model_config config = {.vocab_size = 11, .d_model = 12, .n_layer = 2, .d_state = 4};
  CHECK(context, clm_model_create(context, &config, 3, &t.model));
  CHECK(context, clm_trainer_create(t.model, ids, TEXT_TOKENS, options, &t.trainer));
  return t;
}

static void end(training *t) {
  clm_trainer_destroy(&t->trainer);
  clm_model_destroy(&t->model);
}

static void steps(const training *t, int count) {
  for (int i = 0; i < count; i++) CHECK(t->model->context, clm_trainer_step(t->trainer));
}

static float *parameters(const training *t) {
  float *flat = malloc(t->model->layout.total * sizeof *flat);
  CHECK(t->model->context, clm_buffer_read(t->model->parameters, 0, t->model->layout.total * sizeof *flat, flat));
  return flat;
}

static clm_train_status status_of(const training *t) {
  clm_train_status s;
  CHECK(t->model->context, clm_trainer_status(t->trainer, &s));
  return s;
}

static const clm_train_options run_options = {
    .batch = 3, .length = 16, .accumulate = 2, .lr = 1e-2, .dropout = 0.1, .steps = 13, .seed = 8};

/* What the activations may be, and a scale of the loss that overflows for some steps of a run. */
typedef struct run_case {
  const char *name;
  clm_dtype activations;
  double first_scale; /* 0: the trainer's own */
} run_case;

static const run_case run_cases[] = {
    {"f32", CLM_F32, 0}, {"bf16", CLM_BF16, 0}, {"f16", CLM_F16, 0}, {"f16, overflowing", CLM_F16, 0x1p28}};

static training begin_case(clm_context *context, clm_train_options options, const run_case *c) {
  options.activations = c->activations;
  training t = begin(context, &options);
  if (c->first_scale > 0) t.trainer->scaling.scale = c->first_scale;
  return t;
}

/* 13 steps at once, and in three parts with everything made anew in between: the same bits, the same scale of the
 * loss. */
static void test_resume(const test_device *device, const void *data) {
  const run_case *c = data;
  clm_context *context = device->context;
  training whole = begin_case(context, run_options, c);
  steps(&whole, 13);
  float *want = parameters(&whole);
  clm_train_status all = status_of(&whole);
  assert_true(all.finished);
  assert_int_equal(all.tokens, 13 * 2 * 3 * 16);

  const int parts[] = {5, 1, 7};
  training t = {0};
  for (int i = 0; i < 3; i++) {
    clm_train_options options = run_options;
    if (i > 0) CHECK(context, clm_trainer_saved_options(context, folder, &options));
    if (i > 0) assert_memory_equal(&options, &t.trainer->options, sizeof options);
    end(&t);
    t = i > 0 ? begin(context, &options) : begin_case(context, options, c);
    if (i > 0) CHECK(context, clm_trainer_resume(t.trainer, folder));
    double validation;
    CHECK(context, clm_trainer_validate(t.trainer, &validation)); /* changes nothing */
    steps(&t, parts[i]);
    CHECK(context, clm_trainer_save(t.trainer, folder));
    if (i == 0) CHECK(context, clm_trainer_saved_options(context, folder, &t.trainer->options));
  }
  float *got = parameters(&t);
  assert_memory_equal(got, want, t.model->layout.total * sizeof *got);
  const clm_train_status last = status_of(&t);
  assert_int_equal(last.step, 13);
  assert_int_equal(last.skipped, all.skipped);
  assert_true(last.loss_scale == all.loss_scale);
  assert_true(c->activations == CLM_F16 ? last.loss_scale > 1 : last.loss_scale == 1 && !last.skipped);
  if (c->first_scale > 0)
    if (!(last.skipped > 2 && last.skipped < 13)) fail_msg("%d steps skipped", (int)last.skipped);
  free(got);
  free(want);
  end(&t);
  end(&whole);
}

/* Two batches of 3 in a step, or one batch of 6: the same gradient but for rounding. */
static void test_accumulate(const test_device *device, const void *data) {
  (void)data;
  clm_train_options options = run_options;
  options.dropout = 0;
  training two = begin(device->context, &options);
  options.batch = 6;
  options.accumulate = 1;
  training one = begin(device->context, &options);
  steps(&two, 1);
  steps(&one, 1);
  clm_train_status a = status_of(&two), b = status_of(&one);
  assert_true(fabs(a.loss - b.loss) < 1e-5);
  assert_true(fabs(a.norm - b.norm) < 1e-4 * b.norm);
  assert_true(b.norm > 0.01);
  end(&two);
  end(&one);
}

/* A text that can be learnt is learnt in any activations, to about the same loss; a step that overflows changes no
 * parameter. */
static void test_activations(const test_device *device, const void *data) {
  const run_case *c = data;
  const clm_train_options options = {.batch = 4, .length = 32, .lr = 2e-2, .steps = 60, .seed = 1};
  training f32 = begin_case(device->context, options, &run_cases[0]), t = begin_case(device->context, options, c);
  double want, got;
  if (c->first_scale > 0) {
    float *before = parameters(&t);
    steps(&t, 1);
    float *after = parameters(&t);
    assert_memory_equal(after, before, t.model->layout.total * sizeof *after);
    free(before);
    free(after);
    const clm_train_status s = status_of(&t);
    assert_int_equal(s.step, 1);
    assert_int_equal(s.skipped, 1);
    assert_true(s.loss_scale == c->first_scale / 2);
    assert_true(isfinite(s.loss) && !isfinite(s.norm));
    steps(&t, 59);
  } else steps(&t, 60);
  steps(&f32, 60);
  CHECK(device->context, clm_trainer_validate(f32.trainer, &want));
  CHECK(device->context, clm_trainer_validate(t.trainer, &got));
  const clm_train_status s = status_of(&t);
  if (!(fabs(got - want) < (c->first_scale > 0 ? 0.4 : 0.1) && want < 1.4 && isfinite(s.norm) && got != want))
    fail_msg("validation loss %.4f, in f32 %.4f; %d steps skipped", got, want, (int)s.skipped);
  end(&t);
  end(&f32);
}

/* The scale doubles after many steps without an overflow, up to a limit. */
static void test_scale_grows(const test_device *device, const void *data) {
  (void)device, (void)data;
  const clm_train_options options = {.batch = 1, .length = 4, .lr = 1e-4, .steps = 10, .activations = CLM_F16};
  training t = begin(test_reference, &options);
  assert_true(status_of(&t).loss_scale == 65536);
  t.trainer->scaling.good = 1998;
  steps(&t, 1);
  assert_true(status_of(&t).loss_scale == 65536);
  steps(&t, 1);
  assert_true(status_of(&t).loss_scale == 131072);
  t.trainer->scaling.scale = 16777216;
  t.trainer->scaling.good = 1999;
  steps(&t, 1);
  assert_true(status_of(&t).loss_scale <= 16777216);
  end(&t);
}

/* A text that can be learnt is learnt; the score is that of clm_model_score on the last tenth. */
static void test_learns(const test_device *device, const void *data) {
  (void)data;
  const clm_train_options options = {.batch = 4, .length = 32, .lr = 2e-2, .steps = 60, .seed = 1};
  training t = begin(device->context, &options);
  double before, after, direct;
  int32_t ids[TEXT_TOKENS];
  make_text(ids);
  CHECK(device->context, clm_trainer_validate(t.trainer, &before));
  steps(&t, 60);
  clm_train_status s = status_of(&t);
  CHECK(device->context, clm_trainer_validate(t.trainer, &after));
  CHECK(device->context, clm_model_score(t.model, ids + TEXT_TOKENS * 9 / 10, TEXT_TOKENS / 10, NULL, &direct));
  if (!(fabs(before - log(11)) < 0.1 && after < 1.4 && s.loss < 1.6))
    fail_msg("validation loss %.3f before, %.3f after, training loss %.3f", before, after, s.loss);
  assert_true(after == direct);
  end(&t);
  /* The first tokens of the last tenth alone, two at least. */
  for (int64_t most = 1; most < 2 * TEXT_TOKENS / 10; most += 19) {
    clm_train_options few = options;
    few.validation_tokens = most;
    t = begin(device->context, &few);
    size_t count = (size_t)(most < 2 ? 2 : most < TEXT_TOKENS / 10 ? most : TEXT_TOKENS / 10);
    CHECK(device->context, clm_trainer_validate(t.trainer, &after));
    CHECK(device->context, clm_model_score(t.model, ids + TEXT_TOKENS * 9 / 10, count, NULL, &direct));
    assert_true(after == direct);
    end(&t);
  }
}

static void test_timed_run(const test_device *device, const void *data) {
  (void)device, (void)data;
  training t = begin(test_reference, &(clm_train_options){.batch = 1, .length = 8, .minutes = 0.5 / 60});
  double validation, last = 0;
  clm_train_status s;
  do {
    steps(&t, 1);
    s = status_of(&t);
    assert_true(s.fraction >= last - 0.2); /* what is kept free for validation is estimated anew */
    last = s.fraction;
  } while (!s.finished);
  CHECK(test_reference, clm_trainer_validate(t.trainer, &validation));
  s = status_of(&t);
  if (!(s.seconds > 0.1 && s.seconds < 3)) fail_msg("a run of 0.5 seconds took %.2f", s.seconds);
  assert_true(s.lr < 1e-3); /* the cosine has come to its end */
  end(&t);
}

/* Both have the same length: the file's sizes and offsets stay. */
static void replace_in_checkpoint(const char *old, const char *new) {
  char path[128];
  snprintf(path, sizeof path, "%s/trainer.safetensors", folder);
  FILE *f = fopen(path, "r+b");
  assert_non_null(f);
  char head[4096];
  const size_t read = fread(head, 1, sizeof head - 1, f);
  head[read] = '\0';
  for (size_t i = 0; i < 8; i++) head[i] = ' '; /* the header's size */
  const char *at = strstr(head, old);
  assert_non_null(at);
  assert_int_equal(fseek(f, at - head, SEEK_SET), 0);
  assert_int_equal(fwrite(new, 1, strlen(new), f), strlen(new));
  assert_int_equal(fclose(f), 0);
}

static void test_bad_checkpoints(const test_device *device, const void *data) {
  (void)device, (void)data;
  training t = begin(test_reference, &run_options);
  steps(&t, 1);
  CHECK(test_reference, clm_trainer_save(t.trainer, folder));
  CHECK(test_reference, clm_trainer_resume(t.trainer, folder));
  int32_t ids[TEXT_TOKENS];
  make_text(ids);
  clm_model *other;
  clm_trainer *trainer;
  ids[7] ^= 1;
  CHECK(test_reference, clm_trainer_create(t.model, ids, TEXT_TOKENS, &run_options, &trainer));
  expect_message(clm_trainer_resume(trainer, folder), CLM_INVALID_ARGUMENT, "not the one");
  clm_trainer_destroy(&trainer);
  ids[7] ^= 1;
  CHECK(
      test_reference,
      clm_model_create(test_reference, &(clm_model_config){.vocab_size = 11, .d_model = 8, .n_layer = 1}, 1, &other));
  CHECK(test_reference, clm_trainer_create(other, ids, TEXT_TOKENS, &run_options, &trainer));
  expect_message(clm_trainer_resume(trainer, folder), CLM_BAD_FORMAT, "does not fit the model");
  clm_trainer_destroy(&trainer);
  clm_model_destroy(&other);
  CHECK(
      test_reference,
      clm_model_create(test_reference, &(clm_model_config){.vocab_size = 5, .d_model = 8, .n_layer = 1}, 1, &other));
  expect_message(clm_trainer_create(other, ids, TEXT_TOKENS, &run_options, &trainer), CLM_INVALID_ARGUMENT,
                 "the model's vocabulary has 5");
  assert_null(trainer);
  clm_model_destroy(&other);
  clm_train_options options;
  expect_message(clm_trainer_saved_options(test_reference, "/nowhere", &options), CLM_IO_ERROR, "/nowhere");
  CHECK(test_reference, clm_trainer_save_state(t.trainer, folder));
  replace_in_checkpoint("\\\"activations\\\":\\\"f32\\\"", "\\\"activations\\\":\\\"f99\\\"");
  expect_message(clm_trainer_saved_options(test_reference, folder, &options), CLM_BAD_FORMAT,
                 "the option \"activations\" is not f32, bf16 or f16");
  /* As an earlier version wrote it. */
  replace_in_checkpoint("\\\"activations\\\":\\\"f99\\\"", "\\\"Activations\\\":\\\"f99\\\"");
  CHECK(test_reference, clm_trainer_saved_options(test_reference, folder, &options));
  assert_int_equal(options.activations, CLM_F32);
  end(&t);
}

static void add(void) {
  for (size_t i = 0; i < sizeof data_cases / sizeof *data_cases; i++)
    test_add(NULL, test_windows, &data_cases[i], "windows of %d in %d tokens", (int)data_cases[i].length,
             (int)data_cases[i].count);
  test_add(NULL, test_short_text, NULL, "a text too short");
  test_add(NULL, test_schedule, NULL, "schedule");
  test_add(NULL, test_bad_options, NULL, "bad options");
  test_add(NULL, test_presets, NULL, "presets");
  test_add(NULL, test_timed_run, NULL, "a timed run");
  test_add(NULL, test_bad_checkpoints, NULL, "checkpoints that do not fit");
  test_add(NULL, test_scale_grows, NULL, "the scale of the loss grows");
  for (size_t d = 0; d < test_device_count; d++) {
    for (size_t i = 0; i < TEST_COUNT(run_cases); i++) {
      if (test_devices[d].slow && i > 1) continue; /* many kernels to compile */
      test_add(&test_devices[d], test_resume, &run_cases[i], "resume, %s", run_cases[i].name);
      if (i > 0) test_add(&test_devices[d], test_activations, &run_cases[i], "learns in %s", run_cases[i].name);
    }
    test_add(&test_devices[d], test_accumulate, NULL, "accumulation");
    test_add(&test_devices[d], test_learns, NULL, "learns");
  }
}

int main(void) {
  if (!mkdtemp(folder)) return EXIT_FAILURE;
  int status = test_main("train", add);
  static const char *const left[] = {"config.json", "model.safetensors", "trainer.safetensors"};
  for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, left[i]);
    unlink(path);
  }
  return rmdir(folder) == 0 ? status : EXIT_FAILURE;
}
