/* NULL for every pointer of every public function, values that no enumeration has, and bytes in names that would
 * disturb a terminal: CLM_INVALID_ARGUMENT with a message, or nothing, as the headers say, and never a crash. */
#include "null_calls.h"
#include "problem.h"
#include <limits.h>
#include <string.h>
#include <unistd.h>

static null_fixture fixture;

static void ok(clm_status status) {
  if (status) fail_msg("%s", clm_context_error(fixture.context));
}

void null_refused(clm_status status, const null_fixture *f, const char *words) {
  assert_int_equal(status, CLM_INVALID_ARGUMENT);
  if (words && !strstr(clm_context_error(f->context), words))
    fail_msg("\"%s\" does not say \"%s\"", clm_context_error(f->context), words);
}

static void make_fixture(void) {
  static const char *const names[] = {"one", "two"};
  static _Alignas(64) char memory[4096];
  static const int32_t ids[40] = {1, 2, 3};
  null_fixture *f = &fixture;
  const clm_model_config model = {.vocab_size = 8, .d_model = 8, .n_layer = 1, .d_state = 4};
  const clm_backbone_config backbone = {.embed_dim = 2, .d_model = 8, .n_layers = 1, .d_state = 4, .n_outputs = 2};
  const clm_train_options train = {.batch = 1, .length = 4, .steps = 2};
  f->names = names;
  f->memory = memory;
  f->folder = "/nonexistent";
  assert_int_equal(clm_context_create(&(clm_context_options){.device = "cpu", .threads = 1}, &f->context), CLM_OK);
  ok(clm_buffer_create(f->context, 4096, &f->buffer));
  f->tensor = clm_tensor_of(f->buffer, 0, CLM_F32, 1, (int64_t[]){1});
  ok(clm_model_create(f->context, &model, 1, &f->model));
  ok(clm_model_state_create(f->model, 1, &f->model_state));
  ok(clm_backbone_create(f->context, &backbone, 1, &f->backbone));
  ok(clm_backbone_state_create(f->backbone, 1, &f->backbone_state));
  ok(clm_tokenizer_create(f->context, CLM_VOCABULARY_BYTE, "abc", 3, &f->tokenizer));
  ok(clm_text_stream_create(f->tokenizer, NULL, &f->text_stream));
  ok(clm_sampler_create(f->context, &(clm_sampler_options){0}, 8, &f->sampler));
  ok(clm_trainer_create(f->model, ids, 40, &train, &f->trainer));
}

static void free_fixture(void) {
  null_fixture *f = &fixture;
  clm_trainer_destroy(&f->trainer);
  clm_sampler_destroy(&f->sampler);
  clm_text_stream_destroy(&f->text_stream);
  clm_tokenizer_destroy(&f->tokenizer);
  clm_backbone_state_destroy(&f->backbone_state);
  clm_backbone_destroy(&f->backbone);
  clm_model_state_destroy(&f->model_state);
  clm_model_destroy(&f->model);
  clm_buffer_destroy(&f->buffer);
  clm_context_destroy(&f->context);
}

static void test_null(const test_device *device, const void *data) {
  (void)device;
  if (!fixture.context) make_fixture();
  ((const null_call *)data)->run(&fixture);
}

/* ---- Enumerations ---- */

static const int unknown[] = {-1, 99, INT_MAX, INT_MIN};

static void unknown_everywhere(int value) {
  const null_fixture *f = &fixture;
  clm_context *ctx = f->context;
  clm_tensor t = f->tensor, x = clm_tensor_of(f->buffer, 0, CLM_F32, 2, (int64_t[]){2, 2}),
             out = clm_tensor_of(f->buffer, 64, CLM_F32, 2, (int64_t[]){2, 2});
  t.dtype = (clm_dtype)value;
  null_refused(clm_tensor_write(t, f->memory, 4), f, "unknown dtype");
  null_refused(clm_tensor_read(t, f->memory, 4), f, "unknown dtype");
  null_refused(clm_cast(ctx, &(clm_cast_args){.x = t, .out = f->tensor}), f, "unknown dtype");
  assert_int_equal(clm_dtype_size((clm_dtype)value), 0);
  assert_string_equal(clm_dtype_name((clm_dtype)value), "unknown");
  assert_string_equal(clm_status_string((clm_status)value), "unknown status");
  assert_int_equal(clm_convert((clm_dtype)value, f->memory, CLM_F32, f->memory, 1), CLM_INVALID_ARGUMENT);
  assert_int_equal(clm_convert(CLM_F32, f->memory, (clm_dtype)value, f->memory, 1), CLM_INVALID_ARGUMENT);
  const clm_norm_args norm = {.x = x, .out = out, .kind = (clm_norm_kind)value};
  null_refused(clm_norm(ctx, &norm), f, "kind is");
  null_refused(clm_norm_backward(ctx, &(clm_norm_backward_args){.forward = norm, .dout = x, .dx = out}), f,
               "kind is");
  const clm_matmul_args matmul = {.a = x, .b = x, .out = out, .activation = (clm_activation)value};
  null_refused(clm_matmul(ctx, &matmul), f, "activation is");
  clm_model *model = NULL;
  const clm_model_load_options load = {.weights = (clm_weights_type)value};
  null_refused(clm_model_load_with(ctx, f->folder, &load, &model), f, "weights is");
  clm_tokenizer *tokenizer = NULL;
  null_refused(clm_tokenizer_create(ctx, (clm_vocabulary)value, "abc", 3, &tokenizer), f, "kind is");
  assert_int_equal(clm_tokenizer_special(f->tokenizer, (clm_special_token)value), -1);
  clm_backbone *backbone = NULL;
  clm_backbone_config config = {.embed_dim = 2, .d_model = 8, .n_layers = 1, .output = (clm_backbone_output)value};
  null_refused(clm_backbone_create(ctx, &config, 1, &backbone), f, "output");
  config.output = CLM_OUTPUT_LAST;
  config.task = (clm_backbone_task)value;
  null_refused(clm_backbone_create(ctx, &config, 1, &backbone), f, "task");
  assert_null(backbone);
}

static void test_unknown(const test_device *device, const void *data) {
  (void)device, (void)data;
  if (!fixture.context) make_fixture();
  for (size_t i = 0; i < TEST_COUNT(unknown); i++) unknown_everywhere(unknown[i]);
}

/* clm_discretize_args: the one enumeration of an operation with larger arguments. */
static void test_unknown_method(const test_device *device, const void *data) {
  (void)device, (void)data;
  if (!fixture.context) make_fixture();
  const clm_tensor delta = clm_tensor_of(fixture.buffer, 0, CLM_F32, 3, (int64_t[]){1, 1, 1}),
                   A = clm_tensor_of(fixture.buffer, 64, CLM_F32, 2, (int64_t[]){1, 1}),
                   A_bar = clm_tensor_of(fixture.buffer, 128, CLM_F32, 4, (int64_t[]){1, 1, 1, 1}),
                   B_bar = clm_tensor_of(fixture.buffer, 192, CLM_F32, 4, (int64_t[]){1, 1, 1, 1});
  for (size_t i = 0; i < TEST_COUNT(unknown); i++) {
    clm_discretize_args args = {.delta = delta, .A = A, .B = A, .A_bar = A_bar, .B_bar = B_bar};
    args.method = (clm_discretization)unknown[i];
    null_refused(clm_discretize(fixture.context, &args), &fixture, "method is");
    args.A_bar = args.B_bar = (clm_tensor){0};
    const clm_discretize_backward_args backward = {.forward = args, .dA_bar = A_bar, .dB_bar = B_bar, .dA = delta};
    null_refused(clm_discretize_backward(fixture.context, &backward), &fixture, "");
  }
}

/* ---- Messages ---- */

typedef struct hostile_name {
  const char *name, *shown;
} hostile_name;
static const hostile_name hostile[] = {
    {"plain name", "plain name"},
    {"na\xc3\xafve \xe2\x82\xac", "na\xc3\xafve \xe2\x82\xac"}, /* UTF-8 stays */
    {"\033[2Jgone", "\\x1b[2Jgone"},                            /* clears the screen */
    {"a\nclmamba: all is well", "a\\x0aclmamba: all is well"},  /* another line */
    {"a\rb\bc\007d\177e\tf", "a\\x0db\\x08c\\x07d\\x7fe\\x09f"},
    {"\xff\xc3(\xe2\x82", "\\xff\\xc3(\\xe2\\x82"}, /* not UTF-8 */
    {"\xc2\x9b"
     "31m",
     "\\u{9b}31m"}, /* the one-character form of ESC [ */
    {"\xe2\x80\xae"
     "txt.exe",
     "\\u{202e}txt.exe"},            /* right to left */
    {"\xe2\x80\xa8x", "\\u{2028}x"}, /* a line separator */
};

static void test_hostile(const test_device *device, const void *data) {
  (void)device;
  const hostile_name *h = data;
  if (!fixture.context) make_fixture();
  clm_tensor parameter;
  assert_int_equal(clm_model_parameter(fixture.model, h->name, &parameter), CLM_INVALID_ARGUMENT);
  const char *message = clm_context_error(fixture.context);
  if (!strstr(message, h->shown)) fail_msg("\"%s\" does not show \"%s\"", message, h->shown);
  clm_model *model = NULL;
  assert_int_not_equal(clm_model_load(fixture.context, h->name, &model), CLM_OK);
  if (!strstr(clm_context_error(fixture.context), h->shown))
    fail_msg("\"%s\" does not show \"%s\"", clm_context_error(fixture.context), h->shown);
  char error[200] = "";
  clm_context *context = NULL;
  const clm_context_options options = {.device = h->name, .error = error, .error_size = sizeof error};
  assert_int_equal(clm_context_create(&options, &context), CLM_INVALID_ARGUMENT);
  if (!strstr(error, h->shown)) fail_msg("\"%s\" does not show \"%s\"", error, h->shown);
}

/* A message that does not fit is cut between characters. */
static void test_long_message(const test_device *device, const void *data) {
  (void)device, (void)data;
  char error[600], name[2000];
  for (size_t i = 0; i + 1 < sizeof name; i++) name[i] = i % 2 ? '\xa9' : '\xc3';
  name[sizeof name - 1] = '\0';
  clm_context *context = NULL;
  const clm_context_options options = {.device = name, .error = error, .error_size = sizeof error};
  assert_int_equal(clm_context_create(&options, &context), CLM_INVALID_ARGUMENT);
  assert_null(strchr(error, '\\'));
  assert_true(strlen(error) > 400 && error[strlen(error) - 1] == '\xa9');
}

static void add(void) {
  for (size_t i = 0; i < null_call_count; i++)
    test_add(NULL, test_null, &null_calls[i], "%s NULL", null_calls[i].name);
  test_add(NULL, test_unknown, NULL, "values that no enumeration has");
  test_add(NULL, test_unknown_method, NULL, "a discretization that there is not");
  for (size_t i = 0; i < TEST_COUNT(hostile); i++)
    test_add(NULL, test_hostile, &hostile[i], "shown as %s", hostile[i].shown);
  test_add(NULL, test_long_message, NULL, "a message that is cut");
}

int main(void) {
  const int status = test_main_reference("null", add);
  if (fixture.context) free_fixture();
  return status;
}
