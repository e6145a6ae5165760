/* Checkpoints whose tensors have other names than Hugging Face's class gives them, and heads that are tied, or are
 * said to be. The right value is what transformers 5.24 loads of the same files: the names of a base model and those
 * below "model." are the model's; of a tied pair that is stored with one name it takes that one; of one that is
 * stored with two different contents it unties and warns. */
#include "cmocka_all.h"
#include "devices.h"
#include "files/safetensors.h"
#include "folder.h"
#include "model/model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EMBEDDING "backbone.embeddings.weight"
#define HEAD      "lm_head.weight"

static const clm_model_config tied = {.vocab_size = 9, .d_model = 8, .n_layer = 2, .d_state = 4},
                              untied = {
                                  .vocab_size = 9, .d_model = 8, .n_layer = 2, .d_state = 4, .untied_head = true};

typedef struct edit {
  const char *why;
  const clm_model_config *config;
  const char *from, *to; /* a beginning of names, and what it becomes                                     */
  const char *add;       /* optional: one tensor more, of this name, */
  float times;           /* the embedding times this                 */
  bool add_bf16;         /* stored as BF16                           */
  bool becomes_untied;   /* with a warning                           */
  const char *message;   /* of a refusal                             */
} edit;

/* clang-format off */
static const edit edits[] = {
    /* why                                         config   from         to                          add    times  bf16   untied message */
    {"a base model, without \"backbone.\"",        &tied,   "backbone.", "",                         NULL,  0,     false, false, NULL},
    {"below \"model.\"",                           &untied, "",          "model.",                   NULL,  0,     false, false, NULL},
    {"below \"model.\", without \"backbone.\"",    &tied,   "backbone.", "model.",                   NULL,  0,     false, false, NULL},
    {"the original's embedding",                   &tied,   EMBEDDING,   "backbone.embedding.weight", NULL, 0,     false, false, NULL},
    {"tied, stored as the head alone",             &tied,   EMBEDDING,   HEAD,                       NULL,  0,     false, false, NULL},
    {"tied, both stored",                          &tied,   "",          "",                         HEAD,  1,     false, false, NULL},
    {"tied, both stored, one as BF16",             &tied,   "",          "",                         HEAD,  1,     true,  false, NULL},
    {"tied, another head stored",                  &tied,   "",          "",                         HEAD,  2,     false, true,  NULL},
    {"tied, another head stored, as BF16",         &tied,   "",          "",                         HEAD,  -1,    true,  true,  NULL},
    {"untied, stored as the head alone",           &untied, EMBEDDING,   "other",                    NULL,  0,     false, false,
     "has no tensor \"" EMBEDDING "\""},
    {"tied, neither stored",                       &tied,   EMBEDDING,   "other",                    NULL,  0,     false, false,
     "has no tensor \"" EMBEDDING "\""},
};
/* clang-format on */

static uint16_t bf16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return (uint16_t)(bits >> 16);
}

/* Rewrites model.safetensors. */
static void apply(const edit *e) {
  source file;
  assert_int_equal(safetensors_open(test_reference, in_folder("model.safetensors"), &file), CLM_OK);
  safetensor *tensors = calloc(file.count + 1, sizeof *tensors);
  char(*names)[100] = calloc(file.count, sizeof *names);
  float added[72];
  uint16_t narrow[72];
  size_t count = 0;
  for (size_t i = 0; i < file.count; i++) {
    const source_tensor *t = &file.tensors[i];
    const size_t length = strlen(e->from);
    void *stored;
    assert_int_equal(source_read_all(test_reference, t, &stored), CLM_OK);
    if (strncmp(t->name, e->from, length) == 0) snprintf(names[i], sizeof *names, "%s%s", e->to, t->name + length);
    else snprintf(names[i], sizeof *names, "%s", t->name);
    tensors[count] =
        (safetensor){.name = names[i], .dtype = t->dtype_name, .rank = t->rank, .data = stored, .bytes = t->bytes};
    memcpy(tensors[count++].shape, t->shape, sizeof t->shape);
    for (size_t k = 0; k < 72 && strcmp(t->name, EMBEDDING) == 0; k++) {
      added[k] = ((const float *)stored)[k] * e->times;
      narrow[k] = bf16(added[k]);
    }
  }
  if (e->add)
    tensors[count++] = (safetensor){.name = e->add,
                                    .dtype = e->add_bf16 ? "BF16" : "F32",
                                    .rank = 2,
                                    .shape = {9, 8},
                                    .data = e->add_bf16 ? (const void *)narrow : added,
                                    .bytes = e->add_bf16 ? sizeof narrow : sizeof added};
  assert_int_equal(safetensors_write(test_reference, in_folder("model.safetensors"), tensors, count, NULL), CLM_OK);
  source_close(&file); /* it has the names of the dtypes */
  for (size_t i = 0; i + (e->add != NULL) < count; i++) free((void *)(uintptr_t)tensors[i].data);
  free(names);
  free(tensors);
}

static int warnings;
static void on_log(void *user, clm_log_level level, const char *message) {
  (void)user;
  if (level == CLM_LOG_WARNING && strstr(message, "they are not tied")) warnings++;
}

/* Numbers that BF16 holds, zeros of both signs among them. */
static void make_embedding(float values[72]) {
  for (int i = 0; i < 72; i++) values[i] = (float)((i * 37) % 23 - 11) / 8;
  values[3] = -0.0f;
}

static void logits_of(clm_context *context, clm_model *model, float logits[9 * 9]) {
  clm_buffer *buffer;
  int32_t ids[9];
  for (int i = 0; i < 9; i++) ids[i] = i;
  assert_int_equal(clm_buffer_create(context, sizeof ids + 81 * sizeof *logits, &buffer), CLM_OK);
  clm_tensor in = clm_tensor_of(buffer, 0, CLM_I32, 2, (int64_t[]){1, 9}),
             out = clm_tensor_of(buffer, sizeof ids, CLM_F32, 3, (int64_t[]){1, 9, 9});
  assert_int_equal(clm_tensor_write(in, ids, sizeof ids), CLM_OK);
  assert_int_equal(clm_model_forward(model, in, out), CLM_OK);
  assert_int_equal(clm_tensor_read(out, logits, 81 * sizeof *logits), CLM_OK);
  clm_buffer_destroy(&buffer);
}

static void test_edit(const test_device *device, const void *data) {
  (void)device;
  const edit *e = data;
  clm_context *context;
  clm_model *model, *loaded;
  clm_tensor t;
  float values[72], want[81], got[81];
  make_embedding(values);
  folder_empty();
  assert_int_equal(clm_context_create(&(clm_context_options){.device = "cpu", .log = on_log}, &context), CLM_OK);
  assert_int_equal(clm_model_create(context, e->config, 5, &model), CLM_OK);
  assert_int_equal(clm_model_parameter(model, EMBEDDING, &t), CLM_OK);
  assert_int_equal(clm_tensor_write(t, values, sizeof values), CLM_OK);
  logits_of(context, model, want);
  assert_int_equal(clm_model_save(model, test_folder), CLM_OK);
  clm_model_destroy(&model);
  apply(e);
  warnings = 0;
  clm_status status = clm_model_load(context, test_folder, &loaded);
  if (e->message) {
    expect_failure(context, status, CLM_BAD_FORMAT, e->message);
  } else {
    if (status) fail_msg("%s", clm_context_error(context));
    assert_int_equal(warnings, e->becomes_untied);
    assert_int_equal(clm_model_configuration(loaded)->untied_head, e->becomes_untied || e->config->untied_head);
    logits_of(context, loaded, got);
    for (int i = 0; i < 81; i++) assert_true(got[i] == (e->becomes_untied ? e->times * want[i] : want[i]));
    /* What is saved loads without a question. */
    assert_int_equal(clm_model_save(loaded, test_folder), CLM_OK);
    clm_model_destroy(&loaded);
    warnings = 0;
    assert_int_equal(clm_model_load(context, test_folder, &loaded), CLM_OK);
    assert_int_equal(warnings, 0);
  }
  clm_model_destroy(&loaded);
  clm_context_destroy(&context);
}

static void add(void) {
  for (size_t i = 0; i < TEST_COUNT(edits); i++) test_add(NULL, test_edit, &edits[i], "%s", edits[i].why);
}

int main(void) {
  if (!folder_make()) return EXIT_FAILURE;
  int status = test_main_reference("names", add);
  return folder_remove() ? status : EXIT_FAILURE;
}
