/* The files next to tokenizer.json: what transformers makes of a tokenizer with them (tests/fixtures/companions, made
 * by make_companions.py), and where generation begins and ends. */
#include "cmocka_all.h"
#include "core/json.h"
#include "devices.h"
#include "text/tokenizer.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/clmamba-test-XXXXXX";
static char saved[] = "/tmp/clmamba-test-XXXXXX";

static const char *in(const char *directory, const char *name) {
  static char paths[4][400];
  static int next;
  next = (next + 1) % 4;
  snprintf(paths[next], sizeof paths[next], "%s/%s", directory, name);
  return paths[next];
}

static void empty(const char *directory) {
  DIR *d = opendir(directory);
  for (const struct dirent *e = readdir(d); e; e = readdir(d))
    if (e->d_name[0] != '.') unlink(in(directory, e->d_name));
  closedir(d);
}

static void write_text(const char *name, const char *text) {
  FILE *f = fopen(in(folder, name), "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
  assert_int_equal(fclose(f), 0);
}

/* The folder of a case. */
static void write_files(const json_t *c) {
  const char *name;
  json_t *content;
  empty(folder);
  char inside[200];
  snprintf(inside, sizeof inside, "%s/tokenizer.json", json_string_value(json_object_get(c, "tokenizer")));
  json_t *base = json_load_file(in(FIXTURES, inside), 0, NULL);
  assert_non_null(base);
  char *text = json_dumps(base, 0);
  write_text("tokenizer.json", text);
  free(text);
  json_decref(base);
  json_object_foreach(json_object_get(c, "files"), name, content) {
    text = json_dumps(content, 0);
    write_text(name, text);
    free(text);
  }
}

static void expect_decoded(const clm_tokenizer *t, bool skip, const int32_t *ids, size_t count, const char *want) {
  char text[500], pieces[500];
  size_t bytes, at = 0, length;
  const char *piece;
  clm_text_stream *stream;
  const clm_decode_options options = {.skip_special_tokens = skip};
  assert_int_equal(clm_tokenizer_decode(t, &options, ids, count, text, sizeof text, &bytes), CLM_OK);
  if (bytes != strlen(want) || memcmp(text, want, bytes) != 0)
    fail_msg("decodes as \"%.*s\", expected \"%s\"", (int)bytes, text, want);
  assert_int_equal(clm_text_stream_create(t, &options, &stream), CLM_OK);
  for (size_t i = 0; i <= count; i++, at += length) {
    if (i < count) assert_int_equal(clm_text_stream_push(stream, ids[i], &piece, &length), CLM_OK);
    else assert_int_equal(clm_text_stream_finish(stream, &piece, &length), CLM_OK);
    assert_true(at + length <= sizeof pieces);
    memcpy(pieces + at, piece, length);
  }
  clm_text_stream_destroy(&stream);
  assert_int_equal(at, bytes);
  assert_memory_equal(pieces, text, bytes);
}

static void expect_texts(const clm_tokenizer *t, const json_t *texts) {
  size_t i, k, count;
  const json_t *each, *number;
  json_array_foreach(texts, i, each) {
    const char *text = json_string_value(json_array_get(each, 0));
    const json_t *want = json_array_get(each, 1);
    int32_t ids[200];
    assert_int_equal(clm_tokenizer_encode(t, text, strlen(text), ids, 200, &count), CLM_OK);
    for (k = 0; k < count && k < json_array_size(want); k++)
      if (ids[k] != json_integer_value(json_array_get(want, k)))
        fail_msg("\"%s\": token %zu is %d, expected %lld", text, k, (int)ids[k],
                 (long long)json_integer_value(json_array_get(want, k)));
    assert_int_equal(count, json_array_size(want));
    json_array_foreach(want, k, number) ids[k] = (int32_t)json_integer_value(number);
    expect_decoded(t, false, ids, count, json_string_value(json_array_get(each, 2)));
    expect_decoded(t, true, ids, count, json_string_value(json_array_get(each, 3)));
  }
}

static void expect_all(const char *directory, const json_t *c) {
  static const char *const names[] = {
      [CLM_TOKEN_BOS] = "bos", [CLM_TOKEN_EOS] = "eos", [CLM_TOKEN_PAD] = "pad", [CLM_TOKEN_UNK] = "unk"};
  clm_tokenizer *t;
  if (clm_tokenizer_load(test_reference, directory, &t)) fail_msg("%s", clm_context_error(test_reference));
  assert_int_equal(clm_tokenizer_vocab_size(t), json_integer_value(json_object_get(c, "size")));
  for (int which = 0; which < TOKENIZER_SPECIALS; which++) {
    const json_t *want = json_object_get(json_object_get(c, "special"), names[which]);
    const int32_t got = clm_tokenizer_special(t, (clm_special_token)which);
    if (got != (json_is_null(want) ? -1 : json_integer_value(want))) fail_msg("%s is %d", names[which], (int)got);
  }
  expect_texts(t, json_object_get(c, "texts"));
  empty(saved);
  assert_int_equal(clm_tokenizer_save(t, saved), CLM_OK);
  clm_tokenizer_destroy(&t);
}

static void copy_config(void) {
  FILE *f = fopen(in(folder, "config.json"), "rb"), *to = fopen(in(saved, "config.json"), "wb");
  char text[4096];
  if (f && to) fwrite(text, 1, fread(text, 1, sizeof text, f), to);
  if (f) fclose(f);
  if (to) fclose(to);
}

/* As it is read, and as it is saved and read again. */
static void test_case(const test_device *device, const void *data) {
  (void)device;
  write_files(data);
  expect_all(folder, data);
  copy_config();
  empty(folder);
  expect_all(saved, data);
}

/* ---- Where generation ends ---- */

static const struct ends {
  const char *why, *generation, *config, *tokenizer; /* NULL: the file is not there */
  int32_t begin;
  size_t count;
  int32_t ids[3];
} ends[] = {
    {"a list",
     "{\"bos_token_id\": 2, \"eos_token_id\": [0, 82]}",
     "{\"eos_token_id\": 0, \"bos_token_id\": 1}",
     "{\"eos_token\": \"<|im_end|>\", \"bos_token\": \"<|im_end|>\"}",
     2,
     2,
     {0, 82}},
    {"a list in config.json",
     NULL,
     "{\"eos_token_id\": [5, 82], \"bos_token_id\": 1}",
     "{\"eos_token\": \"<|im_end|>\"}",
     1,
     2,
     {5, 82}},
    {"generation_config.json says nothing of it", "{\"pad_token_id\": 0}", "{\"eos_token_id\": 7}", NULL, -1, 1, {7}},
    {"null is nothing",
     "{\"eos_token_id\": null}",
     "{\"eos_token_id\": null}",
     "{\"eos_token\": \"<|im_end|>\"}",
     -1,
     1,
     {3}},
    {"the tokenizer alone",
     NULL,
     NULL,
     "{\"eos_token\": \"<|im_end|>\", \"bos_token\": \"<|im_start|>\"}",
     2,
     1,
     {3}},
    {"nothing", NULL, NULL, NULL, -1, 0, {0}},
    {"a number outside the tokenizer", "{\"eos_token_id\": [100000, 3]}", NULL, NULL, -1, 2, {100000, 3}},
    {"none, explicitly", "{\"eos_token_id\": -1}", "{\"eos_token_id\": 7}", NULL, -1, 0, {0}},
    {"what are no numbers",
     "{\"eos_token_id\": [\"a\", 1.5, 1e400, 99999999999999999999, 4]}",
     NULL,
     NULL,
     -1,
     1,
     {4}},
};

static void test_ends(const test_device *device, const void *data) {
  (void)device;
  const struct ends *e = data;
  json_t *c = json_pack("{s:s}", "tokenizer", "bytes");
  const int32_t *ids;
  clm_tokenizer *t;
  write_files(c);
  json_decref(c);
  if (e->generation) write_text("generation_config.json", e->generation);
  if (e->config) write_text("config.json", e->config);
  if (e->tokenizer) write_text("tokenizer_config.json", e->tokenizer);
  if (clm_tokenizer_load(test_reference, folder, &t)) fail_msg("%s", clm_context_error(test_reference));
  assert_int_equal(clm_tokenizer_ends(t, &ids), e->count);
  for (size_t i = 0; i < e->count; i++) assert_int_equal(ids[i], e->ids[i]);
  assert_int_equal(t->begin, e->begin);
  clm_tokenizer_destroy(&t);
}

static json_t *cases;

static void add(void) {
  size_t i;
  const json_t *each;
  json_array_foreach(cases, i, each)
      test_add(NULL, test_case, each, "%s", json_string_value(json_object_get(each, "why")));
  for (i = 0; i < TEST_COUNT(ends); i++) test_add(NULL, test_ends, &ends[i], "ends, %s", ends[i].why);
}

/* It has numbers that Python alone writes. */
static json_t *read_cases(void) {
  static char text[1 << 18];
  json_error_t error;
  FILE *f = fopen(FIXTURES "/cases.json", "rb");
  if (!f) return NULL;
  const size_t bytes = fread(text, 1, sizeof text, f);
  fclose(f);
  return json_parse(text, bytes, JSON_PYTHON, &error);
}

int main(void) {
  cases = read_cases();
  if (!cases || !mkdtemp(folder) || !mkdtemp(saved)) return EXIT_FAILURE;
  int status = test_main_reference("companions", add);
  empty(folder);
  empty(saved);
  json_decref(cases);
  return rmdir(folder) == 0 && rmdir(saved) == 0 ? status : EXIT_FAILURE;
}
