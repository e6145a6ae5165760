/* Models of mixed layers: the list of layers, config.json, names, seeds, files of models and states, training. What
 * their passes compute stands in the tables of test_model.c, test_run.c and test_backbone.c. */
#include "cmocka_all.h"
#include "devices.h"
#include "floats.h"
#include "folder.h"
#include "model/model.h"
#include <clmamba/train.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(context, call) floats_check(context, call, #call)

static const clm_model_config mixed = {
    .vocab_size = 11, .d_model = 16, .n_layer = 4, .d_state = 4, .layers = "mamba1 mlp(width=24)"};

/* ---- The list ---- */

static const struct {
  const char *layers;
  const char *kept; /* NULL: as none */
  int64_t n_layer, blocks;
} lists[] = {
    {NULL, NULL, 3, 3},
    {"mamba1", NULL, 3, 3},
    {" mamba1  mamba1 ", NULL, 0, 2},
    {"mlp(width=5)", "mlp(width=5)", 2, 2},
    {"mamba1 mlp", "mamba1 mlp(width=128)", 0, 2}, /* 8/3 of 16, rounded up to a multiple of 128 */
    {"mamba1\tmlp(width=7)", "mamba1 mlp(width=7)", 5, 5},
    {"mamba1+mlp(width=7)+mamba1 mlp(width=8)", "mamba1+mlp(width=7)+mamba1 mlp(width=8)", 0, 2},
    {"mamba2 mamba1 ", "mamba2 mamba1", 4, 4},
    {"mlp(activation=gelu,width=7)", "mlp(width=7,activation=gelu)", 0, 1},
    {"mlp(width=7,activation=silu,plain=0) mlp(width=8,bias=1,plain=1)", "mlp(width=7) mlp(width=8,plain=1,bias=1)",
     0, 2},
    {"moe", "moe(experts=8,chosen=2,width=128)", 1, 1},
    {"moe(experts=1,width=3)", "moe(experts=1,chosen=1,width=3)", 1, 1},
    {"moe(experts=4,chosen=2,width=3,scores=sigmoid,groups=2,top_groups=1)",
     "moe(experts=4,chosen=2,width=3,scores=sigmoid,groups=2,top_groups=1)", 1, 1},
};

static void test_list(const test_device *device, const void *data) {
  (void)device, (void)data;
  for (size_t i = 0; i < TEST_COUNT(lists); i++) {
    clm_model *model;
    clm_model_config config = {
        .vocab_size = 5, .d_model = 16, .n_layer = lists[i].n_layer, .d_state = 2, .layers = lists[i].layers};
    CHECK(test_reference, clm_model_create(test_reference, &config, 1, &model));
    const clm_model_config *got = clm_model_configuration(model);
    assert_int_equal(got->n_layer, lists[i].blocks);
    if (lists[i].kept) assert_string_equal(got->layers, lists[i].kept);
    else assert_null(got->layers);
    clm_model_destroy(&model);
  }
}

static const struct {
  const char *layers, *part; /* of the message */
} bad_lists[] = {
    {"", "no layer"},
    {"mamba3", "an unknown kind of layer at \"mamba3\", expected mamba1, mamba2, mlp, moe"},
    {"mamba1 Mlp", "at \"Mlp\""},
    {"mlp(size=3)", "an unknown option at \"size=3)\""},
    {"mlp(width)", "no value"},
    {"mlp(width=0)", "width of mlp is \"0)\", expected 1 to 4194304"},
    {"mlp(width=-7)", "width of mlp"},
    {"mlp(width=99999999999999999999)", "width of mlp"},
    {"mlp(width=x)", "width of mlp"},
    {"mlp(width=3", "no end of the options"},
    {"mlp()", "an unknown option"},
    {"mlp(activation=relu)", "activation of mlp is \"relu)\", expected one of silu, gelu, gelu_tanh, relu2"},
    {"mlp(bias=2)", "bias of mlp is \"2)\", expected 0 to 1"},
    {"moe(experts=4,chosen=5)", "chosen of moe is 5, expected at most the 4 experts that are chosen from"},
    {"moe(experts=6,groups=4,top_groups=1)", "groups of moe is 4, which does not divide experts 6"},
    {"moe(experts=6,groups=3)", "top_groups of moe is 0, expected 1 to groups 3"},
    {"moe(experts=6,groups=3,top_groups=1,chosen=3)", "at most the 2 experts"},
    {"moe(latent_bias=1)", "latent_bias of moe is set, but not latent"},
    {"mamba1(width=3)", "an unknown option"},
    {"mamba1+", "an unknown kind of layer"},
    {"mamba1,mlp", "something else"},
    {"mamba1+mamba1+mamba1+mamba1+mamba1", "too many parallel layers"},
    {"mamba1 mlp mamba1 mlp mamba1", "layers lists 5 blocks, but n_layer is 4"},
};

static void test_bad_list(const test_device *device, const void *data) {
  (void)device, (void)data;
  for (size_t i = 0; i < TEST_COUNT(bad_lists); i++) {
    clm_model *model;
    clm_model_config config = mixed;
    config.layers = bad_lists[i].layers;
    if (!*config.layers) config.n_layer = 1;
    expect_failure(test_reference, clm_model_create(test_reference, &config, 1, &model), CLM_INVALID_ARGUMENT,
                   bad_lists[i].part);
    assert_null(model);
  }
}

/* ---- Parameters ---- */

static float *values(clm_model *model, const char *name, size_t *count) {
  clm_tensor t;
  CHECK(test_reference, clm_model_parameter(model, name, &t));
  *count = (size_t)clm_tensor_count(t);
  return floats_read(test_reference, t);
}

/* A seed gives a block the same weights whatever stands in the others. */
static void test_seed(const test_device *device, const void *data) {
  static const char *const names[] = {"backbone.embeddings.weight", "backbone.layers.0.mixer.in_proj.weight",
                                      "backbone.layers.2.mixer.dt_proj.bias",
                                      "backbone.layers.2.mixer.out_proj.weight"};
  (void)device, (void)data;
  clm_model *a, *b;
  clm_model_config plain = mixed;
  plain.layers = NULL;
  CHECK(test_reference, clm_model_create(test_reference, &mixed, 9, &a));
  CHECK(test_reference, clm_model_create(test_reference, &plain, 9, &b));
  for (size_t i = 0; i < TEST_COUNT(names); i++) {
    size_t counts[2];
    float *got = values(a, names[i], &counts[0]), *want = values(b, names[i], &counts[1]);
    assert_int_equal(counts[0], counts[1]);
    assert_memory_equal(got, want, counts[0] * sizeof *got);
    free(got);
    free(want);
  }
  clm_model_destroy(&a);
  clm_model_destroy(&b);
}

static void test_names(const test_device *device, const void *data) {
  static const struct {
    const char *name;
    int rank;
    int64_t shape[2];
  } names[] = {{"backbone.layers.0.norm.weight", 1, {16}},
               {"backbone.layers.0.mixers.0.A_log", 2, {32, 4}},
               {"backbone.layers.0.mixers.1.gate_proj.weight", 2, {24, 16}},
               {"backbone.layers.1.mixer.up_proj.weight", 2, {20, 16}},
               {"backbone.layers.1.mixer.down_proj.weight", 2, {16, 20}}};
  (void)device, (void)data;
  clm_model *model;
  clm_model_config config = mixed;
  config.layers = "mamba1+mlp(width=24) mlp(width=20)";
  CHECK(test_reference, clm_model_create(test_reference, &config, 1, &model));
  for (size_t i = 0; i < TEST_COUNT(names); i++) {
    clm_tensor t;
    CHECK(test_reference, clm_model_parameter(model, names[i].name, &t));
    assert_int_equal(t.rank, names[i].rank);
    for (int k = 0; k < t.rank; k++) assert_int_equal(t.shape[k], names[i].shape[k]);
  }
  /* vocab 11: embedding, 2 blocks of each kind, their norms, the final norm */
  const int64_t mamba = 16 * 64 + 32 * 4 + 32 + 32 * (1 + 2 * 4) + 32 + 32 + 32 * 4 + 32 + 16 * 32;
  assert_int_equal(clm_model_parameter_count(model), 11 * 16 + 2 * (mamba + 3 * 24 * 16 + 3 * 20 * 16 + 2 * 16) + 16);
  clm_model_destroy(&model);
}

/* ---- Files ---- */

enum { BATCH = 2, LENGTH = 9 };

/* Logits after a prompt and two steps. */
static float *run(clm_model *model, clm_model_state *state, int first) {
  clm_buffer *buffer;
  clm_context *context = clm_model_context(model);
  const int64_t vocab = clm_model_configuration(model)->vocab_size;
  int32_t ids[BATCH * LENGTH];
  for (int i = 0; i < BATCH * LENGTH; i++) ids[i] = (first + 7 * i) % (int32_t)vocab;
  CHECK(context, clm_buffer_create(context, sizeof ids + 4096, &buffer));
  CHECK(context, clm_buffer_write(buffer, 0, sizeof ids, ids));
  clm_tensor prompt = clm_tensor_of(buffer, 0, CLM_I32, 2, (int64_t[]){BATCH, LENGTH}),
             token = clm_tensor_of(buffer, 0, CLM_I32, 1, (int64_t[]){BATCH}),
             logits = clm_tensor_of(buffer, 1024, CLM_F32, 2, (int64_t[]){BATCH, vocab});
  if (first == 0) CHECK(context, clm_model_prefill(model, state, prompt, NULL, logits));
  for (int i = 0; i < 2; i++) CHECK(context, clm_model_decode(model, state, token, logits));
  float *host = floats_read(context, logits);
  clm_buffer_destroy(&buffer);
  return host;
}

static void same_logits(float *got, float *want) {
  assert_memory_equal(got, want, BATCH * 11 * sizeof *got);
  free(got);
  free(want);
}

/* A saved model and a saved state go on as if they had never been files. */
static void test_files(const test_device *device, const void *data) {
  (void)data;
  clm_context *context = device->context;
  clm_model *model, *loaded;
  clm_model_state *state, *restored;
  clm_model_config config = mixed;
  config.layers = "mamba1 mlp(width=24) mamba1+mlp(width=7)";
  config.residual_scale = 0.25f;
  config.untied_head = true;
  CHECK(context, clm_model_create(context, &config, 3, &model));
  CHECK(context, clm_model_save(model, test_folder));
  CHECK(context, clm_model_load(context, test_folder, &loaded));
  const clm_model_config *got = clm_model_configuration(loaded);
  assert_string_equal(got->layers, config.layers);
  assert_int_equal(got->n_layer, 4);
  assert_true(got->residual_scale == 0.25f && got->untied_head);
  bytes text = read_file("config.json");
  put(&text, "", 1);
  assert_non_null(strstr((char *)text.data, "\"model_type\": \"clmamba\""));
  bytes_release(&text);
  CHECK(context, clm_model_state_create(model, BATCH, &state));
  free(run(model, state, 0));
  CHECK(context, clm_model_state_save(state, in_folder("state")));
  CHECK(context, clm_model_state_load(loaded, in_folder("state"), &restored));
  same_logits(run(loaded, restored, 3), run(model, state, 3));
  clm_model_state_destroy(&state);
  clm_model_state_destroy(&restored);
  clm_model_destroy(&loaded);
  config.layers = "mamba1 mlp(width=24) mamba1+mlp(width=8)";
  CHECK(context, clm_model_create(context, &config, 3, &loaded));
  expect_failure(context, clm_model_state_load(loaded, in_folder("state"), &restored), CLM_INVALID_ARGUMENT,
                 "mlp(width=7)");
  clm_model_destroy(&loaded);
  clm_model_destroy(&model);
  folder_empty();
}

/* Every way to hold matrices reaches every kind: int8 within its rounding of f32. All experts are chosen, so that
 * what is rounded chooses no others. */
typedef struct held_case {
  const char *layers, *matrix;
} held_case;

static const held_case held_cases[] = {
    {"mamba1 mlp(width=24)", "backbone.layers.1.mixer.gate_proj.weight"},
    {"mamba1 moe(experts=3,chosen=3,width=7)", "backbone.layers.1.mixer.input_linear.weight"}};

static void test_held(const test_device *device, const void *data) {
  const held_case *c = data;
  clm_context *context = device->context;
  clm_model *model, *held;
  clm_model_state *state;
  clm_model_config config = mixed;
  config.layers = c->layers;
  CHECK(context, clm_model_create(context, &config, 3, &model));
  CHECK(context, clm_model_save(model, test_folder));
  CHECK(context, clm_model_state_create(model, BATCH, &state));
  float *want = run(model, state, 0);
  clm_model_state_destroy(&state);
  for (int type = CLM_WEIGHTS_F16; type <= CLM_WEIGHTS_INT8; type++) {
    const clm_model_load_options options = {.weights = (clm_weights_type)type};
    clm_tensor t;
    CHECK(context, clm_model_load_with(context, test_folder, &options, &held));
    CHECK(context, clm_model_parameter(held, c->matrix, &t));
    if (type != CLM_WEIGHTS_AS_STORED) assert_int_not_equal(t.dtype, CLM_F32);
    CHECK(context, clm_model_state_create(held, BATCH, &state));
    float *got = run(held, state, 0);
    floats_compare("logits", got, want, BATCH * 11, 0.05, 0);
    free(got);
    clm_model_state_destroy(&state);
    clm_model_destroy(&held);
  }
  free(want);
  clm_model_destroy(&model);
  folder_empty();
}

/* Each form of config.json that a model of Mamba-2 layers, or of a mixer and an MLP in turn, is saved in, with all
 * its members. */
typedef struct mamba2_case {
  clm_model_config config;
  const char *part; /* of config.json */
} mamba2_case;
#define MAMBA2      .vocab_size = 11, .d_model = 16, .n_layer = 2, .d_state = 4, .head_dim = 8, .layers = "mamba2"
#define PAIRS(list) .vocab_size = 11, .d_model = 16, .n_layer = 4, .d_state = 4, .layers = list
static const mamba2_case mamba2_cases[] = {
    {{MAMBA2}, "\"Mamba2ForCausalLM\""},
    {{MAMBA2, .n_groups = 2, .untied_head = true, .projection_bias = true}, "\"model_type\": \"mamba2\""},
    {{MAMBA2, .no_conv_bias = true, .dt_limit_low = 0.25f, .dt_limit_high = 0.5f}, "\"time_step_limit\": ["},
    {{MAMBA2, .dt_limit_low = 0.25f}, "\"__float__\": \"Infinity\""},
    {{MAMBA2, .norm_before_gate = true, .untied_head = true}, "\"norm_before_gate\": true"},
    {{MAMBA2, .D_per_channel = true, .dt_limit_high = 0.5f}, "\"layer\": \"Mamba2\""},
    {{MAMBA2, .no_gated_norm = true, .d_inner = 24, .d_mlp = 8}, "\"d_ssm\": 24"},
    {{MAMBA2, .layer_norm = true}, "\"rms_norm\": false"},
    {{MAMBA2, .d_inner = 24, .norm_before_gate = true, .d_mlp = 3}, "\"model_type\": \"clmamba\""},
    {{PAIRS("mamba2 mlp(width=128)"), .head_dim = 8, .n_groups = 2, .untied_head = true}, "\"d_intermediate\": 128"},
    {{PAIRS("mamba2 mlp(width=256)"), .head_dim = 16, .dt_limit_high = 0.5f, .layer_norm = true}, "\"n_layer\": 2"},
    {{PAIRS("mamba1 mlp(width=128)"), .dt_rank = 3}, "\"layer\": \"Mamba1\""},
    {{PAIRS("mamba1 mlp(width=128)"), .layer_norm = true, .projection_bias = true}, "\"d_intermediate\": 128"},
    {{PAIRS("mamba1 mlp(width=128)"), .mixer_norm = true}, "\"model_type\": \"clmamba\""},
    {{PAIRS("mamba1"), .mixer_norm = true}, "\"model_type\": \"falcon_mamba\""},
    {{PAIRS("mamba1"), .mixer_norm = true, .mixer_norm_weights = true}, "\"model_type\": \"clmamba\""},
    {{PAIRS("mamba1"), .logit_scale = 0.5f}, "\"model_type\": \"clmamba\""},
    {{MAMBA2, .logit_scale = 0.5f}, "\"model_type\": \"clmamba\""},
    {{PAIRS("mamba1 mlp(width=128)"), .d_inner = 24}, "\"model_type\": \"clmamba\""},
    {{PAIRS("mamba2 mlp(width=9)")}, "\"model_type\": \"clmamba\""},
    {{PAIRS("mlp(width=128) mamba2")}, "\"model_type\": \"clmamba\""},
};

static void test_mamba2_files(const test_device *device, const void *data) {
  const mamba2_case *c = data;
  clm_context *context = device->context;
  clm_model *model, *loaded;
  clm_model_state *states[2];
  CHECK(context, clm_model_create(context, &c->config, 3, &model));
  CHECK(context, clm_model_save(model, test_folder));
  bytes text = read_file("config.json");
  put(&text, "", 1);
  if (!strstr((char *)text.data, c->part)) fail_msg("no %s in %s", c->part, (char *)text.data);
  bytes_release(&text);
  CHECK(context, clm_model_load(context, test_folder, &loaded));
  clm_model_config got = *clm_model_configuration(loaded), want = *clm_model_configuration(model);
  if (want.layers) assert_string_equal(got.layers, want.layers);
  assert_int_equal(got.d_inner, want.d_inner);
  assert_int_equal(got.head_dim, want.head_dim);
  assert_int_equal(got.n_groups, want.n_groups);
  assert_int_equal(got.d_mlp, want.d_mlp);
  assert_true(got.dt_limit_low == want.dt_limit_low && got.dt_limit_high == want.dt_limit_high);
  CHECK(context, clm_model_state_create(model, BATCH, &states[0]));
  CHECK(context, clm_model_state_create(loaded, BATCH, &states[1]));
  same_logits(run(loaded, states[1], 0), run(model, states[0], 0));
  clm_model_state_destroy(&states[0]);
  clm_model_state_destroy(&states[1]);
  clm_model_destroy(&loaded);
  clm_model_destroy(&model);
  folder_empty();
}

static const struct {
  clm_model_config config;
  const char *part; /* of the message */
} bad_mamba2[] = {
    {{MAMBA2, .d_inner = 20}, "head_dim is 8, which does not divide d_inner 20"},
    {{MAMBA2, .n_groups = 3}, "n_groups is 3, which does not divide the number of heads 4"},
    {{MAMBA2, .mixer_norm = true}, "mixer_norm is of mamba1 layers"},
    {{MAMBA2, .dt_limit_low = 1, .dt_limit_high = 0.5f}, "dt_limit_high 0.5 is less than dt_limit_low 1"},
    {{MAMBA2, .dt_limit_low = -1}, "dt_limit_low is -1"},
    {{MAMBA2, .d_mlp = -1}, "d_mlp is -1"},
};

static void test_bad_mamba2(const test_device *device, const void *data) {
  (void)device, (void)data;
  for (size_t i = 0; i < TEST_COUNT(bad_mamba2); i++) {
    clm_model *model;
    expect_failure(test_reference, clm_model_create(test_reference, &bad_mamba2[i].config, 1, &model),
                   CLM_INVALID_ARGUMENT, bad_mamba2[i].part);
  }
}

/* Bad members of Hugging Face's form and of the original's. */
static const struct {
  const char *text, *part; /* config.json, the message */
} bad_files[] = {
    {"{\"model_type\": \"mamba2\", \"num_heads\": 0", "\"num_heads\" is not a whole number of at least 1"},
    {"{\"model_type\": \"mamba2\", \"num_heads\": 1.5", "\"num_heads\" is not a whole number of at least 1"},
    {"{\"model_type\": \"mamba2\", \"time_step_limit\": [1]", "\"time_step_limit\" is not two numbers"},
    {"{\"model_type\": \"mamba2\", \"time_step_limit\": [2, 1]", "\"time_step_limit\" is not two numbers"},
    {"{\"model_type\": \"mamba2\", \"n_groups\": 3", "n_groups is 3, which does not divide"},
    {"{\"d_model\": 8, \"n_layer\": 2, \"ssm_cfg\": {\"layer\": \"Mamba2\", \"d_ssm\": 17}",
     "\"d_ssm\" is not expand times d_model or less"},
};

static void test_bad_files(const test_device *device, const void *data) {
  (void)device, (void)data;
  for (size_t i = 0; i < TEST_COUNT(bad_files); i++) {
    bytes text = {0};
    clm_model *model;
    put_text(&text, bad_files[i].text);
    put_text(&text, ", \"vocab_size\": 5, \"hidden_size\": 8, \"num_hidden_layers\": 2}");
    write_file("config.json", text.data, text.count);
    expect_failure(test_reference, clm_model_load(test_reference, test_folder, &model), CLM_BAD_FORMAT,
                   bad_files[i].part);
    bytes_release(&text);
    folder_empty();
  }
}

static const struct {
  const char *members, *part; /* of config.json, of the message */
} bad_configs[] = {
    {"\"layers\": 3", "\"layers\" is not a text"},
    {"\"layers\": \"mamba7\"", "config.json: model: layers: an unknown kind of layer"},
    {"\"layers\": \"mlp(width=0)\"", "width of mlp"},
    {"\"residual_scale\": 0", "\"residual_scale\" is not a positive number"},
    {"\"layer_norm\": 1", "\"layer_norm\" is not true or false"},
};

static void test_bad_config(const test_device *device, const void *data) {
  (void)device, (void)data;
  for (size_t i = 0; i < TEST_COUNT(bad_configs); i++) {
    bytes text = {0};
    clm_model *model;
    put_text(&text, "{\"model_type\": \"clmamba\", \"vocab_size\": 5, \"d_model\": 8, \"n_layer\": 2, ");
    put_text(&text, bad_configs[i].members);
    put_text(&text, "}");
    write_file("config.json", text.data, text.count);
    expect_failure(test_reference, clm_model_load(test_reference, test_folder, &model), CLM_BAD_FORMAT,
                   bad_configs[i].part);
    bytes_release(&text);
    folder_empty();
  }
}

/* ---- Training ---- */

static clm_trainer *trainer_of(clm_context *context, clm_model **model) {
  static int32_t ids[1500];
  const clm_train_options options = {.batch = 4, .length = 16, .steps = 40, .lr = 0.01, .dropout = 0.1};
  clm_trainer *trainer;
  for (int i = 0; i < 1500; i++) ids[i] = i % 11; /* each token says the next */
  CHECK(context, clm_model_create(context, &mixed, 3, model));
  CHECK(context, clm_trainer_create(*model, ids, 1500, &options, &trainer));
  return trainer;
}

static void steps(clm_context *context, clm_trainer *trainer, int count) {
  for (int i = 0; i < count; i++) CHECK(context, clm_trainer_step(trainer));
}

/* It learns, and a resumed run is bit-equal to an unbroken one. */
static void test_training(const test_device *device, const void *data) {
  (void)data;
  clm_context *context = device->context;
  clm_model *model, *again;
  clm_trainer *trainer = trainer_of(context, &model), *resumed;
  double before, after, last;
  CHECK(context, clm_trainer_validate(trainer, &before));
  steps(context, trainer, 20);
  CHECK(context, clm_trainer_save(trainer, test_folder));
  steps(context, trainer, 20);
  CHECK(context, clm_trainer_validate(trainer, &after));
  assert_true(before > 2 && after < 1);
  resumed = trainer_of(context, &again);
  CHECK(context, clm_trainer_resume(resumed, test_folder));
  steps(context, resumed, 20);
  CHECK(context, clm_trainer_validate(resumed, &last));
  assert_true(last == after);
  clm_trainer_destroy(&trainer);
  clm_trainer_destroy(&resumed);
  clm_model_destroy(&model);
  clm_model_destroy(&again);
  folder_empty();
}

static void add(void) {
  test_add(NULL, test_list, NULL, "layers: lists");
  test_add(NULL, test_bad_list, NULL, "layers: bad lists");
  test_add(NULL, test_seed, NULL, "layers: a seed keeps its weights");
  test_add(NULL, test_names, NULL, "layers: names and shapes");
  test_add(NULL, test_bad_config, NULL, "layers: bad config.json");
  test_add(NULL, test_bad_mamba2, NULL, "layers: bad Mamba-2");
  test_add(NULL, test_bad_files, NULL, "layers: bad files of Mamba-2");
  for (size_t d = 0; d < test_device_count; d++) {
    test_add(&test_devices[d], test_files, NULL, "layers: files");
    for (size_t i = 0; i < TEST_COUNT(held_cases); i++)
      test_add(&test_devices[d], test_held, &held_cases[i], "layers: weights held otherwise, %s",
               held_cases[i].layers);
    test_add(&test_devices[d], test_training, NULL, "layers: training");
    for (size_t i = 0; i < TEST_COUNT(mamba2_cases); i++)
      test_add(&test_devices[d], test_mamba2_files, &mamba2_cases[i], "layers: Mamba-2 as %s", mamba2_cases[i].part);
  }
}

int main(void) {
  if (!folder_make()) return EXIT_FAILURE;
  const int status = test_main("layers", add);
  return folder_remove() ? status : EXIT_FAILURE;
}
