/* Runs over batches of sequences of different lengths, in chunks, with states that are forked, copied, saved and
 * restored; scores and choices. The reference is what a sequence gives alone. */
#include "cmocka_all.h"
#include "devices.h"
#include "model/model.h"
#include "random.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIVELY .dt_min = 0.05f, .dt_max = 1.0f, .embedding_range = 0.5f
enum { MAX_BATCH = 5 };

typedef struct run_case {
  const char *why;
  clm_model_config config;
  int64_t batch, lengths[MAX_BATCH];
  bool fast;
} run_case;

static const run_case cases[] = {
    {"one token each", {.vocab_size = 7, .d_model = 8, .n_layer = 1, .d_state = 4, LIVELY}, 3, {1, 1, 1}, false},
    {"ragged", {.vocab_size = 13, .d_model = 24, .n_layer = 3, .d_state = 8, LIVELY}, 5, {9, 1, 37, 2, 20}, true},
    {"ragged, width 1, biases, untied head",
     {.vocab_size = 11,
      .d_model = 16,
      .n_layer = 2,
      .d_conv = 1,
      .projection_bias = true,
      .untied_head = true,
      LIVELY},
     3,
     {5, 31, 12},
     false},
    {"ragged, layer norm",
     {.vocab_size = 11, .d_model = 16, .n_layer = 2, .layer_norm = true, LIVELY},
     3,
     {5, 31, 12},
     false},
    {"ragged, normed delta, B and C",
     {.vocab_size = 11, .d_model = 16, .n_layer = 2, .mixer_norm = true, LIVELY},
     3,
     {5, 31, 12},
     false},
    {"ragged, mixed and parallel layers",
     {.vocab_size = 11, .d_model = 16, .n_layer = 3, .layers = "mamba1 mlp(width=24) mlp(width=8)+mamba1", LIVELY},
     3,
     {5, 31, 12},
     true},
    {"ragged, experts",
     {.vocab_size = 11,
      .d_model = 16,
      .n_layer = 3,
      .layers = "mamba1 moe(experts=5,chosen=2,width=8)+mlp(width=8) moe(experts=4,chosen=1,width=9,latent=6)",
      LIVELY},
     3,
     {5, 31, 12},
     true},
    {"ragged, Mamba-2",
     {.vocab_size = 11,
      .d_model = 16,
      .n_layer = 3,
      .d_state = 4,
      .head_dim = 8,
      .n_groups = 2,
      .layers = "mamba2 mamba1 mamba2",
      LIVELY},
     3,
     {5, 31, 12},
     true},
    {"ragged, attention",
     {.vocab_size = 11,
      .d_model = 16,
      .n_layer = 3,
      .d_state = 4,
      .kv_heads = 1,
      .attention_head_dim = 6,
      .rope_theta = 100,
      .layers = "mamba2 attention mamba1+attention",
      LIVELY},
     3,
     {5, 81, 12},
     true},
    {"equal, shorter than the row", {.vocab_size = 9, .d_model = 16, .n_layer = 2, LIVELY}, 2, {6, 6}, false},
    {"several chunks", {.vocab_size = 5, .d_model = 4, .n_layer = 2, .d_state = 2, LIVELY}, 1, {4500}, true},
    {"several chunks, ragged, attention",
     {.vocab_size = 5,
      .d_model = 4,
      .n_layer = 2,
      .d_state = 2,
      .rope_theta = 1e4f,
      .layers = "mamba2 attention",
      LIVELY},
     3,
     {2500, 1, 2049},
     false},
    {"several chunks, ragged",
     {.vocab_size = 5, .d_model = 4, .n_layer = 2, .d_state = 2, LIVELY},
     5,
     {2500, 1, 2049, 4100, 300},
     true},
};

static void check(clm_context *context, clm_status status, const char *what) {
  if (status) fail_msg("%s: %s: %s", what, clm_status_string(status), clm_context_error(context));
}
#define CHECK(f, call) check((f)->context, call, #call)

/* Everything that a run may give, for one batch. */
typedef struct outputs {
  clm_buffer *buffer;
  clm_model_run_args args;
} outputs;

typedef struct fixture {
  clm_context *context;
  clm_model *model;
  const run_case *c;
  int64_t length; /* of a row: two more than the longest */
  int32_t *ids, *targets;
} fixture;

static fixture fixture_make(const run_case *c, clm_context *context) {
  fixture f = {.context = context, .c = c};
  for (int64_t i = 0; i < c->batch; i++)
    if (c->lengths[i] + 2 > f.length) f.length = c->lengths[i] + 2;
  CHECK(&f, clm_model_create(context, &c->config, 5, &f.model));
  size_t rows = (size_t)(c->batch * f.length);
  f.ids = calloc(rows, sizeof *f.ids);
  f.targets = calloc(rows, sizeof *f.targets);
  test_random r = random_seeded(4, c->why);
  for (size_t i = 0; i < rows; i++) {
    f.ids[i] = (int32_t)random_below(&r, c->config.vocab_size);
    f.targets[i] = (int32_t)random_below(&r, c->config.vocab_size + 1) - 1;
  }
  return f;
}

static void fixture_free(fixture *f) {
  clm_model_destroy(&f->model);
  free(f->ids);
  free(f->targets);
}

enum { LOGITS, LAST_LOGITS, HIDDEN, LAST_HIDDEN, MEAN_HIDDEN, LOSSES, OUTPUTS };
static const char *const output_names[OUTPUTS] = {"logits",      "last_logits", "hidden",
                                                  "last_hidden", "mean_hidden", "losses"};

static clm_tensor *output_of(outputs *o, int which) {
  clm_tensor *all[] = {&o->args.logits,      &o->args.last_logits, &o->args.hidden,
                       &o->args.last_hidden, &o->args.mean_hidden, &o->args.losses};
  return all[which];
}

/* All outputs for (batch, length), filled with NaN; ids and targets written. */
static outputs outputs_make(const fixture *f, int64_t batch, int64_t length, const int32_t *ids,
                            const int32_t *targets) {
  const clm_model_config *c = &f->c->config;
  const struct {
    int rank;
    int64_t shape[4];
  } shapes[OUTPUTS] = {[LOGITS] = {3, {batch, length, c->vocab_size}},
                       [LAST_LOGITS] = {2, {batch, c->vocab_size}},
                       [HIDDEN] = {4, {c->n_layer + 1, batch, length, c->d_model}},
                       [LAST_HIDDEN] = {2, {batch, c->d_model}},
                       [MEAN_HIDDEN] = {2, {batch, c->d_model}},
                       [LOSSES] = {2, {batch, length}}};
  outputs o = {0};
  size_t bytes = 0, rows = (size_t)(batch * length);
  for (int pass = 0; pass < 2; pass++) {
    bytes = 0;
    for (int i = 0; i < OUTPUTS; i++) {
      clm_tensor t = clm_tensor_of(o.buffer, bytes, CLM_F32, shapes[i].rank, shapes[i].shape);
      *output_of(&o, i) = t;
      bytes += (size_t)clm_tensor_count(t) * 4;
    }
    o.args.ids = clm_tensor_of(o.buffer, bytes, CLM_I32, 2, (int64_t[]){batch, length});
    o.args.targets = clm_tensor_of(o.buffer, bytes + rows * 4, CLM_I32, 2, (int64_t[]){batch, length});
    if (pass == 0) CHECK(f, clm_buffer_create(f->context, bytes + rows * 8, &o.buffer));
  }
  float *poison = malloc(bytes);
  for (size_t i = 0; i < bytes / 4; i++) poison[i] = (float)NAN;
  CHECK(f, clm_buffer_write(o.buffer, 0, bytes, poison));
  free(poison);
  CHECK(f, clm_tensor_write(o.args.ids, ids, rows * 4));
  CHECK(f, clm_tensor_write(o.args.targets, targets, rows * 4));
  return o;
}

static float *read_floats(const fixture *f, clm_tensor t) {
  size_t count = (size_t)clm_tensor_count(t);
  float *values = malloc(count * sizeof *values);
  CHECK(f, clm_tensor_read(t, values, count * sizeof *values));
  return values;
}

/* |got - want| <= tolerance (|want| + root mean square of want) */
static void compare(const char *what, int64_t sequence, const float *got, const float *want, size_t count,
                    double tolerance) {
  double squares = 0;
  for (size_t i = 0; i < count; i++) squares += (double)want[i] * (double)want[i];
  double level = sqrt(squares / (double)count);
  for (size_t i = 0; i < count; i++)
    if (!(fabs((double)got[i] - (double)want[i]) <= tolerance * (fabs((double)want[i]) + level)))
      fail_msg("%s of sequence %d: element %zu is %.9g, expected %.9g", what, (int)sequence, i, (double)got[i],
               (double)want[i]);
}

/* One output of sequence `b` of the batch against that of the same sequence alone; poison after its end. */
static void compare_output(const fixture *f, int which, int64_t b, const float *batch, const float *alone) {
  const clm_model_config *c = &f->c->config;
  int64_t tokens = f->c->lengths[b], d_model = c->d_model;
  bool every = which == LOGITS || which == HIDDEN || which == LOSSES;
  int64_t width = which == LOSSES ? 1 : which == LOGITS || which == LAST_LOGITS ? c->vocab_size : d_model;
  int64_t planes = which == HIDDEN ? c->n_layer + 1 : 1;
  for (int64_t p = 0; p < planes; p++) {
    const float *got = batch + (p * f->c->batch + b) * (every ? f->length : 1) * width;
    const float *want = alone + p * (every ? tokens : 1) * width;
    compare(output_names[which], b, got, want, (size_t)((every ? tokens : 1) * width), 1e-5);
    for (int64_t i = tokens * width; every && i < f->length * width; i++)
      if (!isnan(got[i])) fail_msg("%s of sequence %d is written after its end", output_names[which], (int)b);
  }
}

/* A ragged batch in one run gives what every sequence gives alone. */
static void test_lengths(const test_device *device, const void *data) {
  const run_case *c = data;
  fixture f = fixture_make(c, device->context);
  outputs batch = outputs_make(&f, c->batch, f.length, f.ids, f.targets);
  batch.args.lengths = c->lengths;
  CHECK(&f, clm_model_run(f.model, &batch.args));
  float *all[OUTPUTS];
  for (int i = 0; i < OUTPUTS; i++) all[i] = read_floats(&f, *output_of(&batch, i));
  for (int64_t b = 0; b < c->batch; b++) {
    outputs alone = outputs_make(&f, 1, c->lengths[b], f.ids + b * f.length, f.targets + b * f.length);
    CHECK(&f, clm_model_run(f.model, &alone.args));
    for (int i = 0; i < OUTPUTS; i++) {
      float *want = read_floats(&f, *output_of(&alone, i));
      compare_output(&f, i, b, all[i], want);
      free(want);
    }
    clm_buffer_destroy(&alone.buffer);
  }
  for (int i = 0; i < OUTPUTS; i++) free(all[i]);
  clm_buffer_destroy(&batch.buffer);
  fixture_free(&f);
}

/* The outputs of one run against each other and against a pass of training, which knows no chunks. */
static void test_outputs(const test_device *device, const void *data) {
  const run_case *c = data;
  fixture f = fixture_make(c, device->context);
  int64_t tokens = c->lengths[0], vocab = c->config.vocab_size, d_model = c->config.d_model;
  outputs o = outputs_make(&f, 1, tokens, f.ids, f.targets);
  CHECK(&f, clm_model_run(f.model, &o.args));
  float *logits = read_floats(&f, o.args.logits), *last = read_floats(&f, o.args.last_logits);
  float *hidden = read_floats(&f, o.args.hidden), *last_hidden = read_floats(&f, o.args.last_hidden);
  float *mean = read_floats(&f, o.args.mean_hidden), *losses = read_floats(&f, o.args.losses);
  const float *normed = hidden + c->config.n_layer * tokens * d_model;
  compare("last_logits", 0, last, logits + (tokens - 1) * vocab, (size_t)vocab, 1e-5);
  compare("last_hidden", 0, last_hidden, normed + (tokens - 1) * d_model, (size_t)d_model, 1e-5);
  for (int64_t d = 0; d < d_model; d++) {
    double sum = 0;
    for (int64_t t = 0; t < tokens; t++) sum += (double)normed[t * d_model + d];
    if (!(fabs(sum / (double)tokens - (double)mean[d]) <= 1e-4))
      fail_msg("mean_hidden %d is %g, expected %g", (int)d, (double)mean[d], sum / (double)tokens);
  }
  for (int64_t t = 0; t < tokens; t++) {
    double want =
        f.targets[t] < 0 ? 0 : model_log_sum(logits + t * vocab, vocab) - (double)logits[t * vocab + f.targets[t]];
    if (!(fabs((double)losses[t] - want) <= 1e-4 * (1 + fabs(want))))
      fail_msg("loss %d is %g, expected %g", (int)t, (double)losses[t], want);
  }
  clm_tensor direct = o.args.losses;
  CHECK(&f, clm_model_loss(f.model,
                           &(clm_model_loss_args){.ids = o.args.ids, .targets = o.args.targets, .losses = direct}));
  float *whole = read_floats(&f, direct);
  compare("losses of a whole pass", 0, losses, whole, (size_t)tokens, 1e-5);
  float *all[] = {logits, last, hidden, last_hidden, mean, losses, whole};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  clm_buffer_destroy(&o.buffer);
  fixture_free(&f);
}

/* ---- States ---- */

static float *state_floats(const fixture *f, const clm_model_state *s) {
  size_t bytes = clm_buffer_size(s->buffer);
  float *values = malloc(bytes);
  CHECK(f, clm_buffer_read(s->buffer, 0, bytes, values));
  return values;
}

static void assert_same_state(const fixture *f, const clm_model_state *a, const clm_model_state *b) {
  assert_int_equal(a->batch, b->batch);
  assert_memory_equal(a->tokens, b->tokens, (size_t)a->batch * sizeof *a->tokens);
  assert_int_equal(a->tensor_count, b->tensor_count);
  for (size_t i = 0; i <= a->tensor_count; i++) {
    const bool last = i == a->tensor_count;
    const clm_tensor *left = last ? &a->hidden : &a->tensors[i].all, *right = last ? &b->hidden : &b->tensors[i].all;
    float *x = read_floats(f, *left), *y = read_floats(f, *right);
    assert_memory_equal(x, y, (size_t)clm_tensor_count(*left) * sizeof *x);
    free(x);
    free(y);
  }
}

/* Logits after `id` for every row. */
static float *decode_all(const fixture *f, clm_model_state *s, int32_t id) {
  clm_buffer *buffer;
  size_t batch = (size_t)s->batch, vocab = (size_t)f->c->config.vocab_size;
  CHECK(f, clm_buffer_create(f->context, batch * 4 + batch * vocab * 4, &buffer));
  clm_tensor ids = clm_tensor_of(buffer, 0, CLM_I32, 1, &s->batch);
  clm_tensor logits = clm_tensor_of(buffer, batch * 4, CLM_F32, 2, (int64_t[]){s->batch, (int64_t)vocab});
  int32_t *host = calloc(batch, sizeof *host);
  for (size_t i = 0; i < batch; i++) host[i] = id;
  CHECK(f, clm_tensor_write(ids, host, batch * 4));
  CHECK(f, clm_model_decode(f->model, s, ids, logits));
  float *values = read_floats(f, logits);
  CHECK(f, clm_model_state_logits(s, logits));
  float *again = read_floats(f, logits);
  assert_memory_equal(values, again, batch * vocab * sizeof *values);
  free(again);
  free(host);
  clm_buffer_destroy(&buffer);
  return values;
}

static clm_model_state *state_after(const fixture *f) {
  clm_model_state *state;
  outputs o = outputs_make(f, f->c->batch, f->length, f->ids, f->targets);
  CHECK(f, clm_model_state_create(f->model, f->c->batch, &state));
  CHECK(f, clm_model_prefill(f->model, state, o.args.ids, f->c->lengths, o.args.last_logits));
  clm_buffer_destroy(&o.buffer);
  return state;
}

/* Forks and copies have the bits of what they were made from, and go their own way after. */
static void test_fork(const test_device *device, const void *data) {
  fixture f = fixture_make(data, device->context);
  clm_model_state *state = state_after(&f), *whole, *some, *many;
  float *before = state_floats(&f, state);
  CHECK(&f, clm_model_state_fork(state, NULL, f.c->batch, &whole));
  assert_same_state(&f, state, whole);
  const int64_t rows[] = {2, 2, 2, 0, 1, 2, 1};
  CHECK(&f, clm_model_state_fork(state, rows, 7, &some));
  for (int64_t i = 0; i < 7; i++) {
    assert_int_equal(clm_model_state_tokens(some, i), f.c->lengths[rows[i]]);
    clm_model_state *a, *b;
    CHECK(&f, clm_model_state_fork(some, &i, 1, &a));
    CHECK(&f, clm_model_state_fork(state, &rows[i], 1, &b));
    assert_same_state(&f, a, b);
    if (i == 0) { /* one state into three rows */
      CHECK(&f, clm_model_state_fork(a, NULL, 3, &many));
      float *logits = decode_all(&f, many, 1), *alone = decode_all(&f, a, 1);
      for (int k = 0; k < 3; k++)
        compare("logits of a fork", k, logits + k * f.c->config.vocab_size, alone, (size_t)f.c->config.vocab_size,
                1e-5);
      free(logits);
      free(alone);
      clm_model_state_destroy(&many);
    }
    clm_model_state_destroy(&a);
    clm_model_state_destroy(&b);
  }
  free(decode_all(&f, some, 0));
  float *after = state_floats(&f, state);
  assert_memory_equal(before, after, clm_buffer_size(state->buffer));
  CHECK(&f, clm_model_state_copy(some, 4, state, 0, 3)); /* puts rows 4 to 6 back to rows 0 to 2 */
  clm_model_state *a, *b;
  CHECK(&f, clm_model_state_fork(some, (int64_t[]){4, 5, 6}, 3, &a));
  CHECK(&f, clm_model_state_fork(state, (int64_t[]){0, 1, 2}, 3, &b));
  assert_same_state(&f, a, b);
  assert_int_equal(clm_model_state_copy(some, 5, state, 0, 3), CLM_INVALID_ARGUMENT);
  assert_int_equal(clm_model_state_copy(some, 0, state, -1, 1), CLM_INVALID_ARGUMENT);
  assert_int_equal(clm_model_state_copy(some, 0, some, 1, 2), CLM_INVALID_ARGUMENT);
  clm_model_state *none;
  assert_int_equal(clm_model_state_fork(state, (int64_t[]){9}, 1, &none), CLM_INVALID_ARGUMENT);
  assert_null(none);
  free(before);
  free(after);
  clm_model_state *states[] = {state, whole, some, a, b};
  for (size_t i = 0; i < 5; i++) clm_model_state_destroy(&states[i]);
  fixture_free(&f);
}

/* Steps of several states in turn, with runs of other shapes in between, give the bits of one state's steps alone. */
static void test_steps(const test_device *device, const void *data) {
  enum { STEPS = 5 };
  fixture f = fixture_make(data, device->context);
  const size_t bytes = (size_t)(f.c->batch * f.c->config.vocab_size) * sizeof(float);
  clm_model_state *state = state_after(&f), *alone, *same, *fewer, *longer;
  CHECK(&f, clm_model_state_fork(state, NULL, f.c->batch, &alone));
  CHECK(&f, clm_model_state_fork(state, NULL, f.c->batch, &same));
  CHECK(&f, clm_model_state_fork(state, NULL, 2, &fewer));
  float *want[STEPS];
  for (int i = 0; i < STEPS; i++) want[i] = decode_all(&f, alone, i + 1);
  for (int i = 0; i < STEPS; i++) {
    float *got = decode_all(&f, state, i + 1), *other = decode_all(&f, same, i + 1);
    assert_memory_equal(got, want[i], bytes);
    assert_memory_equal(other, want[i], bytes);
    free(got);
    free(other);
    if (i == 1) free(decode_all(&f, fewer, 3));
    if (i == 2) {
      longer = state_after(&f);
      clm_model_state_destroy(&longer);
    }
    free(want[i]);
  }
  clm_model_state *states[] = {state, alone, same, fewer};
  for (size_t i = 0; i < 4; i++) clm_model_state_destroy(&states[i]);
  fixture_free(&f);
}

static void expect_message(const fixture *f, clm_status got, clm_status want, const char *part) {
  const char *error = clm_context_error(f->context);
  if (got != want || !strstr(error, part))
    fail_msg("got %s: \"%s\", expected %s and \"%s\"", clm_status_string(got), error, clm_status_string(want), part);
}

/* Saved and restored: the same bits, in the same model only. */
static void test_state_file(const test_device *device, const void *data) {
  fixture f = fixture_make(data, device->context);
  char path[] = "/tmp/clmamba-test-XXXXXX";
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  close(fd);
  clm_model_state *state = state_after(&f), *loaded;
  CHECK(&f, clm_model_state_save(state, path));
  CHECK(&f, clm_model_state_load(f.model, path, &loaded));
  assert_same_state(&f, state, loaded);
  float *a = decode_all(&f, state, 1), *b = decode_all(&f, loaded, 1);
  assert_memory_equal(a, b, (size_t)(f.c->batch * f.c->config.vocab_size) * sizeof *a);
  free(a);
  free(b);
  clm_model_state_destroy(&loaded);
  clm_model *other;
  clm_model_config config = f.c->config;
  CHECK(&f, clm_model_create(f.context, &config, 6, &other));
  expect_message(&f, clm_model_state_load(other, path, &loaded), CLM_INVALID_ARGUMENT, "with other weights");
  assert_null(loaded);
  clm_model_destroy(&other);
  config.d_state++;
  CHECK(&f, clm_model_create(f.context, &config, 5, &other));
  expect_message(&f, clm_model_state_load(other, path, &loaded), CLM_INVALID_ARGUMENT, "d_state 9");
  clm_model_destroy(&other);
  assert_int_equal(truncate(path, 200), 0);
  expect_message(&f, clm_model_state_load(f.model, path, &loaded), CLM_BAD_FORMAT, path);
  assert_null(loaded);
  unlink(path);
  expect_message(&f, clm_model_state_load(f.model, path, &loaded), CLM_IO_ERROR, "No such file");
  expect_message(&f, clm_model_state_save(state, "/nowhere/state"), CLM_IO_ERROR, "cannot write /nowhere/state");
  clm_model_state_destroy(&state);
  fixture_free(&f);
}

/* A sequence without tokens stays where it is; a run in two parts leaves what one run leaves. */
static void test_parts(const test_device *device, const void *data) {
  const run_case *c = data;
  fixture f = fixture_make(c, device->context);
  clm_model_state *state = state_after(&f), *parts, *before;
  CHECK(&f, clm_model_state_create(f.model, c->batch, &parts));
  outputs o = outputs_make(&f, c->batch, f.length, f.ids, f.targets);
  clm_tensor ids = clm_tensor_of(o.buffer, o.args.ids.offset, CLM_I32, 2, (int64_t[]){c->batch, f.length});
  int64_t first[MAX_BATCH], rest[MAX_BATCH];
  int32_t *shifted = calloc((size_t)(c->batch * f.length), sizeof *shifted);
  for (int64_t b = 0; b < c->batch; b++) {
    first[b] = (c->lengths[b] + 1) / 2;
    rest[b] = c->lengths[b] - first[b];
    memcpy(shifted + b * f.length, f.ids + b * f.length + first[b], (size_t)rest[b] * sizeof *shifted);
  }
  CHECK(&f, clm_model_prefill(f.model, parts, ids, first, o.args.last_logits));
  CHECK(&f, clm_model_state_fork(parts, NULL, c->batch, &before));
  CHECK(&f, clm_tensor_write(ids, shifted, (size_t)(c->batch * f.length) * 4));
  CHECK(&f, clm_model_prefill(f.model, parts, ids, rest, o.args.last_logits)); /* some have none left */
  for (int64_t b = 0; b < c->batch; b++) {
    clm_model_state *x, *y;
    assert_int_equal(clm_model_state_tokens(parts, b), c->lengths[b]);
    CHECK(&f, clm_model_state_fork(parts, &b, 1, &x));
    CHECK(&f, clm_model_state_fork(rest[b] ? state : before, &b, 1, &y));
    if (rest[b] == 0) assert_same_state(&f, x, y);
    float *got = state_floats(&f, x), *want = state_floats(&f, y);
    size_t floats = (size_t)clm_tensor_count(x->tensors[0].all);
    compare("state", b, got, want, floats, 1e-5);
    free(got);
    free(want);
    clm_model_state_destroy(&x);
    clm_model_state_destroy(&y);
  }
  free(shifted);
  clm_buffer_destroy(&o.buffer);
  clm_model_state_destroy(&before);
  clm_model_state_destroy(&parts);
  clm_model_state_destroy(&state);
  fixture_free(&f);
}

static void test_bad_arguments(const test_device *device, const void *data) {
  fixture f = fixture_make(data, device->context);
  outputs o = outputs_make(&f, f.c->batch, f.length, f.ids, f.targets);
  clm_model_state *fresh, *two;
  CHECK(&f, clm_model_state_create(f.model, f.c->batch, &fresh));
  CHECK(&f, clm_model_state_create(f.model, 2, &two));
  clm_model_run_args a = o.args;
  a.lengths = (int64_t[]){1, 1, f.length + 1, 1, 1};
  expect_message(&f, clm_model_run(f.model, &a), CLM_INVALID_ARGUMENT, "sequence 2 has length 40, expected 0 to 39");
  a.lengths = (int64_t[]){1, 0, 1, 1, 1};
  a.state = fresh;
  a.mean_hidden = (clm_tensor){0};
  expect_message(&f, clm_model_run(f.model, &a), CLM_INVALID_ARGUMENT, "sequence 1 has no tokens");
  a = o.args;
  a.state = two;
  expect_message(&f, clm_model_run(f.model, &a), CLM_INVALID_ARGUMENT, "ids has batch 5, the state 2");
  a = o.args;
  a.hidden.shape[0]--;
  expect_message(&f, clm_model_run(f.model, &a), CLM_INVALID_ARGUMENT,
                 "hidden must be a contiguous f32 tensor of shape (4, 5, 39, 24)");
  a = o.args;
  a.losses = (clm_tensor){0};
  expect_message(&f, clm_model_run(f.model, &a), CLM_INVALID_ARGUMENT, "together");
  a = o.args;
  a.ids.dtype = CLM_F32;
  expect_message(&f, clm_model_run(f.model, &a), CLM_INVALID_ARGUMENT, "ids must be an i32 tensor");
  expect_message(&f, clm_model_state_logits(fresh, o.args.last_logits), CLM_INVALID_ARGUMENT, "seen no tokens");
  clm_model_state_destroy(&fresh);
  clm_model_state_destroy(&two);
  clm_buffer_destroy(&o.buffer);
  fixture_free(&f);
}

/* ---- Scores ---- */

/* Nats of every prediction of ids[0 .. tokens) from zero state, in double from its logits. */
static double *direct_losses(const fixture *f, const int32_t *ids, int64_t tokens) {
  int64_t vocab = f->c->config.vocab_size;
  outputs o = outputs_make(f, 1, tokens, ids, f->targets);
  CHECK(f, clm_model_forward(f->model, o.args.ids, o.args.logits));
  float *logits = read_floats(f, o.args.logits);
  double *losses = calloc((size_t)tokens, sizeof *losses);
  for (int64_t t = 0; t + 1 < tokens; t++)
    losses[t] = model_log_sum(logits + t * vocab, vocab) - (double)logits[t * vocab + ids[t + 1]];
  free(logits);
  clm_buffer_destroy(&o.buffer);
  return losses;
}

typedef struct score_case {
  const char *why;
  int64_t tokens, window, stride;
  bool carry;
} score_case;
static const score_case scores[] = {{"windows", 50, 9, 0, false},
                                    {"one window", 8, 30, 0, false},
                                    {"windows that fit", 31, 10, 0, false},
                                    {"sliding", 50, 9, 4, false},
                                    {"sliding by one", 20, 6, 1, false},
                                    {"sliding, even", 41, 10, 5, false},
                                    {"carried", 50, 0, 0, true},
                                    {"carried, chunks", 4200, 0, 0, true},
                                    {"two tokens", 2, 0, 0, false},
                                    {"two tokens, carried", 2, 0, 0, true}};

static void test_scores(const test_device *device, const void *data) {
  (void)data;
  const run_case *c = &cases[TEST_COUNT(cases) - 1];
  fixture f = fixture_make(c, device->context);
  for (size_t i = 0; i < TEST_COUNT(scores); i++) {
    const score_case *s = &scores[i];
    int64_t count = s->tokens - 1, window = s->carry ? count : s->window ? s->window : CLM_SCORE_WINDOW;
    int64_t stride = s->stride ? s->stride : window;
    float *losses = calloc((size_t)count, sizeof *losses);
    double loss = NAN, sum = 0;
    for (int64_t k = 0; k < count; k++) losses[k] = (float)NAN;
    CHECK(&f, clm_model_score(
                  f.model, f.ids, (size_t)s->tokens,
                  &(clm_score_options){.window = s->window, .stride = s->stride, .carry = s->carry, .losses = losses},
                  &loss));
    for (int64_t begin = 0, reached = 0; reached < count; begin += stride) {
      int64_t end = begin + window < count ? begin + window : count;
      double *want = direct_losses(&f, f.ids + begin, end - begin + 1);
      for (; reached < end; reached++) {
        sum += want[reached - begin];
        if (!(fabs((double)losses[reached] - want[reached - begin]) <= 1e-4))
          fail_msg("%s: prediction %d costs %g, expected %g", s->why, (int)reached, (double)losses[reached],
                   want[reached - begin]);
      }
      free(want);
    }
    if (!(fabs(loss - sum / (double)count) <= 1e-5))
      fail_msg("%s: %g, expected %g", s->why, loss, sum / (double)count);
    free(losses);
  }
  double loss;
  const clm_score_options bad[] = {
      {.window = -1}, {.stride = -1}, {.window = 4, .stride = 5}, {.window = 4, .carry = true}};
  for (size_t i = 0; i < TEST_COUNT(bad); i++)
    expect_message(&f, clm_model_score(f.model, f.ids, 9, &bad[i], &loss), CLM_INVALID_ARGUMENT, "model_score: ");
  fixture_free(&f);
}

/* Choices of one token and of many, more than run at once, against the whole text's predictions. */
static void test_choices(const test_device *device, const void *data) {
  (void)data;
  const run_case *c = &cases[1];
  enum { CHOICES = 67, CONTEXT = 6 };
  fixture f = fixture_make(c, device->context);
  int32_t text[CONTEXT + 9];
  clm_choice choices[CHOICES];
  double got[CHOICES];
  for (size_t i = 0; i < CHOICES; i++) choices[i] = (clm_choice){f.ids + i, 1 + i % 9};
  CHECK(&f, clm_model_choices(f.model, f.ids + 70, CONTEXT, choices, CHOICES, got));
  for (size_t i = 0; i < CHOICES; i += i < 10 ? 1 : 9) {
    double want = 0;
    memcpy(text, f.ids + 70, CONTEXT * sizeof *text);
    memcpy(text + CONTEXT, choices[i].ids, choices[i].count * sizeof *text);
    double *losses = direct_losses(&f, text, (int64_t)(CONTEXT + choices[i].count));
    for (size_t k = 0; k < choices[i].count; k++) want -= losses[CONTEXT - 1 + k];
    if (!(fabs(got[i] - want) <= 1e-4)) fail_msg("choice %zu has %g, expected %g", i, got[i], want);
    free(losses);
  }
  choices[3].count = 0;
  expect_message(&f, clm_model_choices(f.model, f.ids, 2, choices, 5, got), CLM_INVALID_ARGUMENT,
                 "choice 3 has no tokens");
  choices[3] = (clm_choice){(int32_t[]){99}, 1};
  expect_message(&f, clm_model_choices(f.model, f.ids, 2, choices, 5, got), CLM_INVALID_ARGUMENT,
                 "choice 3 has the token 99, expected 0 to 12");
  expect_message(&f, clm_model_choices(f.model, f.ids, 0, choices, 1, got), CLM_INVALID_ARGUMENT, "context 0");
  fixture_free(&f);
}

static void check_next(const fixture *f, clm_model_state *state, int32_t id, const float *want) {
  float *got = decode_all(f, state, id);
  assert_memory_equal(got, want, (size_t)(state->batch * f->c->config.vocab_size) * sizeof *got);
  free(got);
}

/* A state with the keys and values of attention: it grows, and is forked, saved, restored and put back with them, to
 * the same bits, into states with room for fewer tokens too. */
static void test_growing(const test_device *device, const void *data) {
  fixture f = fixture_make(data, device->context);
  enum { STEPS = 70 };
  char path[] = "/tmp/clmamba-test-XXXXXX";
  const int fd = mkstemp(path);
  float *want[STEPS];
  clm_model_state *state = state_after(&f), *small, *fork, *loaded;
  assert_true(fd >= 0);
  close(fd);
  CHECK(&f, clm_model_state_create(f.model, f.c->batch, &small));
  const size_t bytes = clm_model_state_bytes(state);
  assert_true(clm_model_state_bytes(small) < bytes);
  CHECK(&f, clm_model_state_fork(state, NULL, f.c->batch, &fork));
  CHECK(&f, clm_model_state_copy(small, 0, state, 0, f.c->batch));
  CHECK(&f, clm_model_state_save(state, path));
  for (int i = 0; i < STEPS; i++) want[i] = decode_all(&f, state, i % 5);
  assert_true(clm_model_state_bytes(state) > bytes);
  CHECK(&f, clm_model_state_load(f.model, path, &loaded));
  for (int i = 0; i < STEPS; i++) {
    check_next(&f, fork, i % 5, want[i]);
    check_next(&f, small, i % 5, want[i]);
    check_next(&f, loaded, i % 5, want[i]);
  }
  clm_model_state_destroy(&fork);
  CHECK(&f, clm_model_state_load(f.model, path, &fork));
  CHECK(&f, clm_model_state_copy(state, 0, fork, 0, f.c->batch)); /* put back, its memory stays */
  check_next(&f, state, 0, want[0]);
  CHECK(&f, clm_model_state_reset(state));
  assert_int_equal(clm_model_state_tokens(state, 1), 0);
  for (int i = 0; i < STEPS; i++) free(want[i]);
  clm_model_state *states[] = {state, small, fork, loaded};
  for (size_t i = 0; i < TEST_COUNT(states); i++) clm_model_state_destroy(&states[i]);
  remove(path);
  fixture_free(&f);
}

static const run_case *case_named(const char *why) {
  for (size_t i = 0; i < TEST_COUNT(cases); i++)
    if (strcmp(cases[i].why, why) == 0) return &cases[i];
  abort();
}

static void add(void) {
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
      if (device->slow && !cases[i].fast) continue;
      test_add(device, test_lengths, &cases[i], "lengths, %s", cases[i].why);
      test_add(device, test_outputs, &cases[i], "outputs, %s", cases[i].why);
    }
    test_add(device, test_fork, &cases[1], "forked states");
    test_add(device, test_steps, &cases[1], "steps of states in turn");
    test_add(device, test_steps, &cases[5], "steps of states in turn, mixed layers");
    test_add(device, test_parts, &cases[1], "a run in parts");
    test_add(device, test_state_file, &cases[1], "state file");
    test_add(device, test_growing, case_named("ragged, attention"), "states that grow");
    test_add(device, test_bad_arguments, &cases[1], "bad arguments");
    test_add(device, test_scores, NULL, "scores");
    test_add(device, test_choices, NULL, "choices");
  }
}

int main(void) { return test_main("run", add); }
