/* BPE tokenizers against what Hugging Face's `tokenizers` made of the same texts (tests/fixtures/make_tokenizers.py),
 * and the messages for what cannot be read. */
#include "cmocka_all.h"
#include "devices.h"
#include "text/bytes.h"
#include "text/from_bpe.h"
#include "text/utf8.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define FIXTURES CLM_FIXTURES "/tokenizers/"

static char folder[] = "/tmp/clmamba-test-XXXXXX";

static void expect_message(clm_status got, clm_status want, const char *part) {
  const char *error = clm_context_error(test_reference);
  if (got != want || !strstr(error, part))
    fail_msg("got %s: \"%s\", expected %s and \"%s\"", clm_status_string(got), error, clm_status_string(want), part);
}

static json_t *read_fixture(const char *name) {
  char path[1024];
  snprintf(path, sizeof path, FIXTURES "%s", name);
  json_t *json = json_load_file(path, JSON_ALLOW_NUL, NULL);
  if (!json) fail_msg("cannot read %s", path);
  return json;
}

static void write_file(const char *name, const char *text, size_t bytes) {
  char path[64];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(text, 1, bytes, f), bytes);
  assert_int_equal(fclose(f), 0);
}

static void write_json(const char *name, const json_t *json) {
  char *text = json_dumps(json, 0);
  assert_non_null(text);
  write_file(name, text, strlen(text));
  free(text);
}

static void remove_file(const char *name) {
  char path[64];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  unlink(path);
}

/* ---- The texts ---- */

static void append(byte_buffer *to, const char *text, size_t bytes) { assert_true(bytes_append(to, text, bytes)); }

/* As code_text() of the script. */
static void append_codes(byte_buffer *text, const json_t *ranges) {
  static const char *const around[] = {"", " ", "a", "1", "\xcc\x81", "!", "  ", "\n"};
  for (size_t i = 0; i < json_array_size(ranges); i++) {
    const json_t *range = json_array_get(ranges, i);
    uint32_t last = (uint32_t)json_integer_value(json_array_get(range, 1));
    for (uint32_t code = (uint32_t)json_integer_value(json_array_get(range, 0)); code <= last; code++) {
      char one[UTF8_MAX];
      append(text, around[code % 8], strlen(around[code % 8]));
      append(text, one, utf8_encode(code, one));
      append(text, around[code / 8 % 8], strlen(around[code / 8 % 8]));
    }
  }
}

static void append_hex(byte_buffer *text, const char *hex) {
  for (unsigned byte; sscanf(hex, "%2x", &byte) == 1; hex += 2) append(text, &(char){(char)byte}, 1);
}

static byte_buffer text_of(const json_t *c) {
  byte_buffer text = {0};
  const json_t *plain = json_object_get(c, "text"), *repeat = json_object_get(c, "repeat");
  append(&text, "", 0);
  for (json_int_t i = repeat ? json_integer_value(repeat) : 1; plain && i > 0; i--)
    append(&text, json_string_value(plain), json_string_length(plain));
  if (json_object_get(c, "hex")) append_hex(&text, json_string_value(json_object_get(c, "hex")));
  append_codes(&text, json_object_get(c, "codes"));
  return text;
}

/* The variants' tokenizers are not asked about every code point. */
static bool too_many(const json_t *c) {
  static const json_int_t taken[] = {0, 3, 10, 17, 29, 31};
  const json_t *codes = json_object_get(c, "codes");
  if (!codes) return false;
  json_int_t block = json_integer_value(json_array_get(json_array_get(codes, 0), 0)) >> 12;
  for (size_t i = 0; i < TEST_COUNT(taken); i++)
    if (taken[i] == block) return false;
  return true;
}

/* ---- What a tokenizer makes of them ---- */

typedef struct token_array {
  int32_t *ids;
  size_t count;
} token_array;

/* Short texts are measured first, as a program does it; of the long ones nothing has more tokens than that. */
static token_array encode(const clm_tokenizer *t, clm_encode_options options, byte_buffer text) {
  token_array got = {0};
  size_t capacity = 3 * text.bytes + 64, again;
  if (text.bytes < 2000)
    assert_int_equal(clm_tokenizer_encode_with(t, &options, text.data, text.bytes, NULL, 0, &capacity), CLM_OK);
  got.ids = malloc((capacity + 1) * sizeof *got.ids);
  got.ids[capacity] = -7;
  assert_int_equal(clm_tokenizer_encode_with(t, &options, text.data, text.bytes, got.ids, capacity, &again), CLM_OK);
  if (text.bytes < 2000) assert_int_equal(again, capacity);
  assert_in_range(again, 0, capacity);
  assert_int_equal(got.ids[capacity], -7);
  got.count = again;
  return got;
}

static unsigned hash_of_text(const clm_tokenizer *t, bool skip, token_array tokens) {
  clm_decode_options options = {.skip_special_tokens = skip};
  byte_buffer pieces = {0};
  size_t bytes, again;
  assert_int_equal(clm_tokenizer_decode(t, &options, tokens.ids, tokens.count, NULL, 0, &bytes), CLM_OK);
  char *whole = malloc(bytes + 1);
  whole[bytes] = '\a';
  assert_int_equal(clm_tokenizer_decode(t, &options, tokens.ids, tokens.count, whole, bytes, &again), CLM_OK);
  assert_int_equal(again, bytes);
  assert_int_equal(whole[bytes], '\a');

  clm_text_stream *stream;
  assert_int_equal(clm_text_stream_create(t, &options, &stream), CLM_OK);
  for (size_t i = 0; i <= tokens.count; i++) {
    const char *piece;
    assert_int_equal(i < tokens.count ? clm_text_stream_push(stream, tokens.ids[i], &piece, &again)
                                      : clm_text_stream_finish(stream, &piece, &again),
                     CLM_OK);
    assert_int_equal(utf8_valid(piece, again), again); /* whole characters */
    append(&pieces, piece, again);
  }
  assert_int_equal(pieces.bytes, bytes);
  if (bytes) assert_memory_equal(pieces.data, whole, bytes);
  clm_text_stream_destroy(&stream);
  bytes_free(&pieces);

  unsigned hash = (unsigned)(XXH64(whole, bytes, 0) >> 32);
  free(whole);
  return hash;
}

static unsigned hash_of_ids(token_array tokens) {
  return (unsigned)(XXH64(tokens.ids, tokens.count * sizeof *tokens.ids, 0) >> 32);
}

static void check_case(const clm_tokenizer *t, size_t number, const json_t *c, const char *expected) {
  byte_buffer text = text_of(c);
  token_array ids = encode(t, (clm_encode_options){0}, text);
  token_array plain = encode(t, (clm_encode_options){.plain_special_tokens = true}, text);
  token_array around = encode(t, (clm_encode_options){.add_special_tokens = true}, text);
  char got[120];
  snprintf(got, sizeof got, "%zu %08x %08x %08x %08x %08x", ids.count, hash_of_ids(ids), hash_of_text(t, false, ids),
           hash_of_text(t, true, ids), hash_of_ids(plain), hash_of_ids(around));
  if (strcmp(got, expected) != 0)
    fail_msg("case %zu \"%.40s\": got\n%s, expected\n%s", number, text.data ? text.data : "", got, expected);
  free(ids.ids), free(plain.ids), free(around.ids);
  bytes_free(&text);
}

/* "a.b" names a member of a member. */
static void change(json_t *json, const char *key, json_t *value) {
  const char *dot = strchr(key, '.');
  char first[64];
  if (!dot) assert_int_equal(json_object_set(json, key, value), 0);
  else {
    snprintf(first, sizeof first, "%.*s", (int)(dot - key), key);
    change(json_object_get(json, first), dot + 1, value);
  }
}

/* tokenizer.json of a fixture, or of a variant of one. */
static json_t *tokenizer_json(const char *name, bool *variant) {
  json_t *variants = read_fixture("variants.json"), *each, *value;
  const char *base = name, *key;
  char path[256];
  size_t i;
  json_t *changes = NULL;
  json_array_foreach(variants, i, each) if (strcmp(json_string_value(json_object_get(each, "name")), name) == 0) {
    base = json_string_value(json_object_get(each, "base"));
    changes = json_object_get(each, "changes");
  }
  snprintf(path, sizeof path, "%s/tokenizer.json", base);
  json_t *json = read_fixture(path);
  json_object_foreach(changes, key, value) change(json, key, value);
  json_decref(variants);
  *variant = changes != NULL;
  return json;
}

static clm_tokenizer *load(void) {
  clm_tokenizer *t;
  if (clm_tokenizer_load(test_reference, folder, &t)) fail_msg("%s", clm_context_error(test_reference));
  return t;
}

static void test_fixture(const test_device *device, const void *data) {
  (void)device;
  json_t *answers = read_fixture("expected.json"), *cases = read_fixture("cases.json");
  const json_t *answer = json_array_get(answers, *(const size_t *)data), *c;
  json_t *expected = json_object_get(answer, "expected");
  bool variant;
  json_t *json = tokenizer_json(json_string_value(json_object_get(answer, "name")), &variant);
  write_json("tokenizer.json", json);
  clm_tokenizer *t = load();
  assert_int_equal(clm_tokenizer_kind(t), CLM_VOCABULARY_BPE);
  size_t i, next = 0;
  json_array_foreach(cases, i, c) {
    if (variant && too_many(c)) continue;
    check_case(t, i, c, json_string_value(json_array_get(expected, next++)));
  }
  assert_int_equal(next, json_array_size(expected));
  clm_tokenizer_destroy(&t);
  json_decref(json), json_decref(cases), json_decref(answers);
}

/* ---- What cannot be read ---- */

#define MODEL(rest)    "{\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [\"a b\"]" rest "}"
#define ADDED(content) "{\"id\": 3, \"content\": \"" content "\", \"single_word\": false}"
#define SPLIT(regex)                                                                                                 \
  "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"" regex "\"}, \"behavior\": \"Isolated\", \"invert\": false}"

/* A tokenizer.json of one member and a small model, or of this model. */
static const struct wrong {
  const char *key, *value;
  clm_status status;
  const char *message;
} wrongs[] = {
    {"model", "{\"type\": \"BPE\", \"vocab\": [], \"merges\": []}", CLM_BAD_FORMAT, "no usable \"vocab\""},
    {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 0}}", CLM_BAD_FORMAT, "no usable \"merges\""},
    {"model", "{\"type\": \"BPE\", \"vocab\": {}, \"merges\": []}", CLM_BAD_FORMAT, "vocabulary is empty"},
    {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}", CLM_BAD_FORMAT,
     "\"b\" has the number 0, which another token has"},
    {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 1e3}, \"merges\": []}", CLM_BAD_FORMAT, "\"a\" is no integer"},
    {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": -1}, \"merges\": []}", CLM_BAD_FORMAT, "from 0 to 2097151"},
    {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 2097152}, \"merges\": []}", CLM_BAD_FORMAT,
     "no integer from 0"},
    {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 9223372036854775807}, \"merges\": []}", CLM_BAD_FORMAT,
     "no integer"},
    {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]}", CLM_BAD_FORMAT,
     "merge 0 needs the token \"b\""},
    {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1}, \"merges\": [[\"a\", \"b\"]]}", CLM_BAD_FORMAT,
     "merge 0 needs the token \"ab\""},
    {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"aa\"]}", CLM_BAD_FORMAT,
     "merge 0 is neither"},
    {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a a a\"]}", CLM_BAD_FORMAT,
     "merge 0 is neither"},
    {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [[\"a\"]]}", CLM_BAD_FORMAT,
     "merge 0 is neither"},
    {"model", "{\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [7]}", CLM_BAD_FORMAT, "merge 0 is neither"},
    {"model", MODEL(", \"dropout\": 0.1"), CLM_UNSUPPORTED, "\"dropout\""},
    {"model", MODEL(", \"continuing_subword_prefix\": \"##\""), CLM_UNSUPPORTED, "\"continuing_subword_prefix\""},
    {"model", MODEL(", \"end_of_word_suffix\": \"</w>\""), CLM_UNSUPPORTED, "\"end_of_word_suffix\""},
    {"model", "{\"type\": \"Unigram\", \"vocab\": []}", CLM_UNSUPPORTED, "\"Unigram\""},
    {"model", "5", CLM_UNSUPPORTED, "\"absent\""},
    {"normalizer", "{\"type\": \"Precompiled\"}", CLM_UNSUPPORTED, "a normalizer of type \"Precompiled\""},
    {"normalizer", "[]", CLM_UNSUPPORTED, "a normalizer of type \"absent\""},
    {"normalizer", "{\"type\": \"Sequence\"}", CLM_BAD_FORMAT, "no usable \"normalizers\""},
    {"normalizer", "{\"type\": \"Prepend\"}", CLM_BAD_FORMAT, "no usable \"prepend\""},
    {"normalizer", "{\"type\": \"Replace\", \"content\": \"x\"}", CLM_BAD_FORMAT, "no usable \"pattern\""},
    {"pre_tokenizer", "{\"type\": \"UnicodeScripts\"}", CLM_UNSUPPORTED,
     "a pre-tokenizer of type \"UnicodeScripts\""},
    {"pre_tokenizer", "{\"type\": \"Metaspace\"}", CLM_BAD_FORMAT, "a Metaspace has no usable \"replacement\""},
    {"pre_tokenizer", "{\"type\": \"Metaspace\", \"replacement\": \"ab\"}", CLM_BAD_FORMAT, "\"replacement\""},
    {"pre_tokenizer", "{\"type\": \"Metaspace\", \"replacement\": \"_\", \"prepend_scheme\": \"last\"}",
     CLM_BAD_FORMAT, "\"prepend_scheme\""},
    {"pre_tokenizer", "{\"type\": \"Metaspace\", \"replacement\": \"_\", \"add_prefix_space\": false}",
     CLM_BAD_FORMAT, "\"add_prefix_space\""},
    {"decoder", "{\"type\": \"Metaspace\"}", CLM_BAD_FORMAT, "a Metaspace has no usable \"replacement\""},
    {"pre_tokenizer", "{\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": \"x\"}", CLM_BAD_FORMAT,
     "no usable \"behavior\""},
    {"pre_tokenizer", "{\"type\": \"Split\", \"behavior\": \"Removed\"}", CLM_BAD_FORMAT, "no usable \"pattern\""},
    {"pre_tokenizer", SPLIT("a|*"), CLM_BAD_FORMAT, "\"a|*\" is not a regular expression: quantifier"},
    {"pre_tokenizer", SPLIT("\\\\p{Klingon}"), CLM_BAD_FORMAT, "unknown property"},
    {"pre_tokenizer", SPLIT("(a"), CLM_BAD_FORMAT, "missing closing parenthesis"},
    {"pre_tokenizer", SPLIT("[a-z&&[^b]]"), CLM_UNSUPPORTED, "an intersection of classes"},
    {"pre_tokenizer", SPLIT("[[ab]c]"), CLM_UNSUPPORTED, "a class inside of a class"},
    {"pre_tokenizer", SPLIT("[[:punct:]]"), CLM_UNSUPPORTED, "[:class:]"},
    {"pre_tokenizer", SPLIT("a{2}+"), CLM_UNSUPPORTED, "a possessive interval"},
    {"pre_tokenizer", SPLIT("(*NO_JIT)a"), CLM_UNSUPPORTED, "(*...)"},
    {"pre_tokenizer", SPLIT("\\\\Qa\\\\E"), CLM_UNSUPPORTED, "such an escape"},
    {"pre_tokenizer", SPLIT("\\\\"), CLM_UNSUPPORTED, "such an escape"},
    {"pre_tokenizer", SPLIT("[\\\\W]"), CLM_UNSUPPORTED, "this escape in a class"},
    {"pre_tokenizer", SPLIT("\\\\p"), CLM_UNSUPPORTED, "\\p without {}"},
    {"pre_tokenizer", SPLIT("(?"), CLM_UNSUPPORTED, "such a group"},
    {"pre_tokenizer", SPLIT("\\\\u12"), CLM_UNSUPPORTED, "\\u without four digits"},
    {"pre_tokenizer", SPLIT("(((a{900}){900}){900})"), CLM_BAD_FORMAT, "regular expression is too large"},
    {"post_processor", "{\"type\": \"BertProcessing\"}", CLM_UNSUPPORTED, "a post-processor of type"},
    {"post_processor", "{\"type\": \"TemplateProcessing\"}", CLM_BAD_FORMAT, "no usable \"single\""},
    {"post_processor", "{\"type\": \"TemplateProcessing\", \"single\": []}", CLM_BAD_FORMAT, "no usable \"single\""},
    {"post_processor",
     "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"x\"}}, {\"Sequence\": {\"id\": "
     "\"A\"}}], \"special_tokens\": {\"x\": {\"ids\": [99]}}}",
     CLM_BAD_FORMAT, "no usable \"ids\""},
    {"decoder", "{\"type\": \"WordPiece\"}", CLM_UNSUPPORTED, "a decoder of type \"WordPiece\""},
    {"decoder", "{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Fuse\"}, {\"type\": \"ByteFallback\"}]}",
     CLM_UNSUPPORTED, "\"ByteFallback\" after one that joins"},
    {"decoder", "{\"type\": \"Strip\", \"content\": \"\", \"start\": 1, \"stop\": 0}", CLM_BAD_FORMAT, "a Strip"},
    {"added_tokens", "{}", CLM_BAD_FORMAT, "no usable \"added_tokens\""},
    {"added_tokens", "[{\"id\": 3}]", CLM_BAD_FORMAT, "no usable \"content\""},
    {"added_tokens", "[" ADDED("x") ", " ADDED("x") "]", CLM_BAD_FORMAT, "\"x\" is added twice"},
};

static void test_wrong(const test_device *device, const void *data) {
  (void)device;
  const struct wrong *w = data;
  clm_tokenizer *t;
  json_t *json = json_pack("{s:o}", "model", json_loads(MODEL(""), 0, NULL));
  json_t *value = json_loads(w->value, JSON_DECODE_ANY, NULL);
  assert_non_null(value);
  json_object_set_new(json, w->key, value);
  write_json("tokenizer.json", json);
  expect_message(clm_tokenizer_load(test_reference, folder, &t), w->status, w->message);
  assert_null(t);
  json_decref(json);
}

/* Files that are no tokenizer at all, or very much of one. */
static void test_hostile(const test_device *device, const void *data) {
  (void)device, (void)data;
  static const char sequence[] = "{\"type\":\"Sequence\",\"normalizers\":[";
  clm_tokenizer *t;
  byte_buffer text = {0};
  for (int i = 0; i < 100000; i++) append(&text, "[", 1);
  write_file("tokenizer.json", text.data, text.bytes);
  expect_message(clm_tokenizer_load(test_reference, folder, &t), CLM_BAD_FORMAT, "brackets nest too deep");
  text.bytes = 0;
  append(&text, "{\"model\": " MODEL("") ", \"normalizer\": ", strlen("{\"model\": " MODEL("") ", \"normalizer\": "));
  for (int i = 0; i < 900; i++) append(&text, sequence, strlen(sequence));
  for (int i = 0; i < 900; i++) append(&text, "]}", 2);
  append(&text, "}", 1);
  write_file("tokenizer.json", text.data, text.bytes); /* 900 sequences, one in the other: nothing in them */
  t = load();
  clm_tokenizer_destroy(&t);
  write_file("tokenizer.json", "{\"model\": \"\\ud800\"}", 20);
  expect_message(clm_tokenizer_load(test_reference, folder, &t), CLM_BAD_FORMAT, "not valid JSON");
  write_file("tokenizer.json", "{\"a\": 1, \"a\": 2}", 16);
  expect_message(clm_tokenizer_load(test_reference, folder, &t), CLM_BAD_FORMAT, "two members have one name");
  write_file("tokenizer.json", "", 0);
  expect_message(clm_tokenizer_load(test_reference, folder, &t), CLM_BAD_FORMAT, "not valid JSON");
  remove_file("tokenizer.json");
  expect_message(clm_tokenizer_load(test_reference, folder, &t), CLM_IO_ERROR, "cannot read");
  bytes_free(&text);
}

static clm_tokenizer *load_text(const char *json) {
  write_file("tokenizer.json", json, strlen(json));
  return load();
}

/* A pattern that takes exponential time on some texts must end with a message on these, and work on others. */
static void test_explosion(const test_device *device, const void *data) {
  (void)device, (void)data;
  static const char as[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
  clm_tokenizer *t = load_text("{\"model\": " MODEL("") ", \"pre_tokenizer\": " SPLIT("(a|aa|aaa)+$(?!x)b|c") "}");
  int32_t ids[80];
  size_t count;
  expect_message(clm_tokenizer_encode(t, as, strlen(as), ids, 80, &count), CLM_UNSUPPORTED, "too many steps");
  assert_int_equal(count, 0);
  assert_int_equal(clm_tokenizer_encode(t, "abab", 4, ids, 80, &count), CLM_OK);
  assert_int_equal(count, 2);
  clm_tokenizer_destroy(&t);
}

/* The limit is one for a whole text. Every one of 20,000 places takes 2^20 steps: hours in all, where each may take
 * them; it ends after those of a few. A long run that costs many steps once is still read, and so are many of them.
 */
static void test_explosion_everywhere(const test_device *device, const void *data) {
  (void)device, (void)data;
  enum { LENGTH = 20000 };
  char *text = malloc(LENGTH);
  int32_t *ids = malloc(LENGTH * sizeof *ids);
  size_t count;
  memset(text, 'a', LENGTH);
  clm_tokenizer *t = load_text("{\"model\": " MODEL("") ", \"pre_tokenizer\": " SPLIT("(?:a|a){20}[bc]") "}");
  clock_t begin = clock();
  expect_message(clm_tokenizer_encode(t, text, LENGTH, ids, LENGTH, &count), CLM_UNSUPPORTED, "too many steps");
  assert_true((double)(clock() - begin) / CLOCKS_PER_SEC < 1);
  for (int i = 9; i < LENGTH; i += 10) text[i] = 'b'; /* too few for a match, which is cheap to find out */
  assert_int_equal(clm_tokenizer_encode(t, text, LENGTH, ids, LENGTH, &count), CLM_OK);
  assert_int_equal(count, LENGTH / 10 * 9); /* eight times a, and ab */
  clm_tokenizer_destroy(&t);
  t = load_text("{\"model\": " MODEL("") ", \"pre_tokenizer\": " SPLIT("(?:a(?!c))+b") "}");
  for (int i = 0; i < LENGTH; i++) text[i] = i % 5000 == 4999 ? 'b' : 'a';
  assert_int_equal(clm_tokenizer_encode(t, text, LENGTH, ids, LENGTH, &count), CLM_OK);
  assert_int_equal(count, LENGTH - 4);
  clm_tokenizer_destroy(&t);
  free(text);
  free(ids);
}

static void test_unknown(const test_device *device, const void *data) {
  (void)device, (void)data;
  int32_t ids[8];
  size_t count;
  clm_tokenizer *t = load_text("{\"model\": " MODEL(", \"unk_token\": \"u\"") "}");
  assert_int_equal(clm_tokenizer_encode(t, "abba", 4, ids, 8, &count), CLM_OK);
  assert_int_equal(count, 3);
  expect_message(clm_tokenizer_encode(t, "abc", 3, ids, 8, &count), CLM_BAD_FORMAT, "U+0063");
  assert_int_equal(clm_tokenizer_special(t, CLM_TOKEN_UNK), -1);
  clm_tokenizer_destroy(&t);
}

/* ---- What a program asks of one ---- */

static void test_tokens(const test_device *device, const void *data) {
  (void)device, (void)data;
  bool variant;
  json_t *json = tokenizer_json("neox", &variant);
  write_json("tokenizer.json", json);
  static const char config[] = "{\"bos_token\": {\"content\": \"<|endoftext|>\"}, \"pad_token\": \"none such\"}\n";
  static const char map[] = "{\"bos_token\": \"the\", \"pad_token\": \"<|padding|>\"}";
  write_file("tokenizer_config.json", config, strlen(config));
  write_file("special_tokens_map.json", map, strlen(map));
  write_file("generation_config.json", "{\"eos_token_id\": [2001, 0], \"pad_token_id\": 7}", 46);
  write_file("config.json", "{\"eos_token_id\": 5, \"unk_token_id\": 99999}", 42);
  clm_tokenizer *t = load();
  /* The tokenizer's own files first, and of these the map, as in transformers 5 (test_companions). */
  assert_int_equal(clm_tokenizer_special(t, CLM_TOKEN_BOS), clm_tokenizer_find(t, "the", 3));
  assert_int_equal(clm_tokenizer_special(t, CLM_TOKEN_PAD), 1);
  assert_int_equal(clm_tokenizer_special(t, CLM_TOKEN_EOS), 2001);
  assert_int_equal(clm_tokenizer_special(t, CLM_TOKEN_UNK), -1); /* no such token */
  assert_true(clm_tokenizer_is_special(t, 0) && !clm_tokenizer_is_special(t, 5) && !clm_tokenizer_is_special(t, -1));
  assert_int_equal(clm_tokenizer_vocab_size(t), 2000 + 8 + 11);
  for (int32_t id = 0; id < clm_tokenizer_vocab_size(t); id++) {
    const char *spelling = clm_tokenizer_spelling(t, id);
    assert_non_null(spelling);
    if (id != clm_tokenizer_find(t, "no\xcc\x88rm", 6)) /* which its normalizer spells otherwise */
      assert_int_equal(clm_tokenizer_find(t, spelling, strlen(spelling)), id);
  }
  size_t bytes;
  int32_t id = clm_tokenizer_find(t, "\xc4\xa0the", 5);
  assert_memory_equal(clm_tokenizer_token(t, id, &bytes), " the", 4);
  assert_int_equal(bytes, 4);
  assert_int_equal(clm_tokenizer_find(t, "none such", 9), -1);
  assert_null(clm_tokenizer_spelling(t, -1));
  assert_null(clm_tokenizer_token(t, 1 << 30, &bytes));
  char text[16];
  const int32_t unknown[] = {-1, id, 1 << 30, id}; /* numbers without a token are nothing */
  assert_int_equal(clm_tokenizer_decode(t, NULL, unknown, 4, text, sizeof text, &bytes), CLM_OK);
  assert_int_equal(bytes, 8);
  assert_memory_equal(text, " the the", 8);
  clm_tokenizer_destroy(&t);
  json_decref(json);
  remove_file("special_tokens_map.json");
  remove_file("generation_config.json");
  remove_file("config.json");
}

static char *contents(const char *name, size_t *bytes) {
  char path[64], *text = calloc(1, 1 << 20);
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *f = fopen(path, "rb");
  assert_non_null(f);
  *bytes = fread(text, 1, 1 << 20, f);
  fclose(f);
  return text;
}

static void test_saved(const test_device *device, const void *data) {
  (void)device, (void)data;
  static const char json[] = "{\"model\" :" MODEL("") ",\n\n \"added_tokens\":[" ADDED("x") "] } ";
  static const char config[] = "{ \"bos_token\":\"x\"}";
  write_file("tokenizer.json", json, strlen(json));
  write_file("tokenizer_config.json", config, strlen(config));
  clm_tokenizer *t = load();
  remove_file("tokenizer.json");
  remove_file("tokenizer_config.json");
  size_t bytes;
  assert_int_equal(clm_tokenizer_save(t, folder), CLM_OK);
  char *text = contents("tokenizer.json", &bytes);
  assert_string_equal(text, json);
  free(text);
  text = contents("tokenizer_config.json", &bytes);
  assert_string_equal(text, config);
  free(text);
  clm_tokenizer_destroy(&t);
  remove_file("tokenizer_config.json");
  t = load();
  assert_int_equal(clm_tokenizer_save(t, folder), CLM_OK);
  text = contents("tokenizer_config.json", &bytes); /* one is made where there was none */
  assert_non_null(strstr(text, "PreTrainedTokenizerFast"));
  free(text);
  clm_tokenizer_destroy(&t);
  remove_file("tokenizer_config.json");
}

/* ---- From the parts of a GGUF file ---- */

typedef struct gguf {
  json_t *json;
  bpe_string *tokens, *merges;
  int32_t *types;
  byte_buffer joined;
  bpe_parts parts;
} gguf;

/* What a converter would write for a tokenizer.json. */
static gguf gguf_of(const char *name, const char *pre) {
  gguf g = {0};
  bool variant;
  g.json = tokenizer_json(name, &variant);
  json_t *model = json_object_get(g.json, "model"), *vocab = json_object_get(model, "vocab"),
         *merges = json_object_get(model, "merges"), *added = json_object_get(g.json, "added_tokens"), *each;
  size_t i, count = json_object_size(vocab) + json_array_size(added), merge_count = json_array_size(merges);
  const char *key;
  g.tokens = calloc(count, sizeof *g.tokens);
  g.types = calloc(count, sizeof *g.types);
  g.merges = calloc(merge_count, sizeof *g.merges);
  json_object_foreach(vocab, key, each) {
    g.tokens[json_integer_value(each)] = (bpe_string){key, strlen(key)};
    g.types[json_integer_value(each)] = BPE_TOKEN_NORMAL;
  }
  json_array_foreach(added, i, each) {
    json_int_t id = json_integer_value(json_object_get(each, "id"));
    const char *content = json_string_value(json_object_get(each, "content"));
    g.tokens[id] = (bpe_string){content, strlen(content)};
    g.types[id] = json_is_true(json_object_get(each, "special")) ? BPE_TOKEN_CONTROL : BPE_TOKEN_USER_DEFINED;
    if (id >= g.parts.token_count) g.parts.token_count = id + 1;
  }
  assert_non_null(bytes_reserve(&g.joined, (size_t)1 << 18)); /* so that it does not move */
  json_array_foreach(merges, i, each) {
    const char *left = json_string_value(json_array_get(each, 0)),
               *right = json_string_value(json_array_get(each, 1));
    if (json_is_string(each)) g.merges[i] = (bpe_string){json_string_value(each), json_string_length(each)};
    else {
      size_t begin = g.joined.bytes;
      append(&g.joined, left, strlen(left));
      append(&g.joined, " ", 1);
      append(&g.joined, right, strlen(right));
      g.merges[i] = (bpe_string){g.joined.data + begin, g.joined.bytes - begin};
    }
  }
  g.parts.tokens = g.tokens, g.parts.merges = g.merges, g.parts.token_types = g.types;
  g.parts.merge_count = (int64_t)merge_count;
  g.parts.pre = pre;
  g.parts.bos = 0, g.parts.eos = 3, g.parts.pad = -1, g.parts.unk = 1 << 30;
  return g;
}

static void gguf_free(gguf *g) {
  json_decref(g->json);
  free(g->tokens), free(g->merges), free(g->types);
  bytes_free(&g->joined);
}

#define BYTES(regex) "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": " regex "}"
#define DIGITS                                                                                                       \
  "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", \"individual_digits\": true}, " BYTES(        \
      "true") "]}"
#define WORDS(digits)                                                                                                \
  "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"behavior\": \"Isolated\", \"invert\": "      \
  "false, "                                                                                                          \
  "\"pattern\": {\"Regex\": \"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" digits          \
  "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}}, " BYTES("false") "]}"

/* By a name of `pre`: as the fixture is, or with this pre-tokenizer, as the models of that name have it, and without
 * a normalizer. */
static const struct embedded {
  const char *fixture, *pre, *pretokenizer;
} embedded[] = {{"neox", NULL, NULL},
                {"neox", "olmo", NULL},
                {"falcon", "falcon", NULL},
                {"neox", "phi-2", BYTES("true")},
                {"neox", "smollm", DIGITS},
                {"neox", "starcoder", DIGITS},
                {"neox", "dbrx", WORDS("\\\\p{N}{1,3}")},
                {"neox", "stablelm2", WORDS("\\\\p{N}")}};

static void test_embedded(const test_device *device, const void *data) {
  (void)device;
  const struct embedded *e = data;
  static const char text[] =
      "It's 12345 <|endoftext|>  \xc3\xa9 e\xcc\x81!? \n\n the king's \xe6\xbc\xa2 matching<|padding|>";
  gguf g = gguf_of(e->fixture, e->pre);
  clm_tokenizer *from_parts, *saved, *from_json;
  assert_int_equal(tokenizer_from_bpe(test_reference, &g.parts, &from_parts), CLM_OK);
  json_error_t error;
  if (e->pretokenizer) {
    json_object_set_new(g.json, "pre_tokenizer", json_loads(e->pretokenizer, 0, &error));
    json_object_set_new(g.json, "normalizer", json_null());
  }
  write_json("tokenizer.json", g.json);
  from_json = load();
  assert_int_equal(clm_tokenizer_save(from_parts, folder), CLM_OK);
  saved = load();
  byte_buffer buffer = {0};
  append(&buffer, text, strlen(text));
  token_array want = encode(from_json, (clm_encode_options){0}, buffer);
  clm_tokenizer *const all[] = {from_parts, saved};
  for (int i = 0; i < 2; i++) {
    token_array got = encode(all[i], (clm_encode_options){0}, buffer);
    assert_int_equal(got.count, want.count);
    assert_memory_equal(got.ids, want.ids, want.count * sizeof *want.ids);
    assert_int_equal(hash_of_text(all[i], true, got), hash_of_text(from_json, true, want));
    assert_int_equal(clm_tokenizer_special(all[i], CLM_TOKEN_BOS), 0);
    assert_int_equal(clm_tokenizer_special(all[i], CLM_TOKEN_EOS), 3);
    assert_int_equal(clm_tokenizer_special(all[i], CLM_TOKEN_UNK), -1);
    free(got.ids);
  }
  free(want.ids);
  clm_tokenizer_destroy(&from_parts), clm_tokenizer_destroy(&saved), clm_tokenizer_destroy(&from_json);
  bytes_free(&buffer);
  remove_file("tokenizer_config.json");
  gguf_free(&g);
}

static void test_embedded_wrong(const test_device *device, const void *data) {
  (void)device, (void)data;
  clm_tokenizer *t;
  bpe_string tokens[] = {{"a", 1}, {"b", 1}, {"ab", 2}}, merges[] = {{"a b", 3}};
  bpe_parts parts = {.tokens = tokens,
                     .token_count = 3,
                     .merges = merges,
                     .merge_count = 1,
                     .add_bos = true,
                     .bos = 1,
                     .eos = -1,
                     .add_eos = true};
  int32_t ids[8];
  size_t count;
  assert_int_equal(tokenizer_from_bpe(test_reference, &parts, &t), CLM_OK);
  assert_int_equal(
      clm_tokenizer_encode_with(t, &(clm_encode_options){.add_special_tokens = true}, "aab", 3, ids, 8, &count),
      CLM_OK);
  assert_int_equal(count, 3); /* b, which begins every text; a; ab */
  assert_true(ids[0] == 1 && ids[1] == 0 && ids[2] == 2);
  clm_tokenizer_destroy(&t);
  parts.pre = "nonsense";
  expect_message(tokenizer_from_bpe(test_reference, &parts, &t), CLM_UNSUPPORTED, "\"nonsense\" is not known");
  parts.pre = NULL;
  tokens[1] = (bpe_string){"a", 1};
  expect_message(tokenizer_from_bpe(test_reference, &parts, &t), CLM_BAD_FORMAT, "\"a\" is there twice");
  tokens[1] = (bpe_string){"\xff", 1};
  expect_message(tokenizer_from_bpe(test_reference, &parts, &t), CLM_BAD_FORMAT, "token 1 is not UTF-8");
  tokens[1] = (bpe_string){"a\0b", 3};
  expect_message(tokenizer_from_bpe(test_reference, &parts, &t), CLM_BAD_FORMAT, "token 1 is not UTF-8");
  tokens[1] = (bpe_string){"c", 1};
  expect_message(tokenizer_from_bpe(test_reference, &parts, &t), CLM_BAD_FORMAT, "merge 0 needs the token \"b\"");
  merges[0] = (bpe_string){"\x80", 1};
  expect_message(tokenizer_from_bpe(test_reference, &parts, &t), CLM_BAD_FORMAT, "merge 0 is not UTF-8");
  parts.token_count = 0, parts.merge_count = 0;
  expect_message(tokenizer_from_bpe(test_reference, &parts, &t), CLM_BAD_FORMAT, "vocabulary is empty");
  assert_null(t);
}

static size_t numbers[64];

static void add(void) {
  json_t *answers = json_load_file(FIXTURES "expected.json", 0, NULL);
  if (!answers) exit(EXIT_FAILURE);
  for (size_t i = 0; i < json_array_size(answers) && i < TEST_COUNT(numbers); i++) {
    numbers[i] = i;
    test_add(NULL, test_fixture, &numbers[i], "tokenizer %s",
             json_string_value(json_object_get(json_array_get(answers, i), "name")));
  }
  json_decref(answers);
  for (size_t i = 0; i < TEST_COUNT(wrongs); i++)
    test_add(NULL, test_wrong, &wrongs[i], "tokenizer.json, %s", wrongs[i].message);
  test_add(NULL, test_hostile, NULL, "tokenizer.json, hostile");
  test_add(NULL, test_explosion, NULL, "a pattern that explodes");
  test_add(NULL, test_explosion_everywhere, NULL, "a pattern that explodes at every place");
  test_add(NULL, test_unknown, NULL, "unknown characters");
  test_add(NULL, test_tokens, NULL, "tokens, special tokens");
  test_add(NULL, test_saved, NULL, "saved as it was read");
  for (size_t i = 0; i < TEST_COUNT(embedded); i++)
    test_add(NULL, test_embedded, &embedded[i], "embedded, %s", embedded[i].pre ? embedded[i].pre : "no name");
  test_add(NULL, test_embedded_wrong, NULL, "embedded, wrong");
}

int main(void) {
  if (!mkdtemp(folder)) return EXIT_FAILURE;
  int status = test_main_reference("tokenizer", add);
  remove_file("tokenizer.json");
  return rmdir(folder) == 0 ? status : EXIT_FAILURE;
}
