/* Model directories: weights in several files, which file goes first, values that are not finite, progress, and what
 * is saved and loaded again. */
#include "cmocka_all.h"
#include "core/dtype.h"
#include "devices.h"
#include "files/safetensors.h"
#include "folder.h"
#include "model/model.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const clm_model_config tiny = {.vocab_size = 9, .d_model = 8, .n_layer = 2, .d_state = 4};

static clm_model *create(const clm_model_config *config, uint64_t seed) {
  clm_model *model;
  assert_int_equal(clm_model_create(test_reference, config, seed, &model), CLM_OK);
  return model;
}

static void save_of(const clm_model_config *config, uint64_t seed) {
  clm_model *model = create(config, seed);
  assert_int_equal(clm_model_save(model, test_folder), CLM_OK);
  clm_model_destroy(&model);
}

static void save(uint64_t seed) { save_of(&tiny, seed); }

static char *all_bytes(clm_model *model, size_t *count) {
  *count = model->layout.total * 4;
  char *data = malloc(*count);
  assert_int_equal(clm_buffer_read(model->parameters, 0, *count, data), CLM_OK);
  return data;
}

static void expect_equal(clm_model *a, clm_model *b) {
  size_t a_count, b_count;
  char *x = all_bytes(a, &a_count), *y = all_bytes(b, &b_count);
  assert_int_equal(a_count, b_count);
  assert_memory_equal(x, y, a_count);
  free(x);
  free(y);
}

static void expect_load(clm_status want, const char *part) {
  clm_model *model;
  clm_status status = clm_model_load(test_reference, test_folder, &model);
  expect_failure(test_reference, status, want, part);
  if (status) assert_null(model);
  clm_model_destroy(&model);
}

/* ---- Several files ---- */

/* model.safetensors becomes two files, tensors in turn, and the index of them; `index` instead, if it is given. */
static void split(const char *index) {
  static const char *const files[] = {"model-1.safetensors", "model-2.safetensors"};
  source whole;
  bytes map = {0};
  assert_int_equal(safetensors_open(test_reference, in_folder("model.safetensors"), &whole), CLM_OK);
  safetensor *parts = calloc(whole.count, sizeof *parts);
  put_text(&map, "{\"metadata\": {}, \"weight_map\": {");
  for (size_t file = 0; file < 2; file++) {
    size_t count = 0;
    for (size_t i = file; i < whole.count; i += 2) {
      const source_tensor *t = &whole.tensors[i];
      void *stored;
      assert_int_equal(source_read_all(test_reference, t, &stored), CLM_OK);
      parts[count] =
          (safetensor){.name = t->name, .dtype = t->dtype_name, .rank = t->rank, .data = stored, .bytes = t->bytes};
      memcpy(parts[count++].shape, t->shape, sizeof t->shape);
      char line[200];
      snprintf(line, sizeof line, "%s\"%s\": \"%s\"", map.count > 40 ? ", " : "", t->name, files[file]);
      put_text(&map, line);
    }
    assert_int_equal(safetensors_write(test_reference, in_folder(files[file]), parts, count, NULL), CLM_OK);
    for (size_t i = 0; i < count; i++) free((void *)(uintptr_t)parts[i].data);
  }
  put_text(&map, "}}");
  if (index) write_file("model.safetensors.index.json", index, strlen(index));
  else write_file("model.safetensors.index.json", map.data, map.count);
  free(parts);
  source_close(&whole);
  bytes_release(&map);
  unlink(in_folder("model.safetensors"));
}

static void test_shards(const test_device *device, const void *data) {
  (void)device, (void)data;
  clm_model *model = create(&tiny, 5), *loaded;
  save(5);
  split(NULL);
  if (clm_model_load(test_reference, test_folder, &loaded)) fail_msg("%s", clm_context_error(test_reference));
  expect_equal(model, loaded);
  clm_model_destroy(&loaded);
  /* transformers takes all tensors of all files that an index lists, whatever it says of each. */
  static const char *const others[] = {
      "{\"weight_map\": {\"lm_head.weight\": \"model-1.safetensors\", \"x\": \"model-2.safetensors\"}}",
      "{\"weight_map\": {\"x\": \"model-1.safetensors\", \"y\": \"model-1.safetensors\", "
      "\"x\": \"model-2.safetensors\"}, \"metadata\": {\"total_size\": 100000000000000000000}}"};
  write_file("model.safetensors.index.json", others[0], strlen(others[0]));
  if (clm_model_load(test_reference, test_folder, &loaded)) fail_msg("%s", clm_context_error(test_reference));
  expect_equal(model, loaded);
  clm_model_destroy(&loaded);
  write_file("model.safetensors.index.json", others[1], strlen(others[1]));
  if (clm_model_load(test_reference, test_folder, &loaded)) fail_msg("%s", clm_context_error(test_reference));
  expect_equal(model, loaded);
  clm_model_destroy(&loaded);
  clm_model_destroy(&model);
  bytes shard = read_file("model-2.safetensors");
  write_file("model-2.safetensors", shard.data, shard.count - 1);
  expect_load(CLM_BAD_FORMAT, "model-2.safetensors is not a valid safetensors file");
  unlink(in_folder("model-2.safetensors"));
  expect_load(CLM_IO_ERROR, "model-2.safetensors: No such file");
  bytes_release(&shard);
}

typedef struct bad_index {
  const char *why, *index;
  clm_status status;
  const char *message;
} bad_index;

#define MAP(file) "{\"weight_map\": {\"backbone.norm_f.weight\": " file "}}"
static const bad_index bad_indexes[] = {
    {"not JSON", "{\"weight_map\"", CLM_BAD_FORMAT, "index.json is not valid JSON"},
    {"an array", "[]", CLM_BAD_FORMAT, "not a valid index"},
    {"no map", "{}", CLM_BAD_FORMAT, "not a valid index"},
    {"a map of text", "{\"weight_map\": \"model-1.safetensors\"}", CLM_BAD_FORMAT, "not a valid index"},
    {"a number for a file", MAP("3"), CLM_BAD_FORMAT, "expected the name of a file in the same folder"},
    {"a path upwards", MAP("\"../model-1.safetensors\""), CLM_BAD_FORMAT,
     "lies in \"../model-1.safetensors\", expected"},
    {"a path from the root", MAP("\"/etc/passwd\""), CLM_BAD_FORMAT, "lies in \"/etc/passwd\", expected"},
    {"a path downwards", MAP("\"a/model-1.safetensors\""), CLM_BAD_FORMAT, "expected the name of a file"},
    {"a path of another system", MAP("\"..\\\\model-1.safetensors\""), CLM_BAD_FORMAT, "expected the name of a file"},
    {"a zero byte in a path", MAP("\"model-1.safetensors\\u0000\""), CLM_BAD_FORMAT, "expected the name of a file"},
    {"the folder itself", MAP("\".\""), CLM_BAD_FORMAT, "expected the name of a file"},
    {"no name", MAP("\"\""), CLM_BAD_FORMAT, "expected the name of a file"},
    {"an empty map", "{\"weight_map\": {}}", CLM_BAD_FORMAT, "has no tensor \"backbone.embeddings.weight\""},
    {"the wrong file", MAP("\"model-1.safetensors\""), CLM_BAD_FORMAT, "index.json has no tensor \"backbone."},
    {"a file that is not there", MAP("\"model-3.safetensors\""), CLM_IO_ERROR, "No such file"},
    {"the same tensor twice", "{\"weight_map\": {\"a\": \"model-1.safetensors\", \"a\": \"model-1.safetensors\"}}",
     CLM_BAD_FORMAT, "index.json has no tensor"},
};

static void test_bad_index(const test_device *device, const void *data) {
  (void)device;
  const bad_index *c = data;
  save(5);
  split(c->index);
  expect_load(c->status, c->message);
}

/* ---- Which file ---- */

static void test_order(const test_device *device, const void *data) {
  (void)device, (void)data;
  save(1);
  write_file("pytorch_model.bin", "x", 1);
  write_file("pytorch_model.bin.index.json", "x", 1);
  write_file("model.safetensors.index.json", "x", 1);
  expect_load(CLM_OK, "");
  unlink(in_folder("model.safetensors"));
  expect_load(CLM_BAD_FORMAT, "model.safetensors.index.json is not");
  unlink(in_folder("model.safetensors.index.json"));
  expect_load(CLM_BAD_FORMAT, "pytorch_model.bin is not");
  unlink(in_folder("pytorch_model.bin"));
  expect_load(CLM_BAD_FORMAT, "pytorch_model.bin.index.json is not");
  unlink(in_folder("pytorch_model.bin.index.json"));
  expect_load(CLM_IO_ERROR, "has no weights");
  clm_model *model;
  expect_failure(test_reference, clm_model_load(test_reference, in_folder("config.json"), &model), CLM_UNSUPPORTED,
                 "neither a model directory nor a GGUF file");
  folder_empty();
  expect_load(CLM_IO_ERROR, "config.json: No such file");
}

/* ---- Values, progress ---- */

static int warnings;
static char warning[400];
static void on_log(void *user, clm_log_level level, const char *message) {
  (void)user;
  if (level != CLM_LOG_WARNING) return;
  warnings++;
  snprintf(warning, sizeof warning, "%s", message);
}

static void test_not_finite(const test_device *device, const void *data) {
  (void)device, (void)data;
  clm_context *context;
  clm_model *model = create(&tiny, 2), *loaded;
  clm_tensor t;
  float values[8] = {1, (float)NAN, 3, -INFINITY, 5, 6, 7, (float)NAN}, got[8];
  assert_int_equal(clm_context_create(&(clm_context_options){.device = "cpu", .log = on_log}, &context), CLM_OK);
  assert_int_equal(clm_model_parameter(model, "backbone.layers.1.norm.weight", &t), CLM_OK);
  assert_int_equal(clm_tensor_write(t, values, sizeof values), CLM_OK);
  assert_int_equal(clm_model_save(model, test_folder), CLM_OK);
  warnings = 0;
  assert_int_equal(clm_model_load(context, test_folder, &loaded), CLM_OK);
  assert_int_equal(warnings, 1);
  assert_non_null(strstr(warning, "3 of 8 values of tensor \"backbone.layers.1.norm.weight\" are not finite"));
  assert_int_equal(clm_model_parameter(loaded, "backbone.layers.1.norm.weight", &t), CLM_OK);
  assert_int_equal(clm_tensor_read(t, got, sizeof got), CLM_OK);
  assert_memory_equal(got, values, sizeof got);
  clm_model_destroy(&loaded);
  clm_model_destroy(&model);
  clm_context_destroy(&context);
}

/* Rows of zeros, of one number, of what is too small and of what is no number, as int8. */
static void test_int8_rows(const test_device *device, const void *data) {
  (void)device, (void)data;
  enum { ROWS = 9, COLUMNS = 8 };
  static const char name[] = "backbone.embeddings.weight", scale_name[] = "backbone.embeddings.weight_scale";
  static const float rows[ROWS][COLUMNS] = {{0},
                                            {-3, 0, 3, 1.5f},
                                            {0, 127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 126.5f},
                                            {NAN, 1},
                                            {1, -INFINITY},
                                            {1e-45f},
                                            {3e38f, -3e38f, 1e38f},
                                            {-1e-30f},
                                            {0}};
  static const int8_t want[ROWS][COLUMNS] = {
      {0}, {-127, 0, 127, 64}, {0, 127, 0, 2, 2, 0, -2, 126}, {0}, {0}, {0}, {127, -127, 42}, {-127}, {0}};
  static const float scales[ROWS] = {0, 3.0f / 127, 1, NAN, NAN, 0, 3e38f / 127, 1e-30f / 127, 0};
  clm_model *model = create(&tiny, 3), *loaded, *again;
  clm_tensor t;
  int8_t got[ROWS][COLUMNS];
  float got_scales[ROWS];
  assert_int_equal(clm_model_parameter(model, name, &t), CLM_OK);
  assert_int_equal(clm_tensor_write(t, rows, sizeof rows), CLM_OK);
  expect_failure(test_reference, clm_model_parameter(model, scale_name, &t), CLM_INVALID_ARGUMENT, "no parameter");
  assert_int_equal(clm_model_save(model, test_folder), CLM_OK);
  const clm_model_load_options options = {.weights = CLM_WEIGHTS_INT8};
  assert_int_equal(clm_model_load_with(test_reference, test_folder, &options, &loaded), CLM_OK);
  assert_int_equal(clm_model_parameter(loaded, name, &t), CLM_OK);
  assert_int_equal(t.dtype, CLM_I8);
  assert_int_equal(clm_tensor_read(t, got, sizeof got), CLM_OK);
  assert_memory_equal(got, want, sizeof got);
  assert_int_equal(clm_model_parameter(loaded, scale_name, &t), CLM_OK);
  assert_int_equal(clm_tensor_read(t, got_scales, sizeof got_scales), CLM_OK);
  for (int i = 0; i < ROWS; i++)
    assert_true(got_scales[i] == scales[i] || (isnan(got_scales[i]) && isnan(scales[i])));

  /* Saved, it is f32, which int8 makes the same integers of. */
  float values[ROWS][COLUMNS];
  assert_int_equal(clm_model_save(loaded, test_folder), CLM_OK);
  assert_int_equal(clm_model_load(test_reference, test_folder, &again), CLM_OK);
  assert_int_equal(clm_model_parameter(again, name, &t), CLM_OK);
  assert_int_equal(t.dtype, CLM_F32);
  assert_int_equal(clm_tensor_read(t, values, sizeof values), CLM_OK);
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < COLUMNS; j++) assert_true(values[i][j] == scales[i] * (float)want[i][j] || isnan(scales[i]));
  clm_model_destroy(&again);
  assert_int_equal(clm_model_load_with(test_reference, test_folder, &options, &again), CLM_OK);
  assert_int_equal(clm_model_parameter(again, name, &t), CLM_OK);
  assert_int_equal(clm_tensor_read(t, got, sizeof got), CLM_OK);
  assert_memory_equal(got, want, sizeof got);
  clm_model_destroy(&again);
  clm_model_destroy(&loaded);
  clm_model_destroy(&model);
}

typedef struct seen {
  uint64_t done, total;
  int calls, allowed;
} seen;

static bool on_progress(void *user, uint64_t done, uint64_t total) {
  seen *s = user;
  assert_true(done > s->done && done <= total);
  s->done = done;
  s->total = total;
  return ++s->calls != s->allowed;
}

static void test_progress(const test_device *device, const void *data) {
  (void)device, (void)data;
  clm_model *model;
  seen s = {0};
  save(3);
  clm_model_load_options options = {.progress = on_progress, .user = &s};
  assert_int_equal(clm_model_load_with(test_reference, test_folder, &options, &model), CLM_OK);
  assert_true(s.calls > 10 && s.done == s.total);
  assert_int_equal(s.total, 4 * clm_model_parameter_count(model));
  clm_model_destroy(&model);
  s = (seen){.allowed = 3};
  expect_failure(test_reference, clm_model_load_with(test_reference, test_folder, &options, &model), CLM_INTERRUPTED,
                 "loading was stopped");
  assert_null(model);
  assert_int_equal(s.calls, 3);
  options = (clm_model_load_options){.weights = (clm_weights_type)9};
  expect_failure(test_reference, clm_model_load_with(test_reference, test_folder, &options, &model),
                 CLM_INVALID_ARGUMENT, "weights is 9");
}

/* ---- Saved and loaded again ---- */

typedef struct kind {
  const char *why;
  clm_model_config config;
  const char *in_config; /* what config.json must say */
} kind;

static const kind kinds[] = {
    {"Mamba", {.vocab_size = 9, .d_model = 8, .n_layer = 2, .d_state = 4}, "\"MambaForCausalLM\""},
    {"FalconMamba",
     {.vocab_size = 9,
      .d_model = 8,
      .n_layer = 2,
      .mixer_norm = true,
      .mixer_norm_epsilon = 1e-4f,
      .untied_head = true},
     "\"FalconMambaForCausalLM\""},
    {"LayerNorm",
     {.vocab_size = 9,
      .d_model = 8,
      .n_layer = 2,
      .layer_norm = true,
      .d_conv = 3,
      .dt_rank = 2,
      .no_conv_bias = true,
      .norm_epsilon = 2e-5f,
      .projection_bias = true},
     "\"rms_norm\": false"},
};

static void test_round_trip(const test_device *device, const void *data) {
  (void)device;
  const kind *k = data;
  static const char *const types[] = {"float32", "float16", "bfloat16"};
  clm_model *model = create(&k->config, 7);
  assert_int_equal(clm_model_save(model, test_folder), CLM_OK);
  for (clm_weights_type type = CLM_WEIGHTS_F32; type <= CLM_WEIGHTS_BF16; type++) {
    const clm_model_load_options as_type = {.weights = type}, as_stored = {.weights = CLM_WEIGHTS_AS_STORED};
    clm_model *held, *again;
    if (clm_model_load_with(test_reference, test_folder, &as_type, &held))
      fail_msg("%s", clm_context_error(test_reference));
    assert_int_equal(clm_model_save(held, test_folder), CLM_OK);
    if (clm_model_load_with(test_reference, test_folder, &as_stored, &again))
      fail_msg("%s", clm_context_error(test_reference));
    expect_equal(held, again);
    if (type == CLM_WEIGHTS_F32) expect_equal(model, again);
    const clm_model_config *a = clm_model_configuration(held), *b = clm_model_configuration(again);
    assert_memory_equal(a, b, offsetof(clm_model_config, projection_bias));
    assert_true(a->layer_norm == b->layer_norm && a->mixer_norm == b->mixer_norm &&
                a->untied_head == b->untied_head && a->no_conv_bias == b->no_conv_bias &&
                a->projection_bias == b->projection_bias && a->mixer_norm_epsilon == b->mixer_norm_epsilon);
    bytes json = read_file("config.json");
    put_number(&json, 0, 1);
    assert_non_null(strstr((char *)json.data, k->in_config));
    if (!k->config.layer_norm) assert_non_null(strstr((char *)json.data, types[type]));
    bytes_release(&json);
    clm_model_destroy(&held);
    clm_model_destroy(&again);
    assert_int_equal(clm_model_save(model, test_folder), CLM_OK);
  }
  clm_model_destroy(&model);
}

/* ---- What the files say of text is kept ---- */

/* Of a model with an MLP, too, whose own form has no ids. */
static void test_kept(const test_device *device, const void *data) {
  (void)device;
  clm_model_config config = tiny;
  config.layers = data;
  static const char generation[] = "{\"eos_token_id\": [0, 82],\n \"top_p\": 0.9}";
  static const struct {
    const char *key, *value; /* of config.json */
    bool kept;
  } ids[] = {{"bos_token_id", "1", true},      {"eos_token_id", "[0, 7]", true},
             {"pad_token_id", "100000", true}, {"eos_token_id", "\"a\"", false},
             {"bos_token_id", "null", false},  {"pad_token_id", "[1, \"a\"]", false}};
  clm_model *model;
  for (size_t i = 0; i < TEST_COUNT(ids); i++) {
    json_error_t error;
    folder_empty();
    save_of(&config, 3);
    json_t *json = json_load_file(in_folder("config.json"), 0, &error),
           *value = json_loads(ids[i].value, JSON_DECODE_ANY, &error);
    assert_int_equal(json_object_set(json, ids[i].key, value), 0);
    assert_int_equal(json_dump_file(json, in_folder("config.json"), 0), 0);
    json_decref(json);
    if (i % 2 == 0) write_file("generation_config.json", generation, sizeof generation - 1);
    if (clm_model_load(test_reference, test_folder, &model)) fail_msg("%s", clm_context_error(test_reference));
    folder_empty();
    assert_int_equal(clm_model_save(model, test_folder), CLM_OK);
    clm_model_destroy(&model);
    json = json_load_file(in_folder("config.json"), 0, &error);
    const json_t *got = json_object_get(json, ids[i].key);
    assert_true(ids[i].kept ? json_equal(got, value) : !got || json_is_null(got));
    json_decref(json);
    json_decref(value);
    if (i % 2 == 0) {
      bytes text = read_file("generation_config.json");
      assert_int_equal(text.count, sizeof generation - 1);
      assert_memory_equal(text.data, generation, text.count);
      bytes_release(&text);
    } else assert_int_not_equal(access(in_folder("generation_config.json"), F_OK), 0);
  }
}

static void add(void) {
  test_add(NULL, test_kept, NULL, "ids and generation_config.json are kept");
  test_add(NULL, test_kept, "mamba1 mlp(width=128)", "ids and generation_config.json are kept, with an MLP");
  test_add(NULL, test_shards, NULL, "several files");
  for (size_t i = 0; i < TEST_COUNT(bad_indexes); i++)
    test_add(NULL, test_bad_index, &bad_indexes[i], "index, %s", bad_indexes[i].why);
  test_add(NULL, test_order, NULL, "which file");
  test_add(NULL, test_not_finite, NULL, "values that are not finite");
  test_add(NULL, test_int8_rows, NULL, "rows held as int8");
  test_add(NULL, test_progress, NULL, "progress");
  for (size_t i = 0; i < TEST_COUNT(kinds); i++)
    test_add(NULL, test_round_trip, &kinds[i], "saved and loaded, %s", kinds[i].why);
}

int main(void) {
  if (!folder_make()) return EXIT_FAILURE;
  int status = test_main_reference("directories", add);
  return folder_remove() ? status : EXIT_FAILURE;
}
