/* Checkpoints that transformers, torch and the original package wrote (tests/fixtures/make_models.py,
 * make_reference.py), and what these compute from them:
 * logits and hidden states in one pass, logits step by step, the greedy continuation; and again with weights held in
 * 16 bits. */
#include "cmocka_all.h"
#include "core/dtype.h"
#include "core/tensor_list.h"
#include "devices.h"
#include "files/npy.h"
#include "files/safetensors.h"
#include "folder.h"
#include "model/model.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPT = 8, LENGTH = 72 };

/* bf16 weights are compared with transformers' f32 arithmetic at 1e-4, and with its bf16 arithmetic, which rounds
 * every activation, at these: of the root mean square of the logits, and of the largest for any single one
 * (transformers' own f32 is 1.5e-2 and 2.9e-2 away). */
#define BF16_RMS     2e-2
#define BF16_LARGEST 3e-2

typedef struct fixture {
  const char *name;
  clm_weights_type stored;
  bool falcon;
  const char *file; /* of the folder; NULL: the folder */
} fixture;

static const fixture fixtures[] = {
    {"mamba", CLM_WEIGHTS_F32, false, NULL},
    {"mamba-state8-conv3-untied", CLM_WEIGHTS_F32, false, NULL},
    {"mamba-state64-bias", CLM_WEIGHTS_F32, false, NULL},
    {"mamba-noconvbias-rank5", CLM_WEIGHTS_F32, false, NULL},
    {"mamba-sharded-f16", CLM_WEIGHTS_F16, false, NULL},
    {"mamba-bf16", CLM_WEIGHTS_BF16, false, NULL},
    {"falcon", CLM_WEIGHTS_F32, true, NULL},
    {"falcon-state8-tied-bf16", CLM_WEIGHTS_BF16, true, NULL},
    {"original", CLM_WEIGHTS_F32, false, NULL},
    {"original-f16-safetensors", CLM_WEIGHTS_F16, false, NULL},
    {"original-layernorm", CLM_WEIGHTS_F32, false, NULL},
    {"mamba-inner40-head", CLM_WEIGHTS_F32, false, NULL},
    {"mamba2", CLM_WEIGHTS_F32, false, NULL},
    {"mamba2-groups2-bias-untied", CLM_WEIGHTS_F32, false, NULL},
    {"mamba2-groups4-bias", CLM_WEIGHTS_F32, false, NULL},
    {"mamba2-groups8-noconvbias", CLM_WEIGHTS_F32, false, NULL},
    {"mamba2-head80", CLM_WEIGHTS_F32, false, NULL},
    {"mamba2-head20-expand1", CLM_WEIGHTS_F32, false, NULL},
    {"mamba2-limit", CLM_WEIGHTS_F32, false, NULL},
    {"mamba2-bf16", CLM_WEIGHTS_BF16, false, NULL},
    {"mamba2-codestral", CLM_WEIGHTS_F32, false, NULL},
    {"original2", CLM_WEIGHTS_F32, false, NULL},
    {"original2-before-hdim", CLM_WEIGHTS_F32, false, NULL},
    {"original2-nonorm-mlp", CLM_WEIGHTS_F32, false, NULL},
    {"original-mlp", CLM_WEIGHTS_F32, false, NULL},
    {"original2-mlp", CLM_WEIGHTS_F32, false, NULL},
    {"bamba", CLM_WEIGHTS_F32, false, NULL},
    {"bamba-tied-groups2-bias", CLM_WEIGHTS_F32, false, NULL},
    {"bamba-head80-theta", CLM_WEIGHTS_F32, false, NULL},
    {"falcon-h1", CLM_WEIGHTS_F32, false, NULL},
    {"falcon-h1-tied-norm", CLM_WEIGHTS_F32, false, NULL},
    {"falcon-h1-before-bias", CLM_WEIGHTS_F32, false, NULL},
    {"nemotron-h-bf16", CLM_WEIGHTS_BF16, false, NULL},
    {"nemotron-h", CLM_WEIGHTS_F32, false, NULL},
    {"nemotron-h-head80-bias", CLM_WEIGHTS_F32, false, NULL},
    {"nemotron-h-experts", CLM_WEIGHTS_F32, false, NULL},
    {"nemotron-h-latent", CLM_WEIGHTS_F32, false, NULL},
    {"jamba-mamba", CLM_WEIGHTS_F32, false, NULL},
    {"jamba", CLM_WEIGHTS_F32, false, NULL},
    {"jamba-dense-bias-tied", CLM_WEIGHTS_F32, false, NULL},
    {"granite-mamba", CLM_WEIGHTS_F32, false, NULL},
    {"granite-experts", CLM_WEIGHTS_F32, false, NULL},
    {"granite-dense-rope-bias", CLM_WEIGHTS_F32, false, NULL},
    {"mamba", CLM_WEIGHTS_F32, false, "model.gguf"},
    {"mamba-state8-conv3-untied", CLM_WEIGHTS_F32, false, "model.gguf"},
    {"mamba2", CLM_WEIGHTS_F32, false, "model.gguf"},
    {"mamba2-groups2-bias-untied", CLM_WEIGHTS_F32, false, "model.gguf"},
};

static void check(clm_context *context, clm_status status, const char *what) {
  if (status) fail_msg("%s: %s: %s", what, clm_status_string(status), clm_context_error(context));
}
#define CHECK(call) check(context, call, #call)

/* ---- What the fixture says ---- */

static npy_array open_array(const fixture *f, const char *name) {
  char path[512], error[NPY_ERROR_BYTES];
  npy_array array;
  snprintf(path, sizeof path, "%s/%s/%s", FIXTURES, f->name, name);
  if (npy_open(path, &array, error)) fail_msg("%s", error);
  return array;
}

static float *floats(const fixture *f, const char *name, size_t *count) {
  npy_array array = open_array(f, name);
  float *values = malloc(array.count * sizeof *values);
  npy_read_f32(&array, 0, array.count, values);
  *count = array.count;
  npy_close(&array);
  return values;
}

static void read_ids(const fixture *f, const char *name, int32_t ids[LENGTH]) {
  char error[NPY_ERROR_BYTES];
  npy_array array = open_array(f, name);
  assert_int_equal(array.count, LENGTH);
  assert_int_equal(npy_read_i32(&array, name, 0, LENGTH, ids, error), CLM_OK);
  npy_close(&array);
}

/* |got - want| <= tolerance * max |want| */
static void compare(const char *what, const float *got, const float *want, size_t count, double tolerance) {
  double most = 0;
  for (size_t i = 0; i < count; i++) most = fmax(most, fabs((double)want[i]));
  for (size_t i = 0; i < count; i++)
    if (!(fabs((double)got[i] - (double)want[i]) <= tolerance * most))
      fail_msg("%s: element %zu is %.9g, expected %.9g (largest %.3g)", what, i, (double)got[i], (double)want[i],
               most);
}

/* |got - want| <= tolerance * |want|, as Euclidean norms */
static void compare_rms(const char *what, const float *got, const float *want, size_t count, double tolerance) {
  double difference = 0, all = 0;
  for (size_t i = 0; i < count; i++) {
    difference += ((double)got[i] - (double)want[i]) * ((double)got[i] - (double)want[i]);
    all += (double)want[i] * (double)want[i];
  }
  if (!(sqrt(difference) <= tolerance * sqrt(all)))
    fail_msg("%s: off by %.3g of their root mean square", what, sqrt(difference / all));
}

static clm_dtype dtype_of(clm_weights_type type) {
  return type == CLM_WEIGHTS_F16 ? CLM_F16 : type == CLM_WEIGHTS_BF16 ? CLM_BF16 : CLM_F32;
}

/* ---- A model and the memory that its passes use ---- */

typedef struct session {
  const fixture *fixture;
  clm_context *context;
  clm_model *model;
  clm_buffer *buffer;
  clm_tensor ids, logits, hidden, step_ids, step_logits;
  int64_t vocab, d_model, n_layer;
} session;

static clm_model *load(const fixture *f, clm_context *context, clm_weights_type weights) {
  char path[512];
  clm_model *model;
  snprintf(path, sizeof path, "%s/%s/%s", FIXTURES, f->name, f->file ? f->file : "");
  CHECK(clm_model_load_with(context, path, &(clm_model_load_options){.weights = weights}, &model));
  return model;
}

static size_t lay_out(session *s) {
  size_t at = 0;
  s->ids = tensor_place(s->buffer, &at, CLM_I32, 2, (int64_t[]){1, LENGTH});
  s->logits = tensor_place(s->buffer, &at, CLM_F32, 3, (int64_t[]){1, LENGTH, s->vocab});
  s->hidden = tensor_place(s->buffer, &at, CLM_F32, 4, (int64_t[]){s->n_layer + 1, 1, LENGTH, s->d_model});
  s->step_ids = tensor_place(s->buffer, &at, CLM_I32, 2, (int64_t[]){1, PROMPT});
  s->step_logits = tensor_place(s->buffer, &at, CLM_F32, 2, (int64_t[]){1, s->vocab});
  return at;
}

static session begin(const fixture *f, clm_context *context, clm_weights_type weights) {
  session s = {.fixture = f, .context = context, .model = load(f, context, weights)};
  const clm_model_config *c = clm_model_configuration(s.model);
  assert_int_equal(c->mixer_norm && !c->mixer_norm_weights, f->falcon);
  s.vocab = c->vocab_size;
  s.d_model = c->d_model;
  s.n_layer = c->n_layer;
  CHECK(clm_buffer_create(context, lay_out(&s), &s.buffer));
  lay_out(&s);
  return s;
}

static void end(session *s) {
  clm_buffer_destroy(&s->buffer);
  clm_model_destroy(&s->model);
}

static float *read_all(clm_context *context, clm_tensor t) {
  size_t size = (size_t)clm_tensor_count(t) * sizeof(float);
  float *values = malloc(size);
  CHECK(clm_tensor_read(t, values, size));
  return values;
}

static void poison(clm_context *context, clm_tensor t) {
  size_t count = (size_t)clm_tensor_count(t);
  float *values = malloc(count * sizeof *values);
  for (size_t i = 0; i < count; i++) values[i] = (float)NAN;
  CHECK(clm_tensor_write(t, values, count * sizeof *values));
  free(values);
}

/* ---- Tests ---- */

/* Logits of every position, and the hidden states in s->hidden. */
static float *run(session *s) {
  clm_context *context = s->context;
  int32_t ids[LENGTH];
  read_ids(s->fixture, "ids.npy", ids);
  CHECK(clm_tensor_write(s->ids, ids, sizeof ids));
  poison(context, s->logits);
  poison(context, s->hidden);
  CHECK(clm_model_run(s->model, &(clm_model_run_args){.ids = s->ids, .logits = s->logits, .hidden = s->hidden}));
  return read_all(context, s->logits);
}

static void compare_bf16(session *s) {
  size_t count;
  float *got = run(s), *want = floats(s->fixture, "logits_bf16.npy", &count);
  assert_int_equal(count, clm_tensor_count(s->logits));
  compare("logits", got, want, count, BF16_LARGEST);
  compare_rms("logits", got, want, count, BF16_RMS);
  free(got);
  free(want);
}

static void compare_run(session *s, double tolerance) {
  size_t count;
  float *got = run(s), *want = floats(s->fixture, "logits.npy", &count);
  assert_int_equal(count, clm_tensor_count(s->logits));
  compare("logits", got, want, count, tolerance);
  free(got);
  free(want);
  got = read_all(s->context, s->hidden);
  want = floats(s->fixture, "hidden.npy", &count);
  assert_int_equal(count, clm_tensor_count(s->hidden));
  const size_t layer = count / (size_t)(s->n_layer + 1);
  for (int64_t i = 0; i <= s->n_layer; i++) {
    char what[40];
    snprintf(what, sizeof what, "hidden states %d", (int)i);
    compare(what, got + (size_t)i * layer, want + (size_t)i * layer, layer, tolerance);
  }
  free(got);
  free(want);
}

/* The logits after the prompt, then after each of the tokens that follow. `ids` gives them; those that the model
 * finds most likely go to `greedy`. */
static void walk(session *s, const int32_t ids[LENGTH], bool follow, const float *want, int32_t greedy[LENGTH]) {
  clm_context *context = s->context;
  clm_model_state *state;
  CHECK(clm_model_state_create(s->model, 1, &state));
  memcpy(greedy, ids, PROMPT * sizeof *ids);
  for (int at = PROMPT; at < LENGTH; at++) {
    poison(context, s->step_logits);
    if (at == PROMPT) {
      CHECK(clm_tensor_write(s->step_ids, ids, PROMPT * sizeof *ids));
      CHECK(clm_model_prefill(s->model, state, s->step_ids, NULL, s->step_logits));
    } else {
      clm_tensor one = clm_tensor_of(s->step_ids.buffer, s->step_ids.offset, CLM_I32, 1, (int64_t[]){1});
      CHECK(clm_tensor_write(one, follow ? &greedy[at - 1] : &ids[at - 1], sizeof *ids));
      CHECK(clm_model_decode(s->model, state, one, s->step_logits));
    }
    float *got = read_all(context, s->step_logits);
    char what[40];
    snprintf(what, sizeof what, "logits after %d tokens", at);
    if (want) compare(what, got, want + (size_t)(at - 1) * (size_t)s->vocab, (size_t)s->vocab, 1e-4);
    greedy[at] = 0;
    for (int64_t i = 1; i < s->vocab; i++)
      if (got[i] > got[greedy[at]]) greedy[at] = (int32_t)i;
    free(got);
  }
  clm_model_state_destroy(&state);
}

static void test_logits(const test_device *device, const void *data) {
  const fixture *f = data;
  session s = begin(f, device->context, CLM_WEIGHTS_F32);
  compare_run(&s, 1e-4);
  end(&s);
}

static void test_steps(const test_device *device, const void *data) {
  const fixture *f = data;
  session s = begin(f, device->context, CLM_WEIGHTS_F32);
  int32_t ids[LENGTH], want[LENGTH], got[LENGTH];
  size_t count;
  float *logits = floats(f, "logits.npy", &count);
  read_ids(f, "ids.npy", ids);
  walk(&s, ids, false, logits, got);
  read_ids(f, "greedy.npy", want);
  walk(&s, want, true, NULL, got);
  assert_memory_equal(got, want, sizeof got);
  free(logits);
  end(&s);
}

/* As stored, the weights are the very same numbers. */
static void test_as_stored(const test_device *device, const void *data) {
  const fixture *f = data;
  session s = begin(f, device->context, CLM_WEIGHTS_AS_STORED);
  clm_context *context = device->context;
  for (int64_t i = 0; i < clm_model_tensor_count(s.model); i++) {
    clm_parameter p;
    CHECK(clm_model_tensor(s.model, i, &p));
    if (strstr(p.name, "_proj.weight")) assert_int_equal(p.tensor.dtype, dtype_of(f->stored));
    if (strstr(p.name, "A_log")) assert_int_equal(p.tensor.dtype, CLM_F32);
  }
  compare_run(&s, 1e-4);
  if (f->stored == CLM_WEIGHTS_BF16) compare_bf16(&s);
  end(&s);
}

/* Integers that are to nearest of what they were made of, the largest magnitude of each row 127; and the numbers that
 * they stand for. */
static void exchange_integers(clm_context *context, const weight *w, clm_tensor integers, clm_tensor scales,
                              float *values) {
  const size_t rows = (size_t)w->shape[0], columns = w->count / rows;
  int8_t *q = malloc(w->count);
  float *scale = read_all(context, scales);
  assert_int_equal(clm_tensor_count(scales), rows);
  CHECK(clm_tensor_read(integers, q, w->count));
  for (size_t i = 0; i < rows; i++) {
    int most = 0;
    for (size_t k = i * columns; k < (i + 1) * columns; k++) {
      const double want = (double)values[k] / (double)scale[i];
      if (!(fabs((double)q[k] - want) <= 0.50001))
        fail_msg("%g is held as %d times %g", (double)values[k], q[k], (double)scale[i]);
      most = abs(q[k]) > most ? abs(q[k]) : most;
      values[k] = scale[i] * (float)q[k];
    }
    assert_int_equal(most, 127);
  }
  free(scale);
  free(q);
}

static void exchange_16bit(clm_context *context, const weight *w, clm_tensor narrow, float *values) {
  uint16_t *bits = malloc(w->count * sizeof *bits);
  CHECK(clm_tensor_read(narrow, bits, w->count * sizeof *bits));
  for (size_t k = 0; k < w->count; k++) {
    assert_int_equal(bits[k], w->dtype == CLM_F16 ? dtype_to_f16(values[k]) : dtype_to_bf16(values[k]));
    values[k] = w->dtype == CLM_F16 ? dtype_from_f16(bits[k]) : dtype_from_bf16(bits[k]);
  }
  free(bits);
}

/* The parameters of `from`, whose matrices are 16-bit or i8, go into `to`, which is f32 and holds what they were
 * rounded from. */
static void exchange(session *from, session *to) {
  clm_context *context = from->context;
  const weights_layout *l = &from->model->layout;
  int matrices = 0;
  for (size_t i = 0; i < l->item_count; i++) {
    const weight *w = &l->items[i];
    if (w->dtype == CLM_F32) continue;
    matrices++;
    char name[WEIGHT_NAME_MAX + 8];
    clm_tensor held, exact, scales;
    weights_name(w, name);
    CHECK(clm_model_parameter(from->model, name, &held));
    CHECK(clm_model_parameter(to->model, name, &exact));
    float *values = read_all(context, exact);
    if (w->dtype == CLM_I8) {
      strcat(name, "_scale");
      CHECK(clm_model_parameter(from->model, name, &scales));
      exchange_integers(context, w, held, scales, values);
    } else exchange_16bit(context, w, held, values);
    CHECK(clm_tensor_write(exact, values, w->count * sizeof *values));
    free(values);
  }
  const clm_model_config *c = clm_model_configuration(from->model);
  const int of_layer = c->layers ? 2 : 4; /* Mamba-2 has in_proj and out_proj, Mamba-1 x_proj and dt_proj too */
  assert_int_equal(matrices, 1 + c->untied_head + of_layer * c->n_layer);
}

/* Held in 16 bits or as int8, each matrix is rounded once, and gives what the rounded numbers give in f32. */
static void test_16bit(const test_device *device, const void *data) {
  static const clm_weights_type types[] = {CLM_WEIGHTS_F16, CLM_WEIGHTS_BF16, CLM_WEIGHTS_INT8};
  const fixture *f = data;
  clm_context *context = device->context;
  for (size_t t = 0; t < TEST_COUNT(types); t++) {
    session narrow = begin(f, context, types[t]), exact = begin(f, context, CLM_WEIGHTS_F32);
    exchange(&narrow, &exact);
    float *got = run(&narrow), *want = run(&exact);
    const bool integers = types[t] == CLM_WEIGHTS_INT8 && strcmp(device->id, "avx512vnni") == 0;
    compare("logits", got, want, (size_t)clm_tensor_count(exact.logits), integers ? 1e-3 : 1e-5);
    free(got);
    free(want);
    end(&narrow);
    end(&exact);
  }
}

/* What holding the matrices otherwise costs: nats per token of the fixture's own continuation, window by window and
 * with the state carried step by step, next to those of f32. */
static void test_perplexity(const test_device *device, const void *data) {
  static const struct {
    clm_weights_type type;
    double most; /* |difference| in nats per token */
  } costs[] = {{CLM_WEIGHTS_F16, 2e-3}, {CLM_WEIGHTS_BF16, 1e-2}, {CLM_WEIGHTS_INT8, 2e-2}};
  const fixture *f = data;
  clm_context *context = device->context;
  int32_t ids[LENGTH];
  read_ids(f, "greedy.npy", ids);
  for (int carry = 0; carry < 2; carry++) {
    const clm_score_options how = {.carry = carry, .window = carry ? 0 : 16};
    double exact = 0, loss;
    for (size_t i = 0; i <= TEST_COUNT(costs); i++) {
      clm_model *model = load(f, context, i ? costs[i - 1].type : CLM_WEIGHTS_F32);
      const char *layers = clm_model_configuration(model)->layers;
      if (i && costs[i - 1].type == CLM_WEIGHTS_INT8 && layers && strstr(layers, "moe(")) {
        clm_model_destroy(&model); /* what is rounded so may choose other experts */
        continue;
      }
      CHECK(clm_model_score(model, ids, LENGTH, &how, &loss));
      clm_model_destroy(&model);
      if (i == 0) exact = loss;
      else if (!(fabs(loss - exact) <= costs[i - 1].most))
        fail_msg("weights type %d: %.6f nats per token, %.6f in f32", costs[i - 1].type, loss, exact);
    }
  }
}

/* Training needs f32: a message, before anything is computed. */
static void test_no_gradients(const test_device *device, const void *data) {
  const fixture *f = data;
  session s = begin(f, device->context, CLM_WEIGHTS_BF16);
  clm_model_loss_args args = {.ids = s.ids, .targets = s.ids, .gradient = true};
  args.losses = clm_tensor_of(s.buffer, s.hidden.offset, CLM_F32, 2, s.ids.shape);
  assert_int_equal(clm_model_loss(s.model, &args), CLM_INVALID_ARGUMENT);
  assert_non_null(strstr(clm_context_error(s.context), "held as f32"));
  end(&s);
}

/* The gradients of the mean cross-entropy of the text, each token's target the next, the last's the first: as they
 * stand in a checkpoint of the same model. */
static void test_gradients(const test_device *device, const void *data) {
  const fixture *f = data;
  clm_context *context = device->context;
  session s = begin(f, context, CLM_WEIGHTS_F32);
  char path[512];
  clm_model *want;
  snprintf(path, sizeof path, "%s/%s/gradient", FIXTURES, f->name);
  CHECK(clm_model_load(context, path, &want));
  int32_t ids[LENGTH + 1];
  read_ids(f, "ids.npy", ids);
  ids[LENGTH] = ids[0];
  CHECK(clm_tensor_write(s.ids, ids, LENGTH * sizeof *ids));
  const clm_tensor targets = clm_tensor_of(s.buffer, s.logits.offset, CLM_I32, 2, s.ids.shape);
  CHECK(clm_tensor_write(targets, ids + 1, LENGTH * sizeof *ids));
  clm_model_loss_args args = {.ids = s.ids, .targets = targets, .gradient = true};
  args.losses = clm_tensor_of(s.buffer, s.hidden.offset, CLM_F32, 2, s.ids.shape);
  CHECK(clm_model_loss(s.model, &args));
  assert_int_equal(clm_model_tensor_count(want), clm_model_tensor_count(s.model));
  for (int64_t i = 0; i < clm_model_tensor_count(s.model); i++) {
    clm_parameter got, expected;
    CHECK(clm_model_tensor(s.model, i, &got));
    CHECK(clm_model_tensor(want, i, &expected));
    assert_string_equal(got.name, expected.name);
    float *have = read_all(context, got.gradient), *values = read_all(context, expected.tensor);
    compare(got.name, have, values, (size_t)clm_tensor_count(expected.tensor), 1e-4);
    free(have);
    free(values);
  }
  clm_model_destroy(&want);
  end(&s);
}

/* ---- Saved again ---- */

/* Every tensor of the fixture is in what is saved, with the same shape and bytes, and nothing else is. */
static void test_saved(const test_device *device, const void *data) {
  const fixture *f = data;
  char path[512];
  source had, has;
  clm_model *model = load(f, device->context, CLM_WEIGHTS_AS_STORED);
  clm_context *context = test_reference;
  check(device->context, clm_model_save(model, test_folder), "save");
  clm_model_destroy(&model);
  snprintf(path, sizeof path, "%s/%s/model.safetensors", FIXTURES, f->name);
  CHECK(safetensors_open(context, path, &had));
  CHECK(safetensors_open(context, in_folder("model.safetensors"), &has));
  assert_int_equal(has.count, had.count);
  for (size_t i = 0; i < had.count; i++) {
    const source_tensor *a = &had.tensors[i], *b = source_find(&has, a->name);
    void *values[2];
    if (!b) fail_msg("%s is not saved", a->name);
    assert_int_equal(b->dtype, a->dtype);
    assert_int_equal(b->rank, a->rank);
    assert_memory_equal(b->shape, a->shape, (size_t)a->rank * sizeof *a->shape);
    CHECK(source_read_all(context, a, &values[0]));
    CHECK(source_read_all(context, b, &values[1]));
    assert_memory_equal(values[1], values[0], a->bytes);
    free(values[0]);
    free(values[1]);
  }
  source_close(&had);
  source_close(&has);
  folder_empty();
}

/* What is saved of a family whose multipliers went into the weights gives the same, and is of the same family. */
static void test_saved_folded(const test_device *device, const void *data) {
  session s = begin(data, device->context, CLM_WEIGHTS_F32);
  clm_context *context = device->context;
  CHECK(clm_model_save(s.model, test_folder));
  clm_model_destroy(&s.model);
  CHECK(clm_model_load(context, test_folder, &s.model));
  compare_run(&s, 1e-4);
  bytes config = read_file("config.json");
  put(&config, "", 1);
  const char *type = strncmp(s.fixture->name, "granite", 7) == 0 ? "\"granitemoehybrid\"" : "\"falcon_h1\"";
  assert_non_null(strstr((const char *)config.data, type));
  bytes_release(&config);
  end(&s);
  folder_empty();
}

static const fixture *fixture_named(const char *name) {
  for (size_t i = 0; i < TEST_COUNT(fixtures); i++)
    if (strcmp(fixtures[i].name, name) == 0) return &fixtures[i];
  abort();
}

static void add(void) {
  static const char *const saved[] = {"mamba",

                                      "mamba-noconvbias-rank5",
                                      "falcon",
                                      "mamba2",
                                      "bamba",
                                      "bamba-tied-groups2-bias",
                                      "nemotron-h",
                                      "nemotron-h-head80-bias",

                                      "mamba2-groups2-bias-untied",
                                      "mamba2-groups4-bias",
                                      "mamba2-groups8-noconvbias",
                                      "mamba2-head80",
                                      "original2-before-hdim",
                                      "original2-nonorm-mlp",
                                      "original-mlp",
                                      "original2-mlp",
                                      "jamba-mamba",
                                      "jamba",
                                      "jamba-dense-bias-tied",
                                      "granite-mamba",
                                      "nemotron-h-experts",
                                      "nemotron-h-latent"};
  static const char *const folded[] = {"falcon-h1", "falcon-h1-tied-norm", "falcon-h1-before-bias", "granite-experts",
                                       "granite-dense-rope-bias"};
  for (size_t i = 0; i < TEST_COUNT(folded); i++)
    test_add(&test_devices[0], test_saved_folded, fixture_named(folded[i]), "saved again, %s", folded[i]);
  static const char *const learning[] = {"original-mlp", "original2-mlp"};
  for (size_t d = 0; d < test_device_count; d++)
    for (size_t i = 0; i < TEST_COUNT(learning); i++)
      test_add(&test_devices[d], test_gradients, fixture_named(learning[i]), "gradients, %s", learning[i]);
  for (size_t i = 0; i < TEST_COUNT(saved); i++)
    test_add(&test_devices[0], test_saved, fixture_named(saved[i]), "saved again, %s", saved[i]);

  for (size_t d = 0; d < test_device_count; d++)
    for (size_t i = 0; i < TEST_COUNT(fixtures); i++) {
      const test_device *device = &test_devices[d];
      const char *file = fixtures[i].file ? fixtures[i].file : "";
      test_add(device, test_logits, &fixtures[i], "logits and hidden states, %s %s", fixtures[i].name, file);
      if (*file) continue; /* the same model otherwise */
      test_add(device, test_steps, &fixtures[i], "step by step, %s", fixtures[i].name);
      test_add(device, test_as_stored, &fixtures[i], "weights as stored, %s", fixtures[i].name);
      if (i == 1 || fixtures[i].falcon || strcmp(fixtures[i].name, "mamba2-groups2-bias-untied") == 0)
        test_add(device, test_16bit, &fixtures[i], "weights in 16 bits and int8, %s", fixtures[i].name);
      if (!device->opencl || i == 0)
        test_add(device, test_perplexity, &fixtures[i], "perplexity, %s", fixtures[i].name);
    }
  test_add(&test_devices[0], test_no_gradients, &fixtures[0], "no gradients of 16-bit weights");
}

int main(void) {
  if (!folder_make()) return EXIT_FAILURE;
  const int status = test_main("fixtures", add);
  return folder_remove() ? status : EXIT_FAILURE;
}
