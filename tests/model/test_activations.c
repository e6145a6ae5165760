/* Models whose activations are in 16 bits, against themselves in f32: logits of whole, packed and generated
 * sequences, states, gradients. */
#include "cmocka_all.h"
#include "devices.h"
#include "floats.h"
#include "folder.h"
#include "model/model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(context, call) floats_check(context, call, #call)

enum { BATCH = 2, LENGTH = 19, PREFILL = 13, SHORT = 7, VOCAB = 11, D_MODEL = 16, LAYERS = 2 };

#define LIVELY                                                                                                       \
  .vocab_size = VOCAB, .d_model = D_MODEL, .n_layer = LAYERS, .d_state = 4, .dt_min = 0.05f, .dt_max = 1.0f,         \
  .embedding_range = 0.5f

typedef struct activation_case {
  const char *why;
  clm_model_config config;
} activation_case;

static const activation_case cases[] = {
    {"Mamba-1", {LIVELY}},
    {"Mamba-1, norms, biases", {LIVELY, .mixer_norm = true, .mixer_norm_epsilon = 0.05f, .projection_bias = true}},
    {"Mamba-1, no convolution, LayerNorm, a head of its own",
     {LIVELY, .d_conv = 1, .untied_head = true, .layer_norm = true}},
    {"Mamba-2, groups, an MLP in parallel",
     {LIVELY, .layers = "mamba2", .d_inner = 24, .head_dim = 6, .n_groups = 2, .d_mlp = 8}},
    {"Mamba-2, limits, without a norm",
     {LIVELY, .layers = "mamba2", .head_dim = 8, .no_gated_norm = true, .dt_limit_low = 0.1f}},
    {"MLPs without gates, with biases",
     {LIVELY, .layers = "mlp(width=24,activation=relu2,plain=1,bias=1) mlp(width=12,activation=gelu)"}},
    {"experts", {LIVELY, .layers = "mamba1 moe(experts=4,chosen=2,width=8,normalize=1)+mlp(width=9)"}},
    {"attention, rotated, norms, beside Mamba-2",
     {LIVELY, .layers = "mamba2+attention attention", .head_dim = 8, .kv_heads = 1, .attention_head_dim = 6,
      .rope_theta = 100, .qk_norm = true}},
    {"mixed and parallel layers, scaled",
     {LIVELY, .layers = "mamba1+mlp(width=24) mamba2+mlp(width=12)", .residual_scale = 0.5f}},
};

/* How far from f32 a dtype may be, of the largest number. */
static const struct {
  clm_dtype dtype;
  double logits, gradients; /* gradients: of a parameter as a whole */
  float loss_scale;
} dtypes[] = {{CLM_BF16, 2e-2, 5e-2, 0}, {CLM_F16, 3e-3, 1e-2, 1024}};

typedef struct fixture {
  clm_context *context;
  clm_model *model;
  clm_buffer *buffer;
  clm_tensor ids, targets, losses, logits, last, hidden, mean, token;
} fixture;

static fixture fixture_make(clm_context *context, const clm_model_config *config) {
  fixture f = {.context = context};
  size_t used = 0;
  int32_t ids[BATCH * LENGTH];
  for (int i = 0; i < BATCH * LENGTH; i++) ids[i] = (i * i + 3 * i) % VOCAB;
  for (int pass = 0; pass < 2; pass++, used = 0) {
#define PLACE(dtype, rank, ...) tensor_place(f.buffer, &used, dtype, rank, (int64_t[]){__VA_ARGS__})
    f.ids = PLACE(CLM_I32, 2, BATCH, LENGTH);
    f.targets = PLACE(CLM_I32, 2, BATCH, LENGTH);
    f.losses = PLACE(CLM_F32, 2, BATCH, LENGTH);
    f.logits = PLACE(CLM_F32, 3, BATCH, LENGTH, VOCAB);
    f.last = PLACE(CLM_F32, 2, BATCH, VOCAB);
    f.hidden = PLACE(CLM_F32, 4, LAYERS + 1, BATCH, LENGTH, D_MODEL);
    f.mean = PLACE(CLM_F32, 2, BATCH, D_MODEL);
    f.token = PLACE(CLM_I32, 1, BATCH);
#undef PLACE
    if (pass == 0) CHECK(context, clm_buffer_create(context, used, &f.buffer));
  }
  CHECK(context, clm_model_create(context, config, 5, &f.model));
  CHECK(context, clm_tensor_write(f.ids, ids, sizeof ids));
  for (int i = 0; i < BATCH * LENGTH; i++) ids[i] = (ids[i] * 3 + i) % VOCAB;
  CHECK(context, clm_tensor_write(f.targets, ids, sizeof ids));
  CHECK(context, clm_tensor_write(f.token, ids, BATCH * sizeof *ids));
  return f;
}

static void fixture_free(fixture *f) {
  clm_model_destroy(&f->model);
  clm_buffer_destroy(&f->buffer);
}

/* Within `tolerance` of the largest, and not the same. */
static void compare(const char *what, const float *got, const float *want, size_t count, double tolerance) {
  double largest = 0;
  for (size_t i = 0; i < count; i++) largest = fmax(largest, fabs((double)want[i]));
  for (size_t i = 0; i < count; i++)
    if (!(fabs((double)got[i] - (double)want[i]) <= tolerance * largest))
      fail_msg("%s: element %zu is %g, in f32 %g, the largest is %g", what, i, (double)got[i], (double)want[i],
               largest);
  assert_memory_not_equal(got, want, count * sizeof *got);
}

/* ---- Logits ---- */

enum { FORWARD, PACKED, HIDDEN, MEAN, LAST, STEPS, RESULTS };

static const struct {
  const char *what;
  size_t count; /* that are written, from the first on */
} kinds[RESULTS] = {{"logits", BATCH *LENGTH *VOCAB},    {"logits of packed sequences", SHORT *VOCAB},
                    {"hidden states", SHORT *D_MODEL},   {"mean hidden states", BATCH *D_MODEL},
                    {"logits at the end", BATCH *VOCAB}, {"logits after steps", BATCH *VOCAB}};

typedef struct results {
  float *values[RESULTS];
} results;

static void results_free(results *r) {
  for (int i = 0; i < RESULTS; i++) free(r->values[i]);
}

static results run(const fixture *f) {
  results r;
  const int64_t lengths[BATCH] = {SHORT, LENGTH};
  clm_model_state *state;
  CHECK(f->context, clm_model_forward(f->model, f->ids, f->logits));
  r.values[FORWARD] = floats_read(f->context, f->logits);
  CHECK(f->context, clm_model_run(f->model, &(clm_model_run_args){.ids = f->ids,
                                                                  .lengths = lengths,
                                                                  .logits = f->logits,
                                                                  .last_logits = f->last,
                                                                  .hidden = f->hidden,
                                                                  .mean_hidden = f->mean}));
  r.values[PACKED] = floats_read(f->context, f->logits);
  r.values[HIDDEN] = floats_read(f->context, f->hidden);
  r.values[MEAN] = floats_read(f->context, f->mean);
  r.values[LAST] = floats_read(f->context, f->last);
  CHECK(f->context, clm_model_state_create(f->model, BATCH, &state));
  CHECK(f->context, clm_model_prefill(f->model, state, f->ids, NULL, f->last));
  for (int i = 0; i < 3; i++) CHECK(f->context, clm_model_decode(f->model, state, f->token, f->last));
  r.values[STEPS] = floats_read(f->context, f->last);
  clm_model_state_destroy(&state);
  return r;
}

static void compare_results(const results *got, const results *want, double tolerance) {
  for (int i = 0; i < RESULTS; i++)
    compare(kinds[i].what, got->values[i], want->values[i], kinds[i].count, tolerance);
}

static void test_logits(const test_device *device, const void *data) {
  const activation_case *c = data;
  fixture f = fixture_make(device->context, &c->config);
  results want = run(&f);
  for (size_t i = 0; i < (device->slow ? 1 : TEST_COUNT(dtypes)); i++) {
    CHECK(f.context, clm_model_set_activations(f.model, dtypes[i].dtype));
    results got = run(&f);
    compare_results(&got, &want, dtypes[i].logits);
    results_free(&got);
  }
  CHECK(f.context, clm_model_set_activations(f.model, CLM_F32));
  results again = run(&f);
  for (int i = 0; i < RESULTS; i++)
    assert_memory_equal(again.values[i], want.values[i], kinds[i].count * sizeof(float));
  results_free(&again);
  results_free(&want);
  fixture_free(&f);
}

/* ---- Gradients ---- */

static float *gradients_of(const fixture *f, float loss_scale) {
  CHECK(f->context, clm_model_loss(f->model, &(clm_model_loss_args){.ids = f->ids,
                                                                    .targets = f->targets,
                                                                    .losses = f->losses,
                                                                    .gradient = true,
                                                                    .dropout = 0.1f,
                                                                    .seed = 3,
                                                                    .loss_scale = loss_scale}));
  const int64_t total = (int64_t)f->model->layout.total;
  return floats_read(f->context, clm_tensor_of(f->model->gradients, 0, CLM_F32, 1, &total));
}

static double norm_of(const float *x, const float *minus, double scale, size_t count) {
  double sum = 0;
  for (size_t i = 0; i < count; i++) {
    const double d = (double)x[i] / scale - (minus ? (double)minus[i] : 0);
    sum += d * d;
  }
  return sqrt(sum);
}

/* Every parameter's gradient as a whole, the losses, and that a scale of the loss scales the gradients alone. */
static void test_gradients(const test_device *device, const void *data) {
  const activation_case *c = data;
  fixture f = fixture_make(device->context, &c->config);
  const weights_layout *l = &f.model->layout;
  float *want = gradients_of(&f, 0), *losses = floats_read(f.context, f.losses);
  const double least = 1e-3 * norm_of(want, NULL, 1, l->total);
  for (size_t i = 0; i < TEST_COUNT(dtypes); i++) {
    CHECK(f.context, clm_model_set_activations(f.model, dtypes[i].dtype));
    const float scale = dtypes[i].loss_scale;
    float *got = gradients_of(&f, scale), *got_losses = floats_read(f.context, f.losses);
    compare("losses", got_losses, losses, BATCH * LENGTH, dtypes[i].logits);
    for (size_t w = 0; w < l->item_count; w++) {
      char name[WEIGHT_NAME_MAX];
      const size_t at = l->items[w].offset, count = l->items[w].count;
      const double size = norm_of(want + at, NULL, 1, count),
                   apart = norm_of(got + at, want + at, scale > 0 ? (double)scale : 1, count);
      weights_name(&l->items[w], name);
      if (!(apart <= dtypes[i].gradients * size + least))
        fail_msg("%s in %s: the gradient of norm %g is off by %g", name, clm_dtype_name(dtypes[i].dtype), size,
                 apart);
    }
    free(got);
    free(got_losses);
  }
  free(want);
  free(losses);
  fixture_free(&f);
}

/* ---- Files ---- */

/* Weights of any type with activations in bf16. */
static void test_weights(const test_device *device, const void *data) {
  const activation_case *c = data;
  fixture f = fixture_make(device->context, &c->config);
  CHECK(f.context, clm_model_save(f.model, test_folder));
  results want = run(&f);
  for (int type = CLM_WEIGHTS_F32; type <= CLM_WEIGHTS_INT8; type++) {
    fixture loaded = f;
    const clm_model_load_options options = {.weights = (clm_weights_type)type, .activations = CLM_BF16};
    CHECK(f.context, clm_model_load_with(f.context, test_folder, &options, &loaded.model));
    results got = run(&loaded);
    compare_results(&got, &want, type == CLM_WEIGHTS_INT8 ? 5e-2 : 3e-2);
    results_free(&got);
    clm_model_destroy(&loaded.model);
  }
  results_free(&want);
  fixture_free(&f);
  folder_empty();
}

static float *step(const fixture *f, clm_model *model, clm_model_state *state) {
  CHECK(f->context, clm_model_decode(model, state, f->token, f->last));
  clm_model_state_destroy(&state);
  return floats_read(f->context, f->last);
}

/* A state is f32 whatever the activations are: its file goes on under all of them. */
static void test_state_file(const test_device *device, const void *data) {
  const activation_case *c = data;
  fixture f = fixture_make(device->context, &c->config);
  clm_model *model;
  clm_model_state *state, *restored;
  CHECK(f.context, clm_model_save(f.model, test_folder));
  const clm_model_load_options options = {.activations = CLM_BF16};
  CHECK(f.context, clm_model_load_with(f.context, test_folder, &options, &model));
  CHECK(f.context, clm_model_state_create(model, BATCH, &state));
  CHECK(f.context, clm_model_prefill(model, state, f.ids, NULL, f.last));
  CHECK(f.context, clm_model_state_save(state, in_folder("state")));
  float *unbroken = step(&f, model, state);
  CHECK(f.context, clm_model_state_load(model, in_folder("state"), &restored));
  float *restarted = step(&f, model, restored);
  assert_memory_equal(restarted, unbroken, BATCH * VOCAB * sizeof *unbroken);
  CHECK(f.context, clm_model_state_load(f.model, in_folder("state"), &restored));
  float *full = step(&f, f.model, restored);
  compare("logits after a step in f32", unbroken, full, BATCH * VOCAB, 2e-2);
  free(unbroken);
  free(restarted);
  free(full);
  clm_model_destroy(&model);
  fixture_free(&f);
  folder_empty();
}

static void test_bad(const test_device *device, const void *data) {
  (void)device, (void)data;
  fixture f = fixture_make(test_reference, &cases[0].config);
  clm_model *loaded;
  CHECK(f.context, clm_model_save(f.model, test_folder));
  const clm_model_load_options options = {.activations = CLM_I32};
  expect_failure(f.context, clm_model_load_with(f.context, test_folder, &options, &loaded), CLM_INVALID_ARGUMENT,
                 "model_load: activations is i32, expected f32, f16 or bf16");
  assert_null(loaded);
  expect_failure(f.context, clm_model_set_activations(f.model, CLM_F64), CLM_INVALID_ARGUMENT,
                 "model_set_activations: activations is f64, expected f32, f16 or bf16");
  assert_int_equal(clm_model_set_activations(NULL, CLM_F32), CLM_INVALID_ARGUMENT);
  fixture_free(&f);
  folder_empty();
}

/* Where kernels take long to compile: a layer by itself, and one of every kind. */
static bool left_out(const test_device *device, size_t i) {
  return device->slow && i > 0 && i + 1 < TEST_COUNT(cases);
}

static void add(void) {
  test_add(NULL, test_bad, NULL, "activations: refused");
  for (size_t d = 0; d < test_device_count; d++)
    for (size_t i = 0; i < TEST_COUNT(cases); i++) {
      if (left_out(&test_devices[d], i)) continue;
      test_add(&test_devices[d], test_logits, &cases[i], "activations: logits, %s", cases[i].why);
      if (!(test_devices[d].slow && test_devices[d].opencl))
        test_add(&test_devices[d], test_gradients, &cases[i], "activations: gradients, %s", cases[i].why);
      if (i != 0 && i != 3) continue;
      test_add(&test_devices[d], test_state_file, &cases[i], "activations: state's file, %s", cases[i].why);
      if (!test_devices[d].slow)
        test_add(&test_devices[d], test_weights, &cases[i], "activations: weights, %s", cases[i].why);
    }
}

int main(void) {
  if (!folder_make()) return EXIT_FAILURE;
  const int status = test_main("activations", add);
  return folder_remove() ? status : EXIT_FAILURE;
}
