/* The language model on every device: against the reference, its decode against its forward pass, and the reference's
 * own gradients against differences of its loss. */
#include "cmocka_all.h"
#include "devices.h"
#include "floats.h"
#include "model/model.h"
#include "random.h"
#include "slopes.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct model_case {
  const char *why;
  clm_model_config config;
  int64_t batch, length, split; /* split: tokens in the first prefill */
  float dropout;
  bool fast; /* small enough for slow devices */
} model_case;

/* Steps and embeddings larger than usual, so that no gradient is lost in rounding. */
#define LIVELY_STEPS .dt_min = 0.05f, .dt_max = 1.0f
#define LIVELY       LIVELY_STEPS, .embedding_range = 0.5f

#define MAMBA2       .layers = "mamba2", LIVELY

static const model_case cases[] = {
    {"smallest",
     {.vocab_size = 2, .d_model = 1, .n_layer = 1, .d_state = 1, LIVELY_STEPS, .embedding_range = 3},
     1,
     2,
     1,
     0,
     true},
    {"usual", {.vocab_size = 13, .d_model = 24, .n_layer = 3, .d_state = 8, LIVELY}, 2, 37, 20, 0, true},
    {"biases, untied head, wide convolution",
     {.vocab_size = 7,
      .d_model = 20,
      .n_layer = 2,
      .d_state = 5,
      .d_conv = 6,
      .projection_bias = true,
      .untied_head = true,
      LIVELY},
     3,
     19,
     3,
     0,
     true},
    {"no convolution bias, width 1, expand 3, rank 5",
     {.vocab_size = 300,
      .d_model = 16,
      .n_layer = 2,
      .d_conv = 1,
      .expand = 3,
      .dt_rank = 5,
      .no_conv_bias = true,
      LIVELY},
     1,
     33,
     32,
     0,
     true},
    /* The norms scale small numbers up: with a large epsilon not so much that differences of the loss see a step. */
    {"FalconMamba's norms",
     {.vocab_size = 11,
      .d_model = 16,
      .n_layer = 2,
      .d_state = 4,
      .dt_rank = 6,
      .mixer_norm = true,
      .mixer_norm_epsilon = 0.05f,
      .untied_head = true,
      LIVELY},
     2,
     21,
     9,
     0,
     true},
    {"Jamba's norms",
     {.vocab_size = 11,
      .d_model = 16,
      .n_layer = 2,
      .d_state = 4,
      .dt_rank = 6,
      .mixer_norm = true,
      .mixer_norm_weights = true,
      .mixer_norm_epsilon = 0.05f,
      LIVELY},
     2,
     21,
     9,
     0,
     true},
    {"LayerNorm",
     {.vocab_size = 11, .d_model = 16, .n_layer = 2, .d_state = 4, .layer_norm = true, LIVELY},
     2,
     18,
     9,
     0,
     true},
    {"dropout", {.vocab_size = 11, .d_model = 16, .n_layer = 2, .d_state = 4, LIVELY}, 2, 16, 8, 0.25f, true},
    {"wide, long", {.vocab_size = 65, .d_model = 64, .n_layer = 2, LIVELY}, 3, 150, 70, 0, false},
    {"mixed layers",
     {.vocab_size = 11, .d_model = 16, .n_layer = 4, .d_state = 4, .layers = "mamba1 mlp(width=24)", LIVELY},
     2,
     18,
     9,
     0,
     true},
    {"parallel layers, scaled, dropout",
     {.vocab_size = 11,
      .d_model = 16,
      .d_state = 4,
      .projection_bias = true,
      .layers = "mamba1+mlp(width=12)+mamba1 mlp(width=20)",
      .residual_scale = 0.5f,
      LIVELY},
     2,
     18,
     9,
     0.25f,
     true},
    {"mlp alone, LayerNorm",
     {.vocab_size = 11, .d_model = 8, .n_layer = 2, .layer_norm = true, .layers = "mlp(width=9)", LIVELY},
     2,
     10,
     5,
     0,
     true},
    {"MLPs with biases, GELU, without gates",
     {.vocab_size = 11,
      .d_model = 12,
      .layers = "mlp(width=9,activation=gelu,bias=1) mlp(width=12,activation=gelu_tanh) "
                "mlp(width=10,activation=relu2,plain=1,bias=1)+mlp(width=7,activation=silu,plain=1)",
      LIVELY},
     2,
     13,
     6,
     0,
     true},
    /* All are chosen: a step of the differences changes no choice. */
    {"experts beside an MLP",
     {.vocab_size = 11,
      .d_model = 16,
      .d_state = 4,
      .layers = "mamba1 moe(experts=3,chosen=3,width=10)+mlp(width=12) moe(experts=1,width=8)",
      LIVELY},
     2,
     18,
     9,
     0,
     true},
    {"latent experts, dropout",
     {.vocab_size = 11,
      .d_model = 16,
      .layers = "moe(experts=4,chosen=4,width=7,activation=relu2,plain=1,scores=sigmoid,normalize=1,bias=1,latent=6,"
                "latent_bias=1) moe(experts=2,chosen=2,width=5,activation=gelu,latent=5)",
      .expert_scale = 2.5f,
      LIVELY},
     2,
     18,
     9,
     0.25f,
     true},
    {"Mamba-2, two groups",
     {.vocab_size = 11, .d_model = 16, .n_layer = 2, .d_state = 5, .head_dim = 8, .n_groups = 2, MAMBA2},
     2,
     18,
     9,
     0,
     true},
    {"Mamba-2, biases, limits, norm before the gate, D of each channel",
     {.vocab_size = 7,
      .d_model = 12,
      .n_layer = 2,
      .d_state = 4,
      .d_conv = 3,
      .head_dim = 6,
      .projection_bias = true,
      .untied_head = true,
      .D_per_channel = true,
      .norm_before_gate = true,
      .dt_limit_low = 0.1f,
      .dt_limit_high = 0.6f,
      MAMBA2},
     3,
     19,
     3,
     0,
     true},
    {"Mamba-2 without norm, with an MLP, no convolution bias, width 1",
     {.vocab_size = 11,
      .d_model = 12,
      .n_layer = 2,
      .d_state = 3,
      .d_conv = 1,
      .d_inner = 18,
      .head_dim = 3,
      .n_groups = 3,
      .d_mlp = 5,
      .no_conv_bias = true,
      .no_gated_norm = true,
      MAMBA2},
     2,
     13,
     6,
     0,
     true},
    {"Mamba-1, Mamba-2 and MLP, dropout",
     {.vocab_size = 11, .d_model = 16, .d_state = 4, .layers = "mamba1 mamba2+mlp(width=9) mamba2", LIVELY},
     2,
     18,
     9,
     0.25f,
     true},
    {"attention, heads that share keys, half of each rotated",
     {.vocab_size = 11,
      .d_model = 12,
      .n_layer = 2,
      .attention_heads = 4,
      .kv_heads = 2,
      .attention_head_dim = 8,
      .rotary_dim = 4,
      .rope_theta = 100,
      .logit_scale = 0.7f,
      .layers = "attention",
      LIVELY},
     2,
     18,
     9,
     0,
     true},
    {"attention with biases, norms and a window, beside Mamba-2 and MLP",
     {.vocab_size = 11,
      .d_model = 12,
      .n_layer = 3,
      .d_state = 4,
      .attention_heads = 3,
      .kv_heads = 1,
      .attention_head_dim = 6,
      .attention_window = 7,
      .rope_theta = 50,
      .attention_scale = 0.6f,
      .rope_interleaved = true,
      .attention_bias = true,
      .qk_norm = true,
      .layers = "mamba2+attention mlp(width=9) attention",
      LIVELY},
     2,
     18,
     9,
     0.25f,
     true},
    {"Mamba-2, wide, long",
     {.vocab_size = 65, .d_model = 64, .n_layer = 2, .d_state = 32, .head_dim = 32, .n_groups = 2, MAMBA2},
     3,
     150,
     70,
     0,
     false},
};
#define CASES (sizeof cases / sizeof *cases)

/* A step of differences would change what is chosen. */
static const model_case choosing[] = {
    {"some experts of many",
     {.vocab_size = 11,
      .d_model = 16,
      .d_state = 4,
      .layers = "mamba1 moe(experts=6,chosen=2,width=10,normalize=1)+mlp(width=12) moe(experts=3,chosen=1,width=8)",
      LIVELY},
     2,
     18,
     9,
     0,
     true},
    {"experts of groups",
     {.vocab_size = 11,
      .d_model = 16,
      .n_layer = 2,
      .layers = "moe(experts=8,chosen=3,width=7,activation=relu2,plain=1,scores=sigmoid,normalize=1,bias=1,groups=4,"
                "top_groups=2,latent=6)",
      .expert_scale = 2.5f,
      LIVELY},
     2,
     18,
     9,
     0,
     true},
};

/* A model on a context with one batch of tokens. */
typedef struct fixture {
  clm_context *context;
  clm_model *model;
  clm_buffer *buffer;
  clm_tensor ids, targets, losses, logits;
  int32_t *host_ids;
  int64_t rows, vocab;
} fixture;

#define CHECK(f, call) floats_check((f)->context, call, #call)

static fixture fixture_make(const model_case *c, clm_context *context) {
  fixture f = {.context = context, .rows = c->batch * c->length, .vocab = c->config.vocab_size};
  CHECK(&f, clm_model_create(context, &c->config, 5, &f.model));
  size_t rows = (size_t)f.rows;
  CHECK(&f, clm_buffer_create(context, (rows * 3 + rows * (size_t)f.vocab) * 4, &f.buffer));
  int64_t shape[3] = {c->batch, c->length, f.vocab};
  f.ids = clm_tensor_of(f.buffer, 0, CLM_I32, 2, shape);
  f.targets = clm_tensor_of(f.buffer, rows * 4, CLM_I32, 2, shape);
  f.losses = clm_tensor_of(f.buffer, rows * 8, CLM_F32, 2, shape);
  f.logits = clm_tensor_of(f.buffer, rows * 12, CLM_F32, 3, shape);
  f.host_ids = calloc(rows, sizeof *f.host_ids);
  int32_t *targets = calloc(rows, sizeof *targets);
  test_random r = random_seeded(3, c->why);
  for (size_t i = 0; i < rows; i++) {
    f.host_ids[i] = (int32_t)random_below(&r, f.vocab);
    targets[i] = (int32_t)random_below(&r, f.vocab + 1) - 1; /* now and then ignored */
  }
  CHECK(&f, clm_tensor_write(f.ids, f.host_ids, rows * 4));
  CHECK(&f, clm_tensor_write(f.targets, targets, rows * 4));
  free(targets);
  return f;
}

static void fixture_free(fixture *f) {
  clm_buffer_destroy(&f->buffer);
  clm_model_destroy(&f->model);
  free(f->host_ids);
}

static float *read_floats(const fixture *f, clm_tensor t) { return floats_read(f->context, t); }
static void poison(const fixture *f, clm_tensor t) { floats_poison(f->context, t); }

static float *forward(const fixture *f) {
  poison(f, f->logits);
  CHECK(f, clm_model_forward(f->model, f->ids, f->logits));
  return read_floats(f, f->logits);
}

/* All gradients, in the flat order; poisoned before. */
static float *gradients(const fixture *f, const model_case *c) {
  clm_model_loss_args args = {.ids = f->ids, .targets = f->targets, .losses = f->losses, .gradient = true};
  args.dropout = c->dropout;
  args.seed = 17;
  CHECK(f, clm_model_loss(f->model, &args));
  const weights_layout *l = &f->model->layout;
  for (size_t i = 0; i < l->item_count; i++)
    poison(f, clm_tensor_of(f->model->gradients, l->items[i].offset * 4, CLM_F32, 1,
                            (int64_t[]){(int64_t)l->items[i].count}));
  poison(f, f->losses);
  CHECK(f, clm_model_loss(f->model, &args));
  return read_floats(f, clm_tensor_of(f->model->gradients, 0, CLM_F32, 1, (int64_t[]){(int64_t)l->total}));
}

static void test_against_reference(const test_device *device, const void *data) {
  const model_case *c = data;
  fixture f = fixture_make(c, device->context), reference = fixture_make(c, test_reference);
  float *got = forward(&f), *want = forward(&reference);
  floats_compare("logits", got, want, (size_t)clm_tensor_count(f.logits), 1e-4, 0);
  free(got);
  free(want);
  got = gradients(&f, c);
  want = gradients(&reference, c);
  const weights_layout *l = &f.model->layout;
  double largest = 0; /* a gradient far below the others is rounding error alone */
  for (size_t i = 0; i < l->total; i++) largest = fmax(largest, fabs((double)want[i]));
  for (size_t i = 0; i < l->item_count; i++) {
    char name[WEIGHT_NAME_MAX];
    weights_name(&l->items[i], name);
    floats_compare(name, got + l->items[i].offset, want + l->items[i].offset, l->items[i].count, 5e-4,
                   1e-6 * largest);
  }
  free(got);
  free(want);
  got = read_floats(&f, f.losses);
  want = read_floats(&reference, reference.losses);
  floats_compare("losses", got, want, (size_t)f.rows, 1e-4, 0);
  free(got);
  free(want);
  fixture_free(&f);
  fixture_free(&reference);
}

/* Logits of one position (batch, vocab) against the same position of the whole forward pass. */
static void compare_position(const fixture *f, const model_case *c, clm_tensor logits, const float *all,
                             int64_t position) {
  char what[40];
  snprintf(what, sizeof what, "logits of position %d", (int)position);
  float *got = read_floats(f, logits);
  for (int64_t b = 0; b < c->batch; b++)
    floats_compare(what, got + b * f->vocab, all + (b * c->length + position) * f->vocab, (size_t)f->vocab, 1e-4, 0);
  free(got);
}

/* Two prefills, then one token after another: each must agree with the forward pass over everything. */
static void test_decode(const test_device *device, const void *data) {
  const model_case *c = data;
  fixture f = fixture_make(c, device->context);
  clm_model_state *state;
  clm_buffer *buffer;
  float *all = forward(&f);
  int64_t half = c->split / 2;
  CHECK(&f, clm_model_state_create(f.model, c->batch, &state));
  size_t ids_bytes = (size_t)f.rows * 4;
  CHECK(&f, clm_buffer_create(f.context, ids_bytes + (size_t)(c->batch * f.vocab) * 4, &buffer));
  clm_tensor logits = clm_tensor_of(buffer, ids_bytes, CLM_F32, 2, (int64_t[]){c->batch, f.vocab});
  int32_t *part = calloc((size_t)f.rows, sizeof *part);
  for (int64_t at = 0, count; at < c->length; at += count) {
    count = at == 0 && half > 0 ? half : at < c->split ? c->split - at : 1;
    for (int64_t b = 0; b < c->batch; b++)
      memcpy(part + b * count, f.host_ids + b * c->length + at, (size_t)count * sizeof *part);
    clm_tensor ids = clm_tensor_of(buffer, 0, CLM_I32, 2, (int64_t[]){c->batch, count});
    CHECK(&f, clm_tensor_write(ids, part, (size_t)(c->batch * count) * 4));
    poison(&f, logits);
    if (at < c->split) CHECK(&f, clm_model_prefill(f.model, state, ids, NULL, logits));
    else CHECK(&f, clm_model_decode(f.model, state, clm_tensor_reshape(ids, 1, &c->batch), logits));
    compare_position(&f, c, logits, all, at + count - 1);
  }
  free(part);
  free(all);
  clm_buffer_destroy(&buffer);
  clm_model_state_destroy(&state);
  fixture_free(&f);
}

typedef struct slope_fixture {
  const fixture *f;
  const model_case *c;
} slope_fixture;

static double mean_loss(void *user) {
  const slope_fixture *s = user;
  const fixture *f = s->f;
  clm_model_loss_args args = {.ids = f->ids, .targets = f->targets, .losses = f->losses};
  args.dropout = s->c->dropout;
  args.seed = 17;
  CHECK(f, clm_model_loss(f->model, &args));
  float *losses = read_floats(f, f->losses);
  double sum = 0;
  for (int64_t i = 0; i < f->rows; i++) sum += (double)losses[i];
  free(losses);
  return sum / (double)f->rows;
}

static void test_slopes(const test_device *device, const void *data) {
  (void)device;
  const model_case *c = data;
  fixture f = fixture_make(c, test_reference);
  float *gradient = gradients(&f, c);
  slopes_check(f.model, gradient, mean_loss, &(slope_fixture){&f, c}, 3e-5);
  free(gradient);
  fixture_free(&f);
}

/* Every other window padded and batched: the score is the mean of what single windows give. */
static void test_score(const test_device *device, const void *data) {
  (void)data;
  const model_case *c = &cases[1];
  fixture f = fixture_make(c, device->context);
  const int64_t window = 9;
  double got, sum = 0, part;
  size_t count = (size_t)f.rows;
  CHECK(&f, clm_model_score(f.model, f.host_ids, count, &(clm_score_options){.window = window}, &got));
  for (size_t at = 0; at + 1 < count; at += (size_t)window) {
    size_t predictions = count - 1 - at < (size_t)window ? count - 1 - at : (size_t)window;
    CHECK(&f, clm_model_score(f.model, f.host_ids + at, predictions + 1, NULL, &part));
    sum += part * (double)predictions;
  }
  assert_true(fabs(got - sum / (double)(count - 1)) < 1e-5);
  assert_int_equal(clm_model_score(f.model, f.host_ids, 1, NULL, &got), CLM_INVALID_ARGUMENT);
  fixture_free(&f);
}

/* What is saved and loaded gives the same bits; so does the same seed on another device. */
static void test_round_trip(const test_device *device, const void *data) {
  const model_case *c = data;
  char directory[] = "/tmp/clmamba-test-XXXXXX", path[64];
  assert_non_null(mkdtemp(directory));
  fixture f = fixture_make(c, device->context), reference = fixture_make(c, test_reference);
  CHECK(&f, clm_model_save(f.model, directory));
  clm_tensor all = clm_tensor_of(f.model->parameters, 0, CLM_F32, 1, (int64_t[]){(int64_t)f.model->layout.total});
  float *saved = read_floats(&f, all);
  all.buffer = reference.model->parameters;
  float *other = read_floats(&reference, all);
  assert_memory_equal(saved, other, f.model->layout.total * sizeof *saved);
  clm_model *loaded;
  CHECK(&f, clm_model_load(f.context, directory, &loaded));
  assert_memory_equal(clm_model_configuration(loaded), clm_model_configuration(f.model), sizeof(clm_model_config));
  free(other);
  all.buffer = loaded->parameters;
  other = read_floats(&f, all);
  assert_memory_equal(saved, other, f.model->layout.total * sizeof *saved);
  free(saved);
  free(other);
  clm_model_destroy(&loaded);
  fixture_free(&f);
  fixture_free(&reference);
  const char *const names[] = {"config.json", "model.safetensors"};
  for (int i = 0; i < 2; i++) {
    snprintf(path, sizeof path, "%s/%s", directory, names[i]);
    assert_int_equal(unlink(path), 0);
  }
  assert_int_equal(rmdir(directory), 0); /* nothing else was left */
}

/* The second pass of a shape allocates nothing. */
static void test_steady_memory(const test_device *device, const void *data) {
  const model_case *c = data;
  fixture f = fixture_make(c, device->context);
  free(gradients(&f, c));
  uint64_t before, after;
  clm_context_memory(f.context, &before, NULL);
  free(gradients(&f, c));
  clm_context_memory(f.context, &after, NULL);
  assert_int_equal(before, after);
  fixture_free(&f);
}

/* Every parameter once, as it is found by its name, and the numbers of all of them. */
static void test_list(const test_device *device, const void *data) {
  fixture f = fixture_make(data, device->context);
  const int64_t count = clm_model_tensor_count(f.model);
  int64_t numbers = 0, decaying = 0;
  clm_parameter p, q;
  for (int64_t i = 0; i < count; i++) {
    clm_tensor named;
    CHECK(&f, clm_model_tensor(f.model, i, &p));
    CHECK(&f, clm_model_parameter(f.model, p.name, &named));
    assert_memory_equal(&named, &p.tensor, sizeof named);
    assert_null(p.gradient.buffer);
    numbers += clm_tensor_count(p.tensor);
    for (int64_t k = 0; k < i; k++) {
      CHECK(&f, clm_model_tensor(f.model, k, &q));
      assert_string_not_equal(p.name, q.name);
    }
    const bool matrix = p.tensor.rank > 1 && !strstr(p.name, "A_log");
    assert_int_equal(p.decays, matrix);
    decaying += p.decays;
  }
  assert_int_equal(numbers, clm_model_parameter_count(f.model));
  assert_true(decaying > 0 && decaying < count);
  CHECK(&f, model_need_gradients(f.model));
  for (int64_t i = 0; i < count; i++) {
    clm_tensor named;
    CHECK(&f, clm_model_tensor(f.model, i, &p));
    CHECK(&f, clm_model_gradient(f.model, p.name, &named));
    assert_memory_equal(&named, &p.gradient, sizeof named);
  }
  assert_int_equal(clm_model_tensor(f.model, count, &p), CLM_INVALID_ARGUMENT);
  assert_int_equal(clm_model_tensor(f.model, -1, &p), CLM_INVALID_ARGUMENT);
  assert_non_null(strstr(clm_context_error(f.context), "index is -1"));
  fixture_free(&f);
}

static void test_bad_configs(const test_device *device, const void *data) {
  (void)device, (void)data;
  static const clm_model_config bad[] = {
      {.vocab_size = 0, .d_model = 8, .n_layer = 1},
      {.vocab_size = 8, .d_model = -8, .n_layer = 1},
      {.vocab_size = 8, .d_model = 8, .n_layer = 100000},
      {.vocab_size = 8, .d_model = 8, .n_layer = 1, .d_conv = 33},
      {.vocab_size = 8, .d_model = 8, .n_layer = 1, .d_inner = -20},
      {.vocab_size = 8, .d_model = 8, .n_layer = 1, .dt_min = 1, .dt_max = 0.5f},
      {.vocab_size = 8, .d_model = 8, .n_layer = 1, .norm_epsilon = (float)NAN},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    clm_model *model;
    assert_int_equal(clm_model_create(test_reference, &bad[i], 1, &model), CLM_INVALID_ARGUMENT);
    assert_null(model);
    assert_true(strncmp(clm_context_error(test_reference), "model: ", 7) == 0);
  }
}

static void add(void) {
  for (size_t i = 0; i < CASES; i++) test_add(NULL, test_slopes, &cases[i], "slopes, %s", cases[i].why);
  test_add(NULL, test_bad_configs, NULL, "bad configurations");
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    for (size_t i = 0; i < TEST_COUNT(choosing); i++) {
      test_add(device, test_against_reference, &choosing[i], "against the reference, %s", choosing[i].why);
      test_add(device, test_decode, &choosing[i], "decode, %s", choosing[i].why);
    }
    for (size_t i = 0; i < CASES; i++) {
      if (device->slow && !cases[i].fast) continue;
      test_add(device, test_against_reference, &cases[i], "against the reference, %s", cases[i].why);
      test_add(device, test_decode, &cases[i], "decode, %s", cases[i].why);
    }
    test_add(device, test_score, NULL, "score");
    test_add(device, test_list, &cases[2], "list of parameters");
    test_add(device, test_round_trip, &cases[2], "save and load");
    test_add(device, test_steady_memory, &cases[1], "memory of a second step");
  }
}

int main(void) { return test_main("model", add); }
