/* GGUF files that the test writes from a model of its own: what they hold is loaded, what is damaged or hostile gets
 * a message. */
#include "cmocka_all.h"
#include "core/dtype.h"
#include "devices.h"
#include "files/gguf.h"
#include "folder.h"
#include "model/model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { F32 = 0, F16 = 1, Q8_0 = 8, BF16 = 30 };
#define NAME "model.gguf"

static const clm_model_config small = {.vocab_size = 9, .d_model = 32, .n_layer = 1, .d_state = 4, .dt_rank = 3};

/* ---- Writing ---- */

static void gguf_text_of(bytes *b, const char *text) {
  put_number(b, strlen(text), 8);
  put_text(b, text);
}

static void put_u32(bytes *b, const char *key, uint32_t value) {
  gguf_text_of(b, key);
  put_number(b, GGUF_U32, 4);
  put_number(b, value, 4);
}

static void put_string(bytes *b, const char *key, const char *value) {
  gguf_text_of(b, key);
  put_number(b, GGUF_STRING, 4);
  gguf_text_of(b, value);
}

/* One parameter as llama.cpp's converter stores it; the values that a reader then has are written back. */
static void put_values(bytes *b, int dtype, bool is_A, float *values, size_t count) {
  for (size_t i = 0; is_A && i < count; i++) values[i] = -expf(values[i]);
  for (size_t i = 0; i < count; i++) {
    if (dtype == F32) put(b, &values[i], 4);
    else if (dtype == Q8_0) {
      float most = 0;
      for (size_t k = 0; i % 32 == 0 && k < 32; k++) most = fmaxf(most, fabsf(values[i + k]));
      if (i % 32 == 0) put_number(b, dtype_to_f16(most / 127), 2);
      const unsigned char *scale = b->data + b->count - i % 32 - 2;
      float d = dtype_from_f16((uint16_t)(scale[0] | scale[1] << 8));
      int8_t q = (int8_t)lrintf(d > 0 ? fminf(fmaxf(values[i] / d, -127), 127) : 0);
      put(b, &q, 1);
      values[i] = d * (float)q;
    } else {
      uint16_t h = dtype == F16 ? dtype_to_f16(values[i]) : dtype_to_bf16(values[i]);
      put_number(b, h, 2);
      values[i] = dtype == F16 ? dtype_from_f16(h) : dtype_from_bf16(h);
    }
  }
  for (size_t i = 0; is_A && i < count; i++) values[i] = logf(-values[i]);
}

static const struct {
  const char *held, *name; /* in the model, and in the file */
  bool matrix, conv, is_A;
} names[] = {{"backbone.embeddings.weight", "token_embd.weight", .matrix = true},
             {"backbone.norm_f.weight", "output_norm.weight", .matrix = false},
             {"backbone.layers.0.norm.weight", "blk.0.attn_norm.weight", .matrix = false},
             {"backbone.layers.0.mixer.in_proj.weight", "blk.0.ssm_in.weight", .matrix = true},
             {"backbone.layers.0.mixer.conv1d.weight", "blk.0.ssm_conv1d.weight", .conv = true},
             {"backbone.layers.0.mixer.conv1d.bias", "blk.0.ssm_conv1d.bias", .matrix = false},
             {"backbone.layers.0.mixer.x_proj.weight", "blk.0.ssm_x.weight", .matrix = true},
             {"backbone.layers.0.mixer.dt_proj.weight", "blk.0.ssm_dt.weight", .matrix = false},
             {"backbone.layers.0.mixer.dt_proj.bias", "blk.0.ssm_dt.bias", .matrix = false},
             {"backbone.layers.0.mixer.A_log", "blk.0.ssm_a", .is_A = true},
             {"backbone.layers.0.mixer.D", "blk.0.ssm_d", .matrix = false},
             {"backbone.layers.0.mixer.out_proj.weight", "blk.0.ssm_out.weight", .matrix = true}};
#define TENSORS (sizeof names / sizeof *names)

static const weight *weight_named(const clm_model *model, const char *name) {
  for (size_t i = 0; i < model->layout.item_count; i++) {
    char own[WEIGHT_NAME_MAX];
    weights_name(&model->layout.items[i], own);
    if (strcmp(own, name) == 0) return &model->layout.items[i];
  }
  fail_msg("the model has no \"%s\"", name);
  return NULL;
}

static void pad(bytes *b) {
  while (b->count % 32) put_number(b, 0, 1);
}

/* Version 3; values[] becomes what a reader must have. */
static bytes gguf_of(clm_model *model, int dtype, bool falcon, float *values[TENSORS]) {
  bytes b = {0}, data = {0};
  put_text(&b, "GGUF");
  put_number(&b, 3, 4);
  put_number(&b, TENSORS, 8);
  put_number(&b, 11, 8);
  put_string(&b, "general.architecture", "mamba");
  put_u32(&b, "mamba.embedding_length", 32);
  put_u32(&b, "mamba.block_count", 1);
  put_u32(&b, "mamba.ssm.conv_kernel", 4);
  put_u32(&b, "mamba.ssm.inner_size", 64);
  put_u32(&b, "mamba.ssm.state_size", 4);
  put_u32(&b, "mamba.ssm.time_step_rank", 3);
  gguf_text_of(&b, "mamba.attention.layer_norm_rms_epsilon");
  put_number(&b, GGUF_F32, 4);
  put(&b, &(float){1e-5f}, 4);
  gguf_text_of(&b, "mamba.ssm.dt_b_c_rms");
  put_number(&b, GGUF_BOOL, 4);
  put_number(&b, falcon, 1);
  gguf_text_of(&b, "tokenizer.ggml.tokens");
  put_number(&b, GGUF_ARRAY, 4);
  put_number(&b, GGUF_STRING, 4);
  put_number(&b, 2, 8);
  gguf_text_of(&b, "one");
  gguf_text_of(&b, "two two");
  put_string(&b, "general.name", "a test");
  for (size_t i = 0; i < TENSORS; i++) {
    const weight *w = weight_named(model, names[i].held);
    const int type = names[i].matrix ? dtype : F32;
    gguf_text_of(&b, names[i].name);
    put_number(&b, names[i].conv ? 2 : (uint64_t)w->rank, 4);
    for (int d = w->rank - 1; d >= 0; d--)
      if (!names[i].conv || d != 1) put_number(&b, (uint64_t)w->shape[d], 8);
    put_number(&b, (uint64_t)type, 4);
    put_number(&b, data.count, 8);
    values[i] = malloc(w->count * sizeof(float));
    assert_int_equal(clm_buffer_read(model->parameters, w->offset * 4, w->count * 4, values[i]), CLM_OK);
    put_values(&data, type, names[i].is_A, values[i], w->count);
    pad(&data);
  }
  pad(&b);
  put(&b, data.data, data.count);
  bytes_release(&data);
  return b;
}

static bytes make_gguf(int dtype, bool falcon) {
  clm_model *model;
  float *values[TENSORS];
  assert_int_equal(clm_model_create(test_reference, &small, 3, &model), CLM_OK);
  bytes b = gguf_of(model, dtype, falcon, values);
  for (size_t i = 0; i < TENSORS; i++) free(values[i]);
  clm_model_destroy(&model);
  return b;
}

/* ---- Reading ---- */

static void test_dtype(const test_device *device, const void *data) {
  (void)device;
  const int dtype = *(const int *)data;
  clm_model *model, *loaded;
  float *want[TENSORS];
  assert_int_equal(clm_model_create(test_reference, &small, 3, &model), CLM_OK);
  bytes b = gguf_of(model, dtype, dtype == BF16, want);
  write_file(NAME, b.data, b.count);
  if (clm_model_load(test_reference, in_folder(NAME), &loaded)) fail_msg("%s", clm_context_error(test_reference));
  const clm_model_config *c = clm_model_configuration(loaded);
  assert_int_equal(c->vocab_size, 9);
  assert_int_equal(c->d_inner, 64);
  assert_int_equal(c->mixer_norm, dtype == BF16);
  assert_true(c->norm_epsilon == 1e-5f);
  for (size_t i = 0; i < TENSORS; i++) {
    const weight *w = weight_named(loaded, names[i].held);
    float *got = malloc(w->count * sizeof *got);
    assert_int_equal(clm_buffer_read(loaded->parameters, w->offset * 4, w->count * 4, got), CLM_OK);
    for (size_t k = 0; k < w->count; k++)
      if (got[k] != want[i][k])
        fail_msg("%s: element %zu is %.9g, expected %.9g", names[i].name, k, (double)got[k], (double)want[i][k]);
    free(got);
    free(want[i]);
  }
  clm_model_destroy(&loaded);
  clm_model_destroy(&model);
  bytes_release(&b);
}

static void test_values(const test_device *device, const void *data) {
  (void)device, (void)data;
  bytes b = make_gguf(F32, false);
  source file;
  gguf_text text;
  int64_t number;
  write_file(NAME, b.data, b.count);
  assert_int_equal(gguf_open(test_reference, in_folder(NAME), &file), CLM_OK);
  const gguf_value *tokens = gguf_find(&file, "tokenizer.ggml.tokens");
  assert_true(tokens->array && tokens->type == GGUF_STRING && tokens->count == 2);
  const void *at = tokens->data;
  text = gguf_next_text(&at);
  assert_true(text.bytes == 3 && memcmp(text.text, "one", 3) == 0);
  text = gguf_next_text(&at);
  assert_true(text.bytes == 7 && memcmp(text.text, "two two", 7) == 0);
  assert_true(gguf_string(&file, "general.name", &text) && text.bytes == 6);
  assert_true(gguf_integer(&file, "mamba.block_count", &number) && number == 1);
  assert_false(gguf_integer(&file, "general.name", &number));
  assert_false(gguf_string(&file, "tokenizer.ggml.tokens", &text));
  assert_null(gguf_find(&file, "general.nam"));
  source_close(&file);
  bytes_release(&b);
}

/* Cut anywhere, the file is refused. */
static void test_cut(const test_device *device, const void *data) {
  (void)device, (void)data;
  bytes b = make_gguf(F16, false);
  clm_model *model;
  source file;
  write_file(NAME, b.data, 0); /* nothing at all, which no address stands for */
  expect_failure(test_reference, gguf_open(test_reference, in_folder(NAME), &file), CLM_BAD_FORMAT,
                 "does not begin with");
  for (size_t length = 0; length < b.count; length += length < 1400 ? 1 : 211) {
    write_file(NAME, b.data, length);
    clm_status status = clm_model_load(test_reference, in_folder(NAME), &model);
    expect_failure(test_reference, status, length < 4 ? CLM_UNSUPPORTED : CLM_BAD_FORMAT, NAME);
    assert_null(model);
  }
  bytes_release(&b);
}

typedef struct hostile {
  const char *why;
  const char *near; /* a text of the file ...                              */
  long skip;        /* ... so many bytes after whose end something follows */
  size_t count;     /* bytes to replace ...                                */
  uint64_t number;  /* ... by these                                        */
  clm_status status;
  const char *message;
} hostile;

static const hostile hostiles[] = {
    {"version 1", "GGUF", 0, 4, 1, CLM_UNSUPPORTED, "version 1, expected 2 or 3"},
    {"big endian", "GGUF", 0, 4, 0x03000000, CLM_UNSUPPORTED, "big endian"},
    {"2^60 tensors", "GGUF", 4, 8, 1ull << 60, CLM_BAD_FORMAT, "more tensors than it can hold"},
    {"2^60 values", "GGUF", 12, 8, 1ull << 60, CLM_BAD_FORMAT, "more values than it can hold"},
    {"a key of 2^60 bytes", "GGUF", 20, 8, 1ull << 60, CLM_BAD_FORMAT, "ends too early"},
    {"a key of 2^64 - 1 bytes", "GGUF", 20, 8, UINT64_MAX, CLM_BAD_FORMAT, "ends too early"},
    {"another architecture", "general.architecture", 12, 5, 0x616d616c6cull, CLM_UNSUPPORTED, "\"llama\", expected"},
    {"an unknown type", "general.architecture", 0, 4, 99, CLM_BAD_FORMAT, "unknown type"},
    {"an array of arrays", "tokenizer.ggml.tokens", 4, 4, GGUF_ARRAY, CLM_BAD_FORMAT, "array of arrays"},
    {"an array of 2^60", "tokenizer.ggml.tokens", 8, 8, 1ull << 60, CLM_BAD_FORMAT, "ends too early"},
    {"a size of 0", "mamba.embedding_length", 4, 4, 0, CLM_BAD_FORMAT, "whole number of at least 1"},
    {"a size of 2^32 - 1", "mamba.block_count", 4, 4, UINT32_MAX, CLM_BAD_FORMAT, "n_layer is 4294967295"},
    {"another d_state", "mamba.ssm.state_size", 4, 4, 5, CLM_BAD_FORMAT, "has shape"},
    {"an epsilon that is no number", "layer_norm_rms_epsilon", 4, 4, 0x7fc00000, CLM_BAD_FORMAT, "positive number"},
    {"rank 6", "token_embd.weight", 0, 4, 6, CLM_BAD_FORMAT, "more than 5 dimensions"},
    {"rank 2^32 - 1", "token_embd.weight", 0, 4, UINT32_MAX, CLM_BAD_FORMAT, "more than 5 dimensions"},
    {"a dimension of 2^62", "token_embd.weight", 4, 8, 1ull << 62, CLM_BAD_FORMAT, "impossible shape"},
    {"a dimension of 2^64 - 1", "token_embd.weight", 4, 8, UINT64_MAX, CLM_BAD_FORMAT, "impossible shape"},
    {"a tensor that is too large", "token_embd.weight", 4, 8, 1ull << 30, CLM_BAD_FORMAT, "outside the file"},
    {"another width", "token_embd.weight", 4, 8, 16, CLM_BAD_FORMAT, "shape (9, 16), the configuration expects"},
    {"a dtype that is not read", "token_embd.weight", 20, 4, 2, CLM_UNSUPPORTED, "has dtype Q4_0, expected"},
    {"an unknown dtype", "token_embd.weight", 20, 4, 77, CLM_BAD_FORMAT, "unknown dtype"},
    {"an offset of 2^60", "token_embd.weight", 24, 8, 1ull << 60, CLM_BAD_FORMAT, "outside the file"},
    {"an offset between", "token_embd.weight", 24, 8, 4, CLM_BAD_FORMAT, "not aligned"},
    {"overlap", "output_norm.weight", 16, 8, 32, CLM_BAD_FORMAT, "overlaps another one"},
    {"a zero byte in a name", "blk.0.ssm_", -10, 10, 0, CLM_BAD_FORMAT, "zero byte"},
    {"a missing tensor", "blk.0.ssm_", 0, 1, '_', CLM_BAD_FORMAT, "has no tensor \"blk.0.ssm_in.weight\""},
};

static size_t place_of(const bytes *b, const char *text) {
  for (size_t i = 0, n = strlen(text); i + n <= b->count; i++)
    if (memcmp(b->data + i, text, n) == 0) return i + n;
  fail_msg("\"%s\" is not in the file", text);
  return 0;
}

static void test_hostile(const test_device *device, const void *data) {
  (void)device;
  const hostile *h = data;
  bytes b = make_gguf(F32, false);
  clm_model *model;
  size_t at = place_of(&b, h->near) + (size_t)h->skip;
  for (size_t i = 0; i < h->count; i++) b.data[at + i] = (unsigned char)(i < 8 ? h->number >> (8 * i) & 255 : 0);
  write_file(NAME, b.data, b.count);
  clm_status status = clm_model_load(test_reference, in_folder(NAME), &model);
  expect_failure(test_reference, status, h->status, h->message);
  clm_model_destroy(&model);
  bytes_release(&b);
}

/* Names and keys that are there twice: of equal length, so that nothing moves. */
static void test_twice(const test_device *device, const void *data) {
  (void)device, (void)data;
  static const char *const pairs[][3] = {{"mamba.block_count", "mamba.ssm.c", "two values"},
                                         {"blk.0.ssm_a", "blk.0.ssm_d", "two tensors named \"blk.0.ssm_d\""}};
  clm_model *model;
  bytes b = make_gguf(F32, false);
  memcpy(b.data + place_of(&b, pairs[1][0]) - 11, pairs[1][1], 11);
  write_file(NAME, b.data, b.count);
  expect_failure(test_reference, clm_model_load(test_reference, in_folder(NAME), &model), CLM_BAD_FORMAT,
                 pairs[1][2]);
  bytes_release(&b);
  b = make_gguf(F32, false);
  memcpy(b.data + place_of(&b, "mamba.ssm.inner_size") - 20, "mamba.ssm.state_size", 20);
  write_file(NAME, b.data, b.count);
  expect_failure(test_reference, clm_model_load(test_reference, in_folder(NAME), &model), CLM_BAD_FORMAT,
                 pairs[0][2]);
  bytes_release(&b);
}

static void add(void) {
  static const int dtypes[] = {F32, F16, BF16, Q8_0};
  for (size_t i = 0; i < TEST_COUNT(dtypes); i++)
    test_add(NULL, test_dtype, &dtypes[i], "dtype %d of ggml", dtypes[i]);
  test_add(NULL, test_values, NULL, "values");
  test_add(NULL, test_cut, NULL, "cut at any byte");
  for (size_t i = 0; i < TEST_COUNT(hostiles); i++) test_add(NULL, test_hostile, &hostiles[i], "%s", hostiles[i].why);
  test_add(NULL, test_twice, NULL, "the same name twice");
}

int main(void) {
  if (!folder_make()) return EXIT_FAILURE;
  int status = test_main_reference("gguf", add);
  return folder_remove() ? status : EXIT_FAILURE;
}
