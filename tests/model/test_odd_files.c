/* What stands where a file of a model should: a FIFO that nobody writes to, a pointer of Git LFS, a folder, a file
 * that becomes shorter while it is read. Each gets a message; nothing waits, and nothing dies of SIGBUS. */
#include "cmocka_all.h"
#include "devices.h"
#include "files/gguf.h"
#include "files/pytorch.h"
#include "files/safetensors.h"
#include "folder.h"
#include <clmamba/generate.h>
#include <clmamba/model.h>
#include <clmamba/tokenizer.h>
#include <clmamba/train.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const clm_model_config tiny = {.vocab_size = 9, .d_model = 8, .n_layer = 2, .d_state = 4};

static void save_model(void) {
  clm_model *model;
  folder_empty();
  assert_int_equal(clm_model_create(test_reference, &tiny, 1, &model), CLM_OK);
  assert_int_equal(clm_model_save(model, test_folder), CLM_OK);
  clm_model_destroy(&model);
}

/* ---- In place of each file ---- */

static clm_status load_model(void) {
  clm_model *model;
  clm_status status = clm_model_load(test_reference, test_folder, &model);
  clm_model_destroy(&model);
  return status;
}

static clm_status load_gguf(void) {
  clm_model *model;
  clm_status status = clm_model_load(test_reference, in_folder("model.gguf"), &model);
  clm_model_destroy(&model);
  return status;
}

static clm_status load_tokenizer(void) {
  clm_tokenizer *tokenizer;
  clm_status status = clm_tokenizer_load(test_reference, test_folder, &tokenizer);
  clm_tokenizer_destroy(&tokenizer);
  return status;
}

static clm_status load_state(void) {
  clm_model *model;
  clm_model_state *state;
  assert_int_equal(clm_model_create(test_reference, &tiny, 1, &model), CLM_OK);
  clm_status status = clm_model_state_load(model, in_folder("state.safetensors"), &state);
  clm_model_state_destroy(&state);
  clm_model_destroy(&model);
  return status;
}

static clm_status read_options(void) {
  clm_train_options options;
  return clm_trainer_saved_options(test_reference, test_folder, &options);
}

static const struct place {
  const char *file, *without; /* `without` is removed before */
  clm_status (*read)(void);
} places[] = {
    {"config.json", NULL, load_model},
    {"model.safetensors", NULL, load_model},
    {"model.safetensors.index.json", "model.safetensors", load_model},
    {"pytorch_model.bin", "model.safetensors", load_model},
    {"pytorch_model.bin.index.json", "model.safetensors", load_model},
    {"model.gguf", NULL, load_gguf},
    {"tokenizer.json", NULL, load_tokenizer},
    {"tokenizer_config.json", NULL, load_tokenizer},
    {"generation_config.json", NULL, load_tokenizer},
    {"state.safetensors", NULL, load_state},
    {"trainer.safetensors", NULL, read_options},
};

static const char pointer[] = "version https://git-lfs.github.com/spec/v1\n"
                              "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
                              "size 12345\n";

static void put_fifo(const char *path) { assert_int_equal(mkfifo(path, 0600), 0); }
static void put_folder(const char *path) { assert_int_equal(mkdir(path, 0700), 0); }
static void put_pointer(const char *path) { write_file(strrchr(path, '/') + 1, pointer, sizeof pointer - 1); }

static const struct odd {
  const char *what, *message;
  clm_status status;
  void (*put)(const char *path);
} odds[] = {{"a FIFO", "not a regular file", CLM_IO_ERROR, put_fifo},
            {"a folder", "Is a directory", CLM_IO_ERROR, put_folder},
            {"a pointer of Git LFS", "is a Git LFS pointer, not the file itself: run \"git lfs pull\"",
             CLM_BAD_FORMAT, put_pointer}};

static void test_odd(const test_device *device, const void *data) {
  (void)device;
  const struct odd *odd = data;
  for (size_t i = 0; i < TEST_COUNT(places); i++) {
    const struct place *place = &places[i];
    clm_tokenizer *tokenizer;
    save_model();
    assert_int_equal(clm_tokenizer_create(test_reference, CLM_VOCABULARY_CHAR, "abc", 3, &tokenizer), CLM_OK);
    assert_int_equal(clm_tokenizer_save(tokenizer, test_folder), CLM_OK);
    clm_tokenizer_destroy(&tokenizer);
    if (place->without) unlink(in_folder(place->without));
    unlink(in_folder(place->file));
    odd->put(in_folder(place->file));
    if (odd->put == put_folder && place->read == load_gguf) place = NULL; /* a folder is a model directory */
    if (place) {
      clm_status status = place->read();
      const char *error = clm_context_error(test_reference);
      if (status != odd->status || !strstr(error, odd->message) || !strstr(error, place->file))
        fail_msg("%s: got %s: \"%s\"", place->file, clm_status_string(status), error);
    }
    rmdir(in_folder(places[i].file));
  }
}

/* ---- The wrong path ---- */

static void test_single_file(const test_device *device, const void *data) {
  (void)device, (void)data;
  clm_model *model;
  clm_tokenizer *tokenizer;
  char want[400];
  save_model();
  snprintf(want, sizeof want, "give the directory that holds config.json and the weights, \"%s\"", test_folder);
  const char *const names[] = {"model.safetensors", "config.json"};
  for (size_t i = 0; i < TEST_COUNT(names); i++) {
    expect_failure(test_reference, clm_model_load(test_reference, in_folder(names[i]), &model), CLM_UNSUPPORTED,
                   want);
    assert_null(model);
    expect_failure(test_reference, clm_tokenizer_load(test_reference, in_folder(names[i]), &tokenizer),
                   CLM_UNSUPPORTED, want);
    assert_null(tokenizer);
  }
  expect_failure(test_reference, clm_model_load(test_reference, in_folder("absent"), &model), CLM_IO_ERROR,
                 "config.json: No such file");
}

/* ---- Cut short ---- */

static bool cut_at_first_progress(void *user, uint64_t done, uint64_t total) {
  (void)done, (void)total;
  assert_int_equal(truncate(user, 600), 0);
  return true;
}

static void test_cut_while_loading(const test_device *device, const void *data) {
  (void)device, (void)data;
  char path[320];
  clm_model *model;
  save_model();
  snprintf(path, sizeof path, "%s", in_folder("model.safetensors"));
  const clm_model_load_options options = {.progress = cut_at_first_progress, .user = path};
  expect_failure(test_reference, clm_model_load_with(test_reference, test_folder, &options, &model), CLM_IO_ERROR,
                 "model.safetensors: it became shorter");
  assert_null(model);
}

/* Every length of a file that is open. */
static void test_cut_while_open(const test_device *device, const void *data) {
  (void)device, (void)data;
  source file;
  void *stored;
  save_model();
  assert_int_equal(safetensors_open(test_reference, in_folder("model.safetensors"), &file), CLM_OK);
  const source_tensor *last = &file.tensors[0];
  for (size_t i = 0; i < file.count; i++)
    if (file.tensors[i].place > last->place) last = &file.tensors[i];
  for (uint64_t end = last->place + last->bytes; end > 0; end -= end < 97 ? end : 97) {
    assert_int_equal(truncate(file.path, (off_t)end), 0);
    if (end == last->place + last->bytes) {
      assert_int_equal(source_read_all(test_reference, last, &stored), CLM_OK);
      free(stored);
    } else {
      expect_failure(test_reference, source_read_all(test_reference, last, &stored), CLM_IO_ERROR,
                     "it became shorter");
      assert_null(stored);
    }
  }
  source_close(&file);
}

/* A GGUF file of one value and one tensor of 8 numbers. */
static void write_gguf(void) {
  bytes b = {0};
  put_text(&b, "GGUF");
  put_number(&b, 3, 4);
  put_number(&b, 1, 8);
  put_number(&b, 1, 8);
  put_number(&b, strlen(GGUF_ARCHITECTURE), 8);
  put_text(&b, GGUF_ARCHITECTURE);
  put_number(&b, GGUF_STRING, 4);
  put_number(&b, 5, 8);
  put_text(&b, "mamba");
  put_number(&b, 1, 8);
  put_text(&b, "x");
  put_number(&b, 1, 4);
  put_number(&b, 8, 8);
  put_number(&b, 0, 4);
  put_number(&b, 0, 8);
  while (b.count % 32) put_number(&b, 0, 1);
  for (unsigned i = 0; i < 8; i++) put_number(&b, i, 4);
  write_file("model.gguf", b.data, b.count);
  bytes_release(&b);
}

static void test_cut_gguf(const test_device *device, const void *data) {
  (void)device, (void)data;
  source file;
  gguf_text text;
  uint32_t numbers[8];
  folder_empty();
  write_gguf();
  if (gguf_open(test_reference, in_folder("model.gguf"), &file)) fail_msg("%s", clm_context_error(test_reference));
  const source_tensor *x = source_find(&file, "x");
  assert_non_null(x);
  assert_int_equal(source_read(test_reference, x, 0, sizeof numbers, numbers), CLM_OK);
  for (unsigned i = 0; i < 8; i++) assert_int_equal(numbers[i], i);
  assert_int_equal(truncate(file.path, 0), 0);
  expect_failure(test_reference, source_read(test_reference, x, 0, sizeof numbers, numbers), CLM_IO_ERROR,
                 "model.gguf: it became shorter");
  assert_true(gguf_string(&file, GGUF_ARCHITECTURE, &text)); /* the values are in memory */
  assert_int_equal(text.bytes, 5);
  assert_memory_equal(text.text, "mamba", 5);
  source_close(&file);
}

static void add(void) {
  for (size_t i = 0; i < TEST_COUNT(odds); i++) test_add(NULL, test_odd, &odds[i], "%s", odds[i].what);
  test_add(NULL, test_single_file, NULL, "one file of a model");
  test_add(NULL, test_cut_while_loading, NULL, "cut short while a model is loaded");
  test_add(NULL, test_cut_while_open, NULL, "cut short while it is open");
  test_add(NULL, test_cut_gguf, NULL, "cut short while it is open, GGUF");
}

int main(void) {
  if (!folder_make()) return EXIT_FAILURE;
  alarm(120); /* a reader that waits for a FIFO fails */
  int status = test_main_reference("odd_files", add);
  return folder_remove() ? status : EXIT_FAILURE;
}
