/* config.json and model.safetensors: what others write is read, what is damaged or hostile gets a message. */
#include "cmocka_all.h"
#include "core/file.h"
#include "devices.h"
#include "files/convert.h"
#include "files/safetensors.h"
#include "model/config/config.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/clmamba-test-XXXXXX";
static char path[128];

static void use_file(const char *name) { snprintf(path, sizeof path, "%s/%s", folder, name); }

static void write_bytes(const void *data, size_t bytes) {
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(data, 1, bytes, f), bytes);
  assert_int_equal(fclose(f), 0);
}

static void expect_message(clm_status got, clm_status want, const char *part) {
  const char *error = clm_context_error(test_reference);
  if (got != want || !strstr(error, part))
    fail_msg("got %s: \"%s\", expected %s and \"%s\"", clm_status_string(got), error, clm_status_string(want), part);
}

/* ---- safetensors ---- */

typedef struct hostile {
  const char *why, *header;
  size_t data_bytes;
  const char *message;
} hostile;

static const hostile hostiles[] = {
    {"not JSON", "{", 0, "not a JSON object"},
    {"an array", "[]", 0, "not a JSON object"},
    {"twice the same name",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],"
     "\"data_offsets\":[4,8]}}",
     8, "same name twice"},
    {"no shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "lacks"},
    {"shape of text", "{\"a\":{\"dtype\":\"F32\",\"shape\":[\"1\"],\"data_offsets\":[0,4]}}", 4, "whole numbers"},
    {"negative shape", "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "whole numbers"},
    {"six dimensions", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
     "more than 5 dimensions"},
    {"a product that overflows",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,4]}}", 4, "impossible shape"},
    {"a product that wraps to the right size",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,1],\"data_offsets\":[0,0]}}", 0, "impossible shape"},
    {"unknown dtype", "{\"a\":{\"dtype\":\"Q4\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unknown dtype"},
    {"outside the file", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, "outside the file"},
    {"far outside",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[9223372036854775803,9223372036854775807]}}", 4,
     "outside the file"},
    {"backwards", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "bad data_offsets"},
    {"negative offset", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "bad data_offsets"},
    {"offsets that do not fit the shape", "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
     "do not fit its shape"},
    {"overlap",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],"
     "\"data_offsets\":[4,12]}}",
     12, "does not begin where"},
    {"hole",
     "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],"
     "\"data_offsets\":[8,12]}}",
     12, "does not begin where"},
    {"bytes left over", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 8, "left over"},
};

static void write_safetensors(const char *header, uint64_t claimed, size_t data_bytes) {
  size_t length = strlen(header), bytes = 8 + length + data_bytes;
  char *file = calloc(bytes, 1);
  for (int i = 0; i < 8; i++) file[i] = (char)(unsigned char)(claimed >> (8 * i));
  memcpy(file + 8, header, length);
  write_bytes(file, bytes);
  free(file);
}

static void test_hostile(const test_device *device, const void *data) {
  (void)device;
  const hostile *h = data;
  source file;
  use_file("hostile.safetensors");
  write_safetensors(h->header, strlen(h->header), h->data_bytes);
  expect_message(safetensors_open(test_reference, path, &file), CLM_BAD_FORMAT, h->message);
  assert_null(file.tensors);
}

static void test_hostile_lengths(const test_device *device, const void *data) {
  (void)device, (void)data;
  const struct {
    uint64_t claimed;
    const char *message;
  } lengths[] = {{3, "cut off"}, {100000000, "cut off"}, {100000001, "too long"}, {UINT64_MAX, "too long"}};
  source file;
  use_file("hostile.safetensors");
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
    write_safetensors("{}", lengths[i].claimed, 0);
    expect_message(safetensors_open(test_reference, path, &file), CLM_BAD_FORMAT, lengths[i].message);
  }
  char deep[100001]; /* brackets in brackets: an end is set to them */
  memset(deep, '[', sizeof deep - 1);
  deep[sizeof deep - 1] = '\0';
  write_safetensors(deep, sizeof deep - 1, 0);
  expect_message(safetensors_open(test_reference, path, &file), CLM_BAD_FORMAT, "not a JSON object");
  write_bytes("\2\0\0\0\0\0\0", 7);
  expect_message(safetensors_open(test_reference, path, &file), CLM_BAD_FORMAT, "too short");
  write_bytes("", 0);
  expect_message(safetensors_open(test_reference, path, &file), CLM_BAD_FORMAT, "too short");
  unlink(path);
  expect_message(safetensors_open(test_reference, path, &file), CLM_IO_ERROR, "No such file");
}

/* f16, bf16 and f32 of every kind of number. */
static void test_dtypes(const test_device *device, const void *data) {
  (void)device, (void)data;
  static const uint16_t half[] = {0x3c00, 0xc000, 0x0001, 0x8001, 0x03ff, 0x0400, 0x7bff, 0x7c00, 0x0000, 0x3555};
  static const float half_values[] = {1,        -2,    0x1p-24f, -0x1p-24f, 0x1.ff8p-15f,
                                      0x1p-14f, 65504, INFINITY, 0,         0x1.554p-2f};
  static const uint16_t bfloat[] = {0x3f80, 0xc000, 0x7f80, 0x0001, 0x4049};
  static const float bfloat_values[] = {1, -2, INFINITY, 0x1p-133f, 3.140625f};
  static const int32_t numbers[] = {1};
  safetensor tensors[] = {
      {.name = "half", .dtype = "F16", .rank = 2, .shape = {2, 5}, .data = half, .bytes = sizeof half},
      {.name = "bfloat", .dtype = "BF16", .rank = 1, .shape = {5}, .data = bfloat, .bytes = sizeof bfloat},
      {.name = "scalar", .dtype = "F32", .rank = 0, .data = &bfloat_values[4], .bytes = 4},
      {.name = "empty", .dtype = "F32", .rank = 1, .shape = {0}, .data = NULL, .bytes = 0},
      {.name = "number", .dtype = "I32", .rank = 1, .shape = {1}, .data = numbers, .bytes = 4},
  };
  const safetensors_text texts[] = {{"why", "a \"test\""}, {NULL, NULL}};
  source file;
  float values[10];
  void *stored;
  use_file("dtypes.safetensors");
  assert_int_equal(safetensors_write(test_reference, path, tensors, 5, texts), CLM_OK);
  assert_int_equal(safetensors_open(test_reference, path, &file), CLM_OK);
  assert_int_equal(file.count, 5);
  assert_string_equal(safetensors_metadata(&file, "why"), "a \"test\"");
  for (size_t i = 0; i < 3; i++) {
    const source_tensor *t = source_find(&file, tensors[i].name);
    const size_t count = tensors[i].bytes / source_block_bytes(t->dtype);
    const float *want = i == 0 ? half_values : i == 1 ? bfloat_values : &bfloat_values[4];
    assert_string_equal(t->dtype_name, tensors[i].dtype);
    if (i == 0) assert_int_equal(t->place % 8, 0);
    assert_int_equal(source_read_all(test_reference, t, &stored), CLM_OK);
    assert_int_equal(convert(&(conversion){.from = t->dtype}, stored, count, values), i < 2);
    free(stored);
    assert_memory_equal(values, want, count * sizeof *want);
  }
  assert_int_equal(source_find(&file, "number")->dtype, SOURCE_OTHER);
  assert_null(source_find(&file, "absent"));
  source_close(&file);
  unlink(path);
}

/* ---- config.json ---- */

typedef struct config_case {
  const char *why, *json;
  clm_status status;
  const char *message;     /* of a failure                      */
  clm_model_config config; /* of a success, 0: not looked at    */
} config_case;

#define SHAPE "\"hidden_size\": 768, \"num_hidden_layers\": 24, \"vocab_size\": 50280"
static const config_case configs[] = {
    {"Hugging Face, least",
     "{\"model_type\": \"mamba\", " SHAPE "}",
     CLM_OK,
     NULL,
     {.vocab_size = 50280,
      .d_model = 768,
      .n_layer = 24,
      .d_state = 16,
      .d_conv = 4,
      .d_inner = 1536,
      .dt_rank = 48}},
    {"Hugging Face, more",
     "{\"model_type\": \"mamba\", " SHAPE
     ", \"time_step_rank\": \"auto\", \"expand\": 2, \"intermediate_size\": 1536, "
     "\"state_size\": 8, \"conv_kernel\": 3, \"use_bias\": true, \"use_conv_bias\": false, "
     "\"tie_word_embeddings\": false, \"layer_norm_epsilon\": 1e-6, \"eos_token_id\": null, \"hidden_act\": "
     "\"silu\"}",
     CLM_OK,
     NULL,
     {.d_state = 8, .d_conv = 3, .dt_rank = 48, .projection_bias = true, .no_conv_bias = true, .untied_head = true}},
    {"original",
     "{\"d_model\": 768, \"n_layer\": 24, \"vocab_size\": 50277, \"ssm_cfg\": {}, \"rms_norm\": true}",
     CLM_OK,
     NULL,
     {.vocab_size = 50280, .d_model = 768, .n_layer = 24, .d_inner = 1536}},
    {"original, second generation",
     "{\"d_model\": 768, \"n_layer\": 24, \"vocab_size\": 50277, \"ssm_cfg\": {\"layer\": \"Mamba2\"}}",
     CLM_OK,
     NULL,
     {.vocab_size = 50280, .d_inner = 1536, .d_state = 128, .head_dim = 64, .n_groups = 1, .layers = "mamba2"}},
    {"original, third generation",
     "{\"d_model\": 768, \"n_layer\": 24, \"vocab_size\": 50277, \"ssm_cfg\": {\"layer\": \"Mamba3\"}}",
     CLM_UNSUPPORTED,
     "expected Mamba1 or Mamba2",
     {0}},
    {"Mamba-2, least",
     "{\"model_type\": \"mamba2\", \"hidden_size\": 4096, \"num_hidden_layers\": 64, \"vocab_size\": 32768}",
     CLM_OK,
     NULL,
     {.d_inner = 8192, .d_state = 128, .head_dim = 64, .n_groups = 8, .untied_head = true, .layers = "mamba2"}},
    {"Mamba-2, more",
     "{\"model_type\": \"mamba2\", " SHAPE
     ", \"num_heads\": 24, \"head_dim\": 64, \"n_groups\": 2, \"state_size\": 64, "
     "\"tie_word_embeddings\": true, \"time_step_limit\": [0.0, Infinity], \"time_step_rank\": 256, \"use_bias\": "
     "true}",
     CLM_OK,
     NULL,
     {.d_inner = 1536, .d_state = 64, .head_dim = 64, .n_groups = 2, .projection_bias = true, .layers = "mamba2"}},
    {"original, more",
     "{\"d_model\": 768, \"n_layer\": 24, \"vocab_size\": 50277, \"pad_vocab_size_multiple\": 16, \"ssm_cfg\": "
     "{\"layer\": \"Mamba1\", \"d_state\": 8, \"d_conv\": 3, \"dt_rank\": 40, \"expand\": 3, \"bias\": true, "
     "\"conv_bias\": false, \"dt_rank\": \"auto\"}, \"rms_norm\": false, \"tie_embeddings\": false, "
     "\"attn_layer_idx\": [], \"d_intermediate\": 0}",
     CLM_OK,
     NULL,
     {.vocab_size = 50288,
      .d_inner = 2304,
      .d_state = 8,
      .d_conv = 3,
      .dt_rank = 48,
      .projection_bias = true,
      .no_conv_bias = true,
      .untied_head = true,
      .layer_norm = true}},
    {"original, attention",
     "{\"d_model\": 768, \"n_layer\": 24, \"vocab_size\": 50277, \"attn_layer_idx\": [3]}",
     CLM_UNSUPPORTED,
     "attention layers",
     {0}},
    {"original, MLP",
     "{\"d_model\": 768, \"n_layer\": 24, \"vocab_size\": 50277, \"d_intermediate\": 64}",
     CLM_OK,
     NULL,
     {.vocab_size = 50280, .n_layer = 48, .layers = "mamba1 mlp(width=128)"}},
    {"original, Mamba-2 and MLP",
     "{\"d_model\": 768, \"n_layer\": 24, \"vocab_size\": 50280, \"d_intermediate\": 1537, \"ssm_cfg\": {\"layer\": "
     "\"Mamba2\"}}",
     CLM_OK,
     NULL,
     {.n_layer = 48, .d_state = 128, .head_dim = 64, .layers = "mamba2 mlp(width=1664)"}},
    {"original, MLP of a fraction",
     "{\"d_model\": 768, \"n_layer\": 24, \"vocab_size\": 50277, \"d_intermediate\": 64.5}",
     CLM_BAD_FORMAT,
     "\"d_intermediate\" is not a whole number of channels",
     {0}},
    {"original, MLP of less than nothing",
     "{\"d_model\": 768, \"n_layer\": 24, \"vocab_size\": 50277, \"d_intermediate\": -1}",
     CLM_BAD_FORMAT,
     "\"d_intermediate\" is not a whole number of channels",
     {0}},
    {"original, MLP, too many layers",
     "{\"d_model\": 768, \"n_layer\": 4096, \"vocab_size\": 50277, \"d_intermediate\": 64}",
     CLM_BAD_FORMAT,
     "n_layer is 8192",
     {0}},
    {"original, padding of nothing",
     "{\"d_model\": 768, \"n_layer\": 24, \"vocab_size\": 50277, \"pad_vocab_size_multiple\": 0}",
     CLM_BAD_FORMAT,
     "pad_vocab_size_multiple",
     {0}},
    {"FalconMamba, its expand is not that of its size",
     "{\"model_type\": \"falcon_mamba\", \"hidden_size\": 4096, \"num_hidden_layers\": 64, \"vocab_size\": 65024, "
     "\"expand\": 16, \"intermediate_size\": 8192, \"mixer_rms_eps\": 1e-6, \"tie_word_embeddings\": false}",
     CLM_OK,
     NULL,
     {.d_inner = 8192, .expand = 2, .dt_rank = 256, .untied_head = true, .mixer_norm = true}},
    {"a size that is no multiple",
     "{\"model_type\": \"mamba\", " SHAPE ", \"intermediate_size\": 1000}",
     CLM_OK,
     NULL,
     {.d_inner = 1000, .expand = 1, .dt_rank = 48}},
    {"another architecture", "{\"model_type\": \"llama\", \"hidden_size\": 64}", CLM_UNSUPPORTED, "\"llama\"", {0}},
    {"no architecture", "{\"hidden_size\": 64}", CLM_UNSUPPORTED, "absent", {0}},
    {"another activation",
     "{\"model_type\": \"mamba\", \"hidden_act\": \"gelu\", " SHAPE "}",
     CLM_UNSUPPORTED,
     "gelu",
     {0}},
    {"no size", "{\"model_type\": \"mamba\"}", CLM_BAD_FORMAT, "vocab_size is 0", {0}},
    {"size of text", "{\"model_type\": \"mamba\", \"hidden_size\": \"big\"}", CLM_BAD_FORMAT, "hidden_size", {0}},
    {"negative size", "{\"model_type\": \"mamba\", \"hidden_size\": -5}", CLM_BAD_FORMAT, "hidden_size", {0}},
    {"hostile size",
     "{\"model_type\": \"mamba\", \"hidden_size\": 4611686018427387904, \"num_hidden_layers\": 1}",
     CLM_BAD_FORMAT,
     "config.json",
     {0}},
    {"not an object", "[1, 2]", CLM_BAD_FORMAT, "not a JSON object", {0}},
    {"not JSON", "{\"model_type\":", CLM_BAD_FORMAT, "line 1", {0}},
    {"a number too large",
     "{\"model_type\": \"mamba\", \"hidden_size\": 1e400}",
     CLM_BAD_FORMAT,
     "\"hidden_size\" is not a whole number",
     {0}},
    {"an integer too large",
     "{\"model_type\": \"mamba\", \"hidden_size\": 100000000000000000000}",
     CLM_BAD_FORMAT,
     "\"hidden_size\" is not a whole number",
     {0}},
    {"an epsilon without end",
     "{\"model_type\": \"mamba\", \"layer_norm_epsilon\": Infinity, " SHAPE "}",
     CLM_BAD_FORMAT,
     "norm_epsilon is inf",
     {0}},
    {"numbers that only Python has, none of them needed",
     "{\"model_type\": \"mamba\", " SHAPE ", \"max_length\": 1000000000000000019884624838656, "
     "\"time_step_limit\": [0.0, {\"__float__\": \"Infinity\"}], \"a\": [-Infinity, NaN], \"b\": \"\\ud83d\"}",
     CLM_OK,
     NULL,
     {.vocab_size = 50280, .d_model = 768, .n_layer = 24}},
    {"empty", "", CLM_BAD_FORMAT, "not valid JSON", {0}},
};

static void test_config(const test_device *device, const void *data) {
  (void)device;
  const config_case *c = data;
  clm_model_config got;
  use_file("config.json");
  write_bytes(c->json, strlen(c->json));
  source_scales scales;
  clm_status status = config_read(test_reference, path, &got, &scales);
  if (c->status) {
    expect_message(status, c->status, c->message);
    return;
  }
  if (status) fail_msg("%s", clm_context_error(test_reference));
  const int64_t *want = &c->config.vocab_size, *have = &got.vocab_size; /* the whole numbers stand side by side */
  for (size_t i = 0; i < offsetof(clm_model_config, norm_epsilon) / sizeof *want; i++)
    if (want[i]) assert_int_equal(have[i], want[i]);
  assert_int_equal(got.projection_bias, c->config.projection_bias);
  assert_int_equal(got.no_conv_bias, c->config.no_conv_bias);
  assert_int_equal(got.untied_head, c->config.untied_head);
  assert_int_equal(got.layer_norm, c->config.layer_norm);
  assert_int_equal(got.mixer_norm, c->config.mixer_norm);
  assert_int_equal(got.n_groups, c->config.n_groups ? c->config.n_groups : 1);
  if (c->config.head_dim) assert_int_equal(got.head_dim, c->config.head_dim);
  assert_true(got.dt_limit_low == 0 && got.dt_limit_high == 0);
  if (c->config.layers) assert_string_equal(got.layers, c->config.layers);
  else assert_null(got.layers);
  config_free(&got);
}

/* ---- A model directory as others leave it ---- */

/* Renames the first `from` in the file's header: of equal length, so that nothing moves. */
static void patch(const char *from, const char *to) {
  char *text;
  size_t bytes, length = strlen(from);
  assert_int_equal(strlen(to), length);
  assert_int_equal(file_read(test_reference, path, 1 << 20, &text, &bytes), CLM_OK);
  char *at = NULL;
  for (size_t i = 0; i + length <= bytes && !at; i++)
    if (memcmp(text + i, from, length) == 0) at = text + i;
  assert_non_null(at);
  memcpy(at, to, length);
  write_bytes(text, bytes);
  free(text);
}

static void cut(size_t off) {
  char *text;
  size_t bytes;
  assert_int_equal(file_read(test_reference, path, 1 << 20, &text, &bytes), CLM_OK);
  write_bytes(text, bytes - off);
  free(text);
}

static void test_directory(const test_device *device, const void *data) {
  (void)device, (void)data;
  clm_model *model, *loaded;
  assert_int_equal(
      clm_model_create(test_reference, &(clm_model_config){.vocab_size = 9, .d_model = 8, .n_layer = 2}, 1, &model),
      CLM_OK);
  assert_int_equal(clm_model_save(model, folder), CLM_OK);
  use_file("model.safetensors");
  patch("\"backbone.embeddings.weight\"", "\"backbone.embedding.weight\" "); /* the original's name */
  assert_int_equal(clm_model_load(test_reference, folder, &loaded), CLM_OK);
  clm_model_destroy(&loaded);
  patch("backbone.norm_f.weight", "backbone.norm_g.weight");
  expect_message(clm_model_load(test_reference, folder, &loaded), CLM_BAD_FORMAT,
                 "no tensor \"backbone.norm_f.weight\"");
  assert_null(loaded);
  assert_int_equal(clm_model_save(model, folder), CLM_OK);
  patch("[9,8]", "[8,9]");
  expect_message(clm_model_load(test_reference, folder, &loaded), CLM_BAD_FORMAT,
                 "(8, 9), config.json expects (9, 8)");
  for (size_t off = 1; off < 1000; off = off * 3 + 1) {
    assert_int_equal(clm_model_save(model, folder), CLM_OK);
    cut(off);
    expect_message(clm_model_load(test_reference, folder, &loaded), CLM_BAD_FORMAT, "truncated");
  }
  clm_model_destroy(&model);
}

/* How a write fails is in tests/core/test_output.c. */
static void test_replace(const test_device *device, const void *data) {
  (void)device, (void)data;
  use_file("kept");
  write_bytes("old", 3);
  char *text;
  size_t bytes;
  assert_int_equal(file_replace(test_reference, path, (file_part[]){{"ne", 2}, {"w", 1}}, 2), CLM_OK);
  assert_int_equal(file_read(test_reference, path, 100, &text, &bytes), CLM_OK);
  assert_string_equal(text, "new");
  free(text);
  expect_message(file_read(test_reference, path, 2, &text, &bytes), CLM_BAD_FORMAT, "at most 2");
  unlink(path);
}

static void add(void) {
  for (size_t i = 0; i < sizeof hostiles / sizeof *hostiles; i++)
    test_add(NULL, test_hostile, &hostiles[i], "safetensors, %s", hostiles[i].why);
  test_add(NULL, test_hostile_lengths, NULL, "safetensors, lengths of the header");
  test_add(NULL, test_dtypes, NULL, "safetensors, dtypes");
  for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
    test_add(NULL, test_config, &configs[i], "config.json, %s", configs[i].why);
  test_add(NULL, test_directory, NULL, "model directory");
  test_add(NULL, test_replace, NULL, "a file in parts");
}

int main(void) {
  if (!mkdtemp(folder)) return EXIT_FAILURE;
  int status = test_main("files", add);
  static const char *const left[] = {"hostile.safetensors", "config.json", "model.safetensors"};
  for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
    use_file(left[i]);
    unlink(path);
  }
  return rmdir(folder) == 0 ? status : EXIT_FAILURE;
}
