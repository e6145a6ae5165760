/* Tokenizers and the sampler. */
#include "cmocka_all.h"
#include "devices.h"
#include "text/utf8.h"
#include <clmamba/generate.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/clmamba-test-XXXXXX";

static void expect_message(clm_status got, clm_status want, const char *part) {
  const char *error = clm_context_error(test_reference);
  if (got != want || !strstr(error, part))
    fail_msg("got %s: \"%s\", expected %s and \"%s\"", clm_status_string(got), error, clm_status_string(want), part);
}

/* ---- UTF-8 ---- */

static void test_utf8(const test_device *device, const void *data) {
  (void)device, (void)data;
  for (uint32_t code = 0; code < 0x110000; code++) {
    char text[UTF8_MAX];
    uint32_t back = 0;
    if (code >= 0xd800 && code < 0xe000) continue;
    size_t bytes = utf8_encode(code, text);
    if (utf8_decode(text, bytes, &back) != bytes || back != code) fail_msg("U+%04X comes back as U+%04X", code, back);
    if (bytes > 1) assert_int_equal(utf8_decode(text, bytes - 1, &back), 0); /* cut off */
  }
  static const char *const bad[] = {
      "\x80",  "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80",
      "\xc3(", "\xff"};
  uint32_t code;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(utf8_decode(bad[i], strlen(bad[i]), &code), 0);
}

/* ---- Tokenizers ---- */

#define TEXT "na\xc3\xafve \xe2\x82\xac 5\n\xf0\x9f\x90\x8d \"snake\"\\\t"

static char *decode(const clm_tokenizer *t, const int32_t *ids, size_t count) {
  char *text = calloc(count * 4 + 1, 1), *at = text;
  for (size_t i = 0; i < count; i++) {
    size_t bytes;
    const char *token = clm_tokenizer_token(t, ids[i], &bytes);
    assert_non_null(token);
    memcpy(at, token, bytes);
    at += bytes;
  }
  return text;
}

static void test_round_trip(const test_device *device, const void *data) {
  (void)device;
  clm_vocabulary kind = *(const clm_vocabulary *)data;
  clm_tokenizer *made, *loaded;
  int32_t ids[100], again[100];
  size_t count, count_again;
  assert_int_equal(clm_tokenizer_create(test_reference, kind, TEXT, strlen(TEXT), &made), CLM_OK);
  assert_int_equal(clm_tokenizer_save(made, folder), CLM_OK);
  assert_int_equal(clm_tokenizer_load(test_reference, folder, &loaded), CLM_OK);
  assert_int_equal(clm_tokenizer_kind(loaded), kind);
  assert_int_equal(clm_tokenizer_vocab_size(loaded), clm_tokenizer_vocab_size(made));
  assert_int_equal(clm_tokenizer_encode(made, TEXT, strlen(TEXT), ids, 100, &count), CLM_OK);
  assert_int_equal(clm_tokenizer_encode(loaded, TEXT, strlen(TEXT), again, 100, &count_again), CLM_OK);
  assert_int_equal(count, kind == CLM_VOCABULARY_BYTE ? strlen(TEXT) : 21);
  assert_int_equal(count, count_again);
  assert_memory_equal(ids, again, count * sizeof *ids);
  char *text = decode(loaded, ids, count);
  assert_string_equal(text, TEXT);
  free(text);
  size_t bytes;
  assert_null(clm_tokenizer_token(loaded, -1, &bytes));
  assert_null(clm_tokenizer_token(loaded, (int32_t)clm_tokenizer_vocab_size(loaded), &bytes));
  int32_t few[2] = {-7, -7};
  assert_int_equal(clm_tokenizer_encode(made, TEXT, strlen(TEXT), few, 1, &count), CLM_OK);
  assert_int_equal(count, count_again); /* how many there are, though only one fits */
  assert_int_equal(few[1], -7);
  clm_tokenizer_destroy(&made);
  clm_tokenizer_destroy(&loaded);
}

static void test_vocabularies(const test_device *device, const void *data) {
  (void)device, (void)data;
  clm_tokenizer *t;
  int32_t ids[8];
  size_t count;
  assert_int_equal(clm_tokenizer_create(test_reference, CLM_VOCABULARY_CHAR, "hello\n", 6, &t), CLM_OK);
  assert_int_equal(clm_tokenizer_vocab_size(t), 5);
  assert_int_equal(clm_tokenizer_encode(t, "\nehlo", 5, ids, 8, &count), CLM_OK);
  for (int32_t i = 0; i < 5; i++) assert_int_equal(ids[i], i); /* in the order of code points */
  expect_message(clm_tokenizer_encode(t, "hex", 3, ids, 8, &count), CLM_BAD_FORMAT, "U+0078 at byte 2");
  expect_message(clm_tokenizer_encode(t, "h\xff", 2, ids, 8, &count), CLM_BAD_FORMAT, "not UTF-8 at byte 1");
  clm_tokenizer_destroy(&t);
  expect_message(clm_tokenizer_create(test_reference, CLM_VOCABULARY_CHAR, "a\xff", 2, &t), CLM_BAD_FORMAT,
                 "at byte 1");
  expect_message(clm_tokenizer_create(test_reference, CLM_VOCABULARY_CHAR, "a\0b", 3, &t), CLM_BAD_FORMAT,
                 "zero bytes");
  expect_message(clm_tokenizer_create(test_reference, CLM_VOCABULARY_CHAR, "", 0, &t), CLM_INVALID_ARGUMENT, "empty");
  assert_null(t);
  assert_int_equal(clm_tokenizer_create(test_reference, CLM_VOCABULARY_BYTE, "", 0, &t), CLM_OK);
  assert_int_equal(clm_tokenizer_encode(t, "\0\xff", 2, ids, 8, &count), CLM_OK);
  assert_int_equal(ids[0], 0);
  assert_int_equal(ids[1], 255);
  clm_tokenizer_destroy(&t);
}

static const struct foreign {
  const char *json;
  clm_status status;
  const char *message;
} foreigns[] = {
    {"{\"model\": {\"type\": \"WordPiece\", \"vocab\": {}}}", CLM_UNSUPPORTED, "\"WordPiece\""},
    {"{\"model\": {\"type\": \"WordLevel\", \"vocab\": {\"word\": 0}}, \"pre_tokenizer\": {\"type\": \"Split\"}}",
     CLM_UNSUPPORTED, "whole words"},
    {"{\"model\": {\"type\": \"WordLevel\", \"vocab\": {\"a\": 0, \"b\": 2}}, \"pre_tokenizer\": {\"type\": "
     "\"Split\"}}",
     CLM_BAD_FORMAT, "numbered"},
    {"{\"model\": {\"type\": \"WordLevel\", \"vocab\": {\"a\": 0, \"b\": 0}}, \"pre_tokenizer\": {\"type\": "
     "\"Split\"}}",
     CLM_BAD_FORMAT, "numbered"},
    {"{\"model\": {\"type\": \"WordLevel\", \"vocab\": {}}, \"pre_tokenizer\": {\"type\": \"Split\"}}",
     CLM_BAD_FORMAT, "empty"},
    {"{\"model\": 5}", CLM_UNSUPPORTED, "absent"},
    {"[", CLM_BAD_FORMAT, "line 1"},
};

static void test_foreign(const test_device *device, const void *data) {
  (void)device;
  const struct foreign *f = data;
  char path[64];
  snprintf(path, sizeof path, "%s/tokenizer.json", folder);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(f->json, file);
  fclose(file);
  clm_tokenizer *t;
  expect_message(clm_tokenizer_load(test_reference, folder, &t), f->status, f->message);
  assert_null(t);
}

/* ---- Sampler ---- */

#define VOCAB 5
static const float logits[VOCAB] = {1, 3, 2, 3, -1};

/* How often each token comes up in 20000 draws. */
static void draw(clm_sampler_options options, double shares[VOCAB]) {
  const int draws = 20000;
  clm_sampler *s;
  assert_int_equal(clm_sampler_create(test_reference, &options, VOCAB, &s), CLM_OK);
  for (int i = 0; i < VOCAB; i++) shares[i] = 0;
  for (int i = 0; i < draws; i++) {
    float copy[VOCAB];
    memcpy(copy, logits, sizeof copy);
    int32_t id = clm_sampler_sample(s, copy);
    assert_in_range(id, 0, VOCAB - 1);
    shares[id] += 1.0 / draws;
  }
  clm_sampler_destroy(&s);
}

typedef struct sampler_case {
  const char *why;
  clm_sampler_options options;
  bool kept[VOCAB];
} sampler_case;

static const sampler_case samplers[] = {
    {"temperature 0 takes the first of the largest", {.temperature = 0}, {0, 1, 0, 0, 0}},
    {"temperature 1", {.temperature = 1}, {1, 1, 1, 1, 1}},
    {"temperature 2", {.temperature = 2}, {1, 1, 1, 1, 1}},
    {"top-k 1", {.temperature = 1, .top_k = 1}, {0, 1, 0, 0, 0}},
    {"top-k 3", {.temperature = 1, .top_k = 3}, {0, 1, 1, 1, 0}},
    {"top-k past the vocabulary", {.temperature = 1, .top_k = 50}, {1, 1, 1, 1, 1}},
    {"top-p 0.7", {.temperature = 1, .top_p = 0.7f}, {0, 1, 0, 1, 0}}, /* 0.398 each, then 0.146, 0.054, 0.007 */
    {"top-p 0.9", {.temperature = 1, .top_p = 0.9f}, {0, 1, 1, 1, 0}},
    {"top-p smaller than any", {.temperature = 1, .top_p = 0.01f}, {0, 1, 0, 0, 0}},
    {"min-p 0.1", {.temperature = 1, .min_p = 0.1f}, {1, 1, 1, 1, 0}}, /* 1, 1, 0.368, 0.135, 0.018 */
    {"min-p 0.2", {.temperature = 1, .min_p = 0.2f}, {0, 1, 1, 1, 0}},
    {"all together", {.temperature = 2, .top_k = 4, .top_p = 0.95f, .min_p = 0.5f}, {0, 1, 1, 1, 0}},
};

static void test_sampler(const test_device *device, const void *data) {
  (void)device;
  const sampler_case *c = data;
  double shares[VOCAB], weights[VOCAB], total = 0;
  draw(c->options, shares);
  double temperature = c->options.temperature > 0 ? (double)c->options.temperature : 1;
  for (int i = 0; i < VOCAB; i++) {
    weights[i] = c->kept[i] ? exp((double)logits[i] / temperature) : 0;
    total += weights[i];
  }
  for (int i = 0; i < VOCAB; i++)
    if (fabs(shares[i] - weights[i] / total) > 0.015 || (shares[i] > 0) != c->kept[i])
      fail_msg("token %d has share %.4f, expected %.4f", i, shares[i], weights[i] / total);
}

static void test_penalty(const test_device *device, const void *data) {
  (void)device, (void)data;
  clm_sampler *s;
  float copy[VOCAB];
  const int32_t order[] = {1, 3, 2, 1, 1};
  assert_int_equal(clm_sampler_create(test_reference, &(clm_sampler_options){.repetition_penalty = 2}, VOCAB, &s),
                   CLM_OK);
  for (int i = 0; i < 5; i++) { /* 3 and 3 become 1.5 once seen, so that 2 is largest, then 1 */
    memcpy(copy, logits, sizeof copy);
    assert_int_equal(clm_sampler_sample(s, copy), order[i]);
  }
  assert_true(copy[0] == 1 && copy[1] == 1.5f && copy[2] == 1 && copy[4] == -1);
  clm_sampler_accept(s, 4);
  clm_sampler_accept(s, -1); /* not a token: nothing happens */
  clm_sampler_accept(s, VOCAB);
  memcpy(copy, logits, sizeof copy);
  clm_sampler_sample(s, copy);
  assert_true(copy[4] == -2); /* a negative logit is multiplied */
  clm_sampler_destroy(&s);
}

static void test_sampler_edges(const test_device *device, const void *data) {
  (void)device, (void)data;
  static const clm_sampler_options bad[] = {{.temperature = -1}, {.temperature = (float)NAN},
                                            {.top_p = 1.5f},     {.min_p = -0.1f},
                                            {.top_k = -1},       {.repetition_penalty = -2}};
  clm_sampler *s;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    expect_message(clm_sampler_create(test_reference, &bad[i], VOCAB, &s), CLM_INVALID_ARGUMENT, "sampler: ");
    assert_null(s);
  }
  assert_int_equal(clm_sampler_create(test_reference, &(clm_sampler_options){.temperature = 1}, 3, &s), CLM_OK);
  float only[3] = {-INFINITY, -INFINITY, 0};
  for (int i = 0; i < 100; i++) assert_int_equal(clm_sampler_sample(s, only), 2);
  /* Where torch.multinomial, with which transformers samples, raises: no probabilities follow from these. */
  float none[][3] = {{(float)NAN, 1, 0}, {0, INFINITY, 1}, {-INFINITY, -INFINITY, -INFINITY}, {1, 2, (float)NAN}};
  for (size_t i = 0; i < sizeof none / sizeof *none; i++) assert_int_equal(clm_sampler_sample(s, none[i]), -1);
  clm_sampler_destroy(&s);
}

static void add(void) {
  static const clm_vocabulary kinds[] = {CLM_VOCABULARY_BYTE, CLM_VOCABULARY_CHAR};
  test_add(NULL, test_utf8, NULL, "utf-8");
  test_add(NULL, test_round_trip, &kinds[0], "byte tokenizer");
  test_add(NULL, test_round_trip, &kinds[1], "character tokenizer");
  test_add(NULL, test_vocabularies, NULL, "vocabularies");
  for (size_t i = 0; i < sizeof foreigns / sizeof *foreigns; i++)
    test_add(NULL, test_foreign, &foreigns[i], "tokenizer.json, %s", foreigns[i].message);
  for (size_t i = 0; i < sizeof samplers / sizeof *samplers; i++)
    test_add(NULL, test_sampler, &samplers[i], "sampler, %s", samplers[i].why);
  test_add(NULL, test_penalty, NULL, "sampler, repetition penalty");
  test_add(NULL, test_sampler_edges, NULL, "sampler, edges");
}

int main(void) {
  if (!mkdtemp(folder)) return EXIT_FAILURE;
  int status = test_main("text", add);
  char path[64];
  snprintf(path, sizeof path, "%s/tokenizer.json", folder);
  unlink(path);
  snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
  unlink(path);
  return rmdir(folder) == 0 ? status : EXIT_FAILURE;
}
