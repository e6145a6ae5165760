/* The tokenizer inside a GGUF file. */
#include "cmocka_all.h"
#include "devices.h"
#include <clmamba/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/tmp/clmamba-test-XXXXXX";

/* As the format numbers the types of values. */
enum { U32 = 4, I32 = 5, BOOL = 7, STRING = 8, ARRAY = 9 };

typedef struct writer {
  FILE *file;
  uint64_t values;
} writer;

static void put(writer *w, const void *data, size_t bytes) {
  assert_int_equal(fwrite(data, 1, bytes, w->file), bytes);
}
static void put_u32(writer *w, uint32_t x) { put(w, &x, sizeof x); }
static void put_u64(writer *w, uint64_t x) { put(w, &x, sizeof x); }

static void put_text(writer *w, const char *text) {
  put_u64(w, strlen(text));
  put(w, text, strlen(text));
}

static void begin_value(writer *w, const char *key, uint32_t type) {
  put_text(w, key);
  put_u32(w, type);
  w->values++;
}

static void value_text(writer *w, const char *key, const char *text) {
  begin_value(w, key, STRING);
  put_text(w, text);
}

static void value_u32(writer *w, const char *key, uint32_t x) {
  begin_value(w, key, U32);
  put_u32(w, x);
}

static void value_texts(writer *w, const char *key, const char *const *texts, size_t count) {
  begin_value(w, key, ARRAY);
  put_u32(w, STRING);
  put_u64(w, count);
  for (size_t i = 0; i < count; i++) put_text(w, texts[i]);
}

static void value_types(writer *w, size_t count) {
  begin_value(w, "tokenizer.ggml.token_type", ARRAY);
  put_u32(w, I32);
  put_u64(w, count);
  for (size_t i = 0; i < count; i++) put_u32(w, i == 0 ? 3 : 1); /* the first is special */
}

typedef struct gguf_case {
  const char *why, *model, *pre;
  size_t types; /* how many */
  clm_status status;
  const char *message;
} gguf_case;
static const gguf_case cases[] = {
    {"byte-level BPE", "gpt2", "default", 6, CLM_OK, ""},
    {"without types", "gpt2", "", 0, CLM_OK, ""},
    {"another model", "llama", "", 6, CLM_UNSUPPORTED, "tokenizer.ggml.model is \"llama\", expected \"gpt2\""},
    {"no tokenizer", "", "", 0, CLM_BAD_FORMAT,
     "has no tokenizer (tokenizer.ggml.model, tokenizer.ggml.tokens): convert the model again with one"},
    {"too few types", "gpt2", "", 5, CLM_BAD_FORMAT, "is not an array of 6 numbers"},
    {"unknown pre-tokenizer", "gpt2", "nonsense", 6, CLM_UNSUPPORTED, "\"nonsense\" is not known"},
};

static void write_file(const gguf_case *c) {
  static const char *const tokens[] = {"<|end|>", "a", "b", "ab", "\xc4\xa0", "\304\240ab"};
  static const char *const merges[] = {"a b", "\xc4\xa0 ab"};
  writer w = {.file = fopen(path, "wb")};
  assert_non_null(w.file);
  put(&w, "GGUF", 4);
  put_u32(&w, 3);
  put_u64(&w, 0); /* tensors */
  put_u64(&w, 0); /* values, below */
  value_text(&w, "general.architecture", "mamba");
  if (c->model[0]) value_text(&w, "tokenizer.ggml.model", c->model);
  if (c->pre[0]) value_text(&w, "tokenizer.ggml.pre", c->pre);
  value_texts(&w, "tokenizer.ggml.tokens", tokens, 6);
  value_texts(&w, "tokenizer.ggml.merges", merges, 2);
  if (c->types) value_types(&w, c->types);
  value_u32(&w, "tokenizer.ggml.eos_token_id", 0);
  assert_int_equal(fseek(w.file, 16, SEEK_SET), 0);
  put_u64(&w, w.values);
  assert_int_equal(fclose(w.file), 0);
}

static void test_load(const test_device *device, const void *data) {
  (void)device;
  const gguf_case *c = data;
  clm_tokenizer *t;
  write_file(c);
  clm_status status = clm_tokenizer_load(test_reference, path, &t);
  if (status != c->status || !strstr(clm_context_error(test_reference), c->message))
    fail_msg("got %s: \"%s\", expected %s and \"%s\"", clm_status_string(status), clm_context_error(test_reference),
             clm_status_string(c->status), c->message);
  if (status) {
    assert_null(t);
    return;
  }
  int32_t ids[8];
  size_t count;
  assert_int_equal(clm_tokenizer_encode(t, "ab ab<|end|>", c->types ? 12 : 5, ids, 8, &count), CLM_OK);
  assert_int_equal(count, c->types ? 3 : 2);
  assert_true(ids[0] == 3 && ids[1] == 5 && (count < 3 || ids[2] == 0));
  assert_int_equal(clm_tokenizer_special(t, CLM_TOKEN_EOS), 0);
  assert_int_equal(clm_tokenizer_special(t, CLM_TOKEN_BOS), -1);
  clm_tokenizer_destroy(&t);
}

static void add(void) {
  for (size_t i = 0; i < TEST_COUNT(cases); i++) test_add(NULL, test_load, &cases[i], "%s", cases[i].why);
}

int main(void) {
  if (mkstemp(path) < 0) return EXIT_FAILURE;
  int status = test_main_reference("gguf_tokenizer", add);
  unlink(path);
  return status;
}
