/* Training a backbone: the order and the cutting of sequences, runs that stop and go on bit for bit, two tasks that
 * must be learnt. */
#include "cmocka_all.h"
#include "devices.h"
#include "floats.h"
#include "random.h"
#include "train/frames.h"
#include "train/trainer.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/clmamba-test-XXXXXX";

#define CHECK(context, call) floats_check(context, call, #call)

static void expect_message(clm_status got, clm_status want, const char *part) {
  const char *error = clm_context_error(test_reference);
  if (got != want || !strstr(error, part))
    fail_msg("got %s: \"%s\", expected %s and \"%s\"", clm_status_string(got), error, clm_status_string(want), part);
}

/* ---- The sequences of a run ---- */

typedef struct cut_case {
  const char *why;
  clm_backbone_output output;
  int64_t window, length;
  int64_t lengths[3];   /* of the sequences                  */
  int64_t pieces[6][2]; /* begin and length of what is made  */
  int64_t training;
} cut_case;

static const cut_case cuts[] = {
    {"whole, every", CLM_OUTPUT_EVERY, 0, 0, {4, 9, 3}, {{0, 4}, {4, 9}, {13, 3}}, 2},
    {"a length, every", CLM_OUTPUT_EVERY, 0, 4, {4, 9, 3}, {{0, 4}, {4, 4}, {8, 4}, {12, 1}, {13, 3}}, 4},
    {"a window, every", CLM_OUTPUT_EVERY, 5, 7, {4, 9, 3}, {{0, 4}, {4, 5}, {9, 4}, {13, 3}}, 3},
    {"whole, last", CLM_OUTPUT_LAST, 0, 9, {4, 9, 3}, {{0, 4}, {4, 9}, {13, 3}}, 2},
    {"a window, last", CLM_OUTPUT_LAST, 5, 0, {4, 9, 3}, {{0, 4}, {8, 5}, {13, 3}}, 2},
};

static clm_backbone *make(clm_context *context, const clm_backbone_config *config) {
  clm_backbone *backbone;
  CHECK(context, clm_backbone_create(context, config, 3, &backbone));
  return backbone;
}

static void test_cuts(const test_device *device, const void *data) {
  (void)device;
  const cut_case *c = data;
  clm_backbone *b = make(
      test_reference,
      &(clm_backbone_config){
          .embed_dim = 1, .d_model = 2, .n_layers = 1, .n_outputs = 1, .window = c->window, .output = c->output});
  float numbers[16] = {0};
  const clm_sequences s = {.count = 3, .lengths = c->lengths, .frames = numbers, .targets = numbers};
  frames_data d;
  CHECK(test_reference, frames_create(b, &s, c->length, 7, &d));
  assert_int_equal(d.training, c->training);
  for (int64_t i = 0; i < d.count; i++) {
    assert_int_equal(d.list[i].begin, c->pieces[i][0]);
    assert_int_equal(d.list[i].length, c->pieces[i][1]);
    assert_int_equal(d.list[i].target, c->output == CLM_OUTPUT_EVERY ? c->pieces[i][0] : i);
  }
  if (d.count < 6) assert_int_equal(c->pieces[d.count][1], 0);
  data_position position = {0};
  for (int64_t epoch = 0; epoch < 3; epoch++) { /* each sequence to train on once, none to validate on */
    int seen[6] = {0};
    for (int64_t i = 0; i < d.training; i++) seen[frames_next(&d, &position) - d.list]++;
    for (int i = 0; i < 6; i++) assert_int_equal(seen[i], i < d.training);
    assert_int_equal(position.epoch, epoch);
  }
  frames_destroy(&d);
  clm_backbone_destroy(&b);
}

static void test_bad_data(const test_device *device, const void *data) {
  (void)device, (void)data;
  clm_backbone_config config = {.embed_dim = 1, .d_model = 2, .n_layers = 1, .n_outputs = 2};
  const clm_train_options options = {.steps = 1}, longer = {.steps = 1, .length = 3};
  clm_trainer *t;
  float numbers[16] = {0};
  int32_t classes[] = {0, 1, 2, -2};
  clm_sequences s = {.count = 4, .length = 4, .frames = numbers, .targets = numbers};
  clm_backbone *b = make(test_reference, &config);
  expect_message(clm_trainer_create_backbone(b, &s, &longer, &t), CLM_INVALID_ARGUMENT, "a window instead");
  assert_null(t);
  s.count = 1;
  expect_message(clm_trainer_create_backbone(b, &s, &options, &t), CLM_INVALID_ARGUMENT, "one sequence only");
  s.count = 4;
  numbers[9] = (float)NAN;
  expect_message(clm_trainer_create_backbone(b, &s, &options, &t), CLM_INVALID_ARGUMENT,
                 "number 0 of frame 9 is not finite");
  numbers[9] = 0;
  expect_message(clm_trainer_create_backbone(b, &s, &(clm_train_options){0}, &t), CLM_INVALID_ARGUMENT,
                 "either steps or minutes");
  clm_backbone_destroy(&b);
  config.task = CLM_TASK_CLASSIFICATION;
  b = make(test_reference, &config);
  expect_message(clm_trainer_create_backbone(b, &s, &options, &t), CLM_INVALID_ARGUMENT, "classes are absent");
  s.classes = classes;
  expect_message(clm_trainer_create_backbone(b, &s, &options, &t), CLM_INVALID_ARGUMENT,
                 "class 2 is 2, the backbone has 2");
  classes[2] = 1;
  expect_message(clm_trainer_create_backbone(b, &s, &options, &t), CLM_INVALID_ARGUMENT, "class 3 is -2");
  clm_backbone_destroy(&b);
}

/* ---- Tasks ---- */

typedef struct task {
  const char *why;
  clm_backbone_config config;
  clm_train_options options;
  int64_t sequences, length;
  bool ragged;
  double bar; /* the quality of a validation after the run is at least this */
} task;

static const task tasks[] = {
    {"which of two frequencies a noisy sine has",
     {.embed_dim = 1,
      .d_model = 16,
      .n_layers = 2,
      .d_state = 8,
      .n_outputs = 2,
      .task = CLM_TASK_CLASSIFICATION,
      .output = CLM_OUTPUT_LAST},
     {.batch = 16, .lr = 1e-2, .steps = 150, .seed = 1},
     400,
     40,
     true,
     0.95},
    {"the mean of four frames, two frames ago",
     {.embed_dim = 2, .d_model = 16, .n_layers = 2, .d_state = 8, .n_outputs = 1, .output = CLM_OUTPUT_EVERY},
     {.batch = 8, .lr = 1e-2, .steps = 150, .seed = 1},
     200,
     40,
     true,
     0.9},
};

typedef struct run_case {
  const task *task;
  clm_dtype activations;
} run_case;

static const run_case runs[] = {
    {&tasks[0], CLM_F32}, {&tasks[1], CLM_F32}, {&tasks[0], CLM_F16}, {&tasks[1], CLM_BF16}};

typedef struct examples {
  int64_t *lengths;
  float *frames, *targets;
  int32_t *classes;
  clm_sequences s;
} examples;

static examples make_examples(const task *k) {
  const int64_t width = k->config.embed_dim;
  examples e = {.lengths = malloc((size_t)k->sequences * sizeof *e.lengths),
                .classes = malloc((size_t)k->sequences * sizeof *e.classes),
                .frames = malloc((size_t)(k->sequences * k->length * width) * sizeof *e.frames),
                .targets = malloc((size_t)(k->sequences * k->length) * sizeof *e.targets)};
  test_random r = random_seeded(1, k->why);
  float *x = e.frames, *y = e.targets;
  for (int64_t i = 0; i < k->sequences; i++) {
    int64_t n = e.lengths[i] = k->ragged ? k->length - random_below(&r, 10) : k->length;
    double phase = 6.283 * random_uniform(&r), frequency = (e.classes[i] = (int32_t)random_below(&r, 2)) ? 0.1 : 0.16;
    for (int64_t t = 0; t < n; t++, x += width, y++) {
      if (k->config.task == CLM_TASK_CLASSIFICATION)
        x[0] = (float)(sin(phase + 6.283 * frequency * (double)t) + 0.4 * random_normal(&r));
      else x[0] = (float)random_normal(&r);
      for (int64_t j = 1; j < width; j++) x[j] = (float)random_normal(&r); /* of no use */
      *y = 0;
      for (int64_t back = 2; back < 6; back++)
        if (t >= back) *y += x[-back * width];
    }
  }
  e.s = (clm_sequences){
      .count = k->sequences, .lengths = e.lengths, .frames = e.frames, .targets = e.targets, .classes = e.classes};
  return e;
}

static void free_examples(examples *e) {
  free(e->lengths);
  free(e->frames);
  free(e->targets);
  free(e->classes);
}

typedef struct training {
  clm_backbone *backbone;
  clm_trainer *trainer;
} training;

static training begin(clm_context *context, const task *k, const examples *e, const clm_train_options *options) {
  training t = {.backbone = make(context, &k->config)};
  CHECK(context, clm_trainer_create_backbone(t.backbone, &e->s, options, &t.trainer));
  return t;
}

static void end(training *t) {
  clm_trainer_destroy(&t->trainer);
  clm_backbone_destroy(&t->backbone);
}

static void steps(const training *t, int64_t count) {
  for (int64_t i = 0; i < count; i++) CHECK(clm_backbone_context(t->backbone), clm_trainer_step(t->trainer));
}

static void test_learns(const test_device *device, const void *data) {
  const run_case *c = data;
  const task *k = c->task;
  examples e = make_examples(k);
  clm_train_options options = k->options;
  options.activations = c->activations;
  training t = begin(device->context, k, &e, &options);
  double before, after;
  clm_train_status s;
  CHECK(device->context, clm_trainer_validate(t.trainer, &before));
  steps(&t, k->options.steps);
  CHECK(device->context, clm_trainer_validate(t.trainer, &after));
  CHECK(device->context, clm_trainer_status(t.trainer, &s));
  if (!(s.quality >= k->bar && after < before && s.loss < before))
    fail_msg("validation loss %.4f before, %.4f after, quality %.4f, training loss %.4f", before, after, s.quality,
             s.loss);
  assert_true(s.finished);

  /* The validation is the evaluation of the last tenth. */
  int64_t first = k->sequences * 9 / 10, frames = 0, every = k->config.output == CLM_OUTPUT_EVERY;
  for (int64_t i = 0; i < first; i++) frames += e.lengths[i];
  clm_sequences last = {.count = k->sequences - first,
                        .lengths = e.lengths + first,
                        .frames = e.frames + frames * k->config.embed_dim,
                        .targets = e.targets + frames,
                        .classes = e.classes + (every ? frames : first)};
  clm_backbone_score score;
  CHECK(device->context, clm_backbone_evaluate(t.backbone, &last, &score));
  assert_true(score.loss == after && score.quality == s.quality);
  end(&t);
  free_examples(&e);
}

static float *parameters(const training *t) {
  const clm_model *m = t->backbone->model;
  return floats_read(m->context, clm_tensor_of(m->parameters, 0, CLM_F32, 1, (int64_t[]){(int64_t)m->layout.total}));
}

/* 11 steps at once, and in three parts with everything made anew in between: the same bits. */
static void test_resume(const test_device *device, const void *data) {
  const run_case *c = data;
  const task *k = c->task;
  clm_context *context = device->context;
  const clm_train_options options = {
      .batch = 3, .accumulate = 2, .lr = 1e-2, .dropout = 0.1, .steps = 11, .seed = 8, .activations = c->activations};
  examples e = make_examples(k);
  training whole = begin(context, k, &e, &options), t = {0};
  steps(&whole, 11);
  float *want = parameters(&whole);
  const int parts[] = {4, 1, 6};
  for (int i = 0; i < 3; i++) {
    clm_train_options saved = options;
    if (i > 0) CHECK(context, clm_trainer_saved_options(context, folder, &saved));
    end(&t);
    t = begin(context, k, &e, &saved);
    if (i > 0) CHECK(context, clm_trainer_resume(t.trainer, folder));
    double validation;
    CHECK(context, clm_trainer_validate(t.trainer, &validation)); /* changes nothing */
    steps(&t, parts[i]);
    CHECK(context, clm_trainer_save(t.trainer, folder));
  }
  float *got = parameters(&t);
  assert_memory_equal(got, want, t.backbone->model->layout.total * sizeof *got);
  clm_train_status a, b;
  CHECK(context, clm_trainer_status(t.trainer, &a));
  CHECK(context, clm_trainer_status(whole.trainer, &b));
  assert_int_equal(a.step, 11);
  assert_int_equal(a.tokens, b.tokens);
  e.frames[5] += 1;
  clm_trainer *other;
  clm_status status = clm_trainer_create_backbone(t.backbone, &e.s, &options, &other);
  CHECK(context, status);
  assert_int_equal(clm_trainer_resume(other, folder), CLM_INVALID_ARGUMENT);
  assert_non_null(strstr(clm_context_error(context), "the data is not the one that"));
  clm_trainer_destroy(&other);
  free(got);
  free(want);
  end(&t);
  end(&whole);
  free_examples(&e);
}

static void add(void) {
  for (size_t i = 0; i < TEST_COUNT(cuts); i++) test_add(NULL, test_cuts, &cuts[i], "sequences, %s", cuts[i].why);
  test_add(NULL, test_bad_data, NULL, "bad data");
  for (size_t d = 0; d < test_device_count; d++)
    for (size_t i = 0; i < TEST_COUNT(runs); i++) {
      const run_case *c = &runs[i];
      if (test_devices[d].slow && c->activations != CLM_F32) continue; /* many kernels to compile */
      const char *dtype = clm_dtype_name(c->activations);
      test_add(&test_devices[d], test_resume, c, "resume, %s, %s", c->task->why, dtype);
      if (!test_devices[d].slow) test_add(&test_devices[d], test_learns, c, "learns %s, %s", c->task->why, dtype);
    }
}

int main(void) {
  if (!mkdtemp(folder)) return EXIT_FAILURE;
  int status = test_main("train_backbone", add);
  static const char *const left[] = {"config.json", "model.safetensors", "trainer.safetensors"};
  for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, left[i]);
    unlink(path);
  }
  return rmdir(folder) == 0 ? status : EXIT_FAILURE;
}
