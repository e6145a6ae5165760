/* Creating contexts: device names, levels, errors; what a context tells; two contexts at once. */
#include "problem.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct refused_case {
  const char *device, *cpu_level;
  clm_status status;
  const char *message;
} refused_case;

static const refused_case refused[] = {
    {"gpu", NULL, CLM_INVALID_ARGUMENT, "device \"gpu\" is not auto, cpu, opencl or opencl:N"},
    {"", NULL, CLM_INVALID_ARGUMENT, "device \"\" is not"},
    {"CPU", NULL, CLM_INVALID_ARGUMENT, "\"CPU\""},
    {"opencl:", NULL, CLM_INVALID_ARGUMENT, "\"opencl:\""},
    {"opencl:x", NULL, CLM_INVALID_ARGUMENT, "\"opencl:x\""},
    {"opencl:1x", NULL, CLM_INVALID_ARGUMENT, "\"opencl:1x\""},
    {"opencl:-1", NULL, CLM_INVALID_ARGUMENT, "\"opencl:-1\""},
    {"opencl:99999999999999999999", NULL, CLM_INVALID_ARGUMENT, "is not"},
    {"opencl:999", NULL, CLM_NO_DEVICE, "opencl:999"},
    {"cpu", "sse9", CLM_INVALID_ARGUMENT, "sse9"},
};

static void test_refused(const test_device *device, const void *data) {
  (void)device;
  const refused_case *c = data;
  char error[200] = "untouched";
  clm_context *context = (clm_context *)(void *)&context;
  const clm_context_options options = {
      .device = c->device, .cpu_level = c->cpu_level, .error = error, .error_size = sizeof error};
  assert_int_equal(clm_context_create(&options, &context), c->status);
  assert_null(context);
  if (!strstr(error, c->message)) fail_msg("\"%s\" does not say \"%s\"", error, c->message);

  char little[6]; /* cut, but ended */
  memset(little, 'x', sizeof little);
  const clm_context_options cut = {
      .device = c->device, .cpu_level = c->cpu_level, .error = little, .error_size = sizeof little};
  assert_int_equal(clm_context_create(&cut, &context), c->status);
  assert_memory_equal(little, error, 5);
  assert_int_equal(little[5], '\0');
  const clm_context_options silent = {.device = c->device, .cpu_level = c->cpu_level};
  assert_int_equal(clm_context_create(&silent, &context), c->status);
}

static void test_defaults(const test_device *device, const void *data) {
  (void)device, (void)data;
  clm_context *context;
  assert_int_equal(clm_context_create(NULL, &context), CLM_OK);
  clm_device_info info;
  assert_int_equal(clm_context_device(context, &info), CLM_OK);
  assert_true(!info.opencl || info.type != CLM_DEVICE_CPU); /* never OpenCL on a CPU unless asked for */
  assert_string_equal(clm_context_error(context), "");
  assert_int_equal(clm_context_finish(context), CLM_OK);
  clm_context_destroy(&context);
  assert_null(context);
  clm_context_destroy(&context);
  clm_context_destroy(NULL);
}

static void test_cpu(const test_device *device, const void *data) {
  (void)device, (void)data;
  clm_context *context;
  assert_int_equal(clm_context_create(&(clm_context_options){.device = "cpu", .threads = 3}, &context), CLM_OK);
  clm_device_info info;
  assert_int_equal(clm_context_device(context, &info), CLM_OK);
  assert_false(info.opencl);
  assert_int_equal(info.type, CLM_DEVICE_CPU);
  assert_string_equal(info.platform, "clmamba");
  assert_string_not_equal(info.name, "");
  assert_string_not_equal(info.version, "");
  assert_int_equal(info.compute_units, 3);
  assert_true(info.memory_bytes > 0);
  clm_context_destroy(&context);
}

static void test_devices_listed(const test_device *device, const void *data) {
  (void)device, (void)data;
  size_t count = 99, again = 99;
  assert_int_equal(clm_devices(NULL, 0, &count), CLM_OK);
  clm_device_info one[2];
  memset(one, 0x5a, sizeof one);
  assert_int_equal(clm_devices(one, 1, &again), CLM_OK);
  assert_int_equal(count, again);
  assert_int_equal(((unsigned char *)&one[1])[0], 0x5a); /* at most `capacity` are written */
  if (count) assert_string_not_equal(one[0].name, "");
}

static void test_information(const test_device *device, const void *data) {
  (void)data;
  clm_device_info info;
  assert_int_equal(clm_context_device(device->context, &info), CLM_OK);
  assert_int_equal(info.opencl, device->opencl);
  assert_string_not_equal(info.name, "");
  assert_string_equal(info.unusable, "");
  assert_true(info.compute_units > 0);
  assert_true(info.memory_bytes > 0);
}

/* The message stays until the next call that fails or runs; explain says what ran. */
static void test_messages(const test_device *device, const void *data) {
  (void)data;
  clm_context *context = device->context;
  assert_int_equal(clm_axpby(context, &(clm_axpby_args){0}), CLM_INVALID_ARGUMENT);
  assert_string_equal(clm_context_error(context), "axpby: out is missing");
  clm_buffer *buffer;
  assert_int_equal(clm_buffer_create(context, 64, &buffer), CLM_OK);
  const clm_axpby_args args = {.out = clm_tensor_of(buffer, 0, CLM_F32, 1, (int64_t[]){16})};
  assert_int_equal(clm_axpby(context, &args), CLM_OK);
  assert_string_equal(clm_context_error(context), "");
  assert_non_null(strstr(clm_context_explain(context), "axpby"));
  clm_buffer_destroy(&buffer);
}

static void test_profiling(const test_device *device, const void *data) {
  (void)data;
  double ms = -1;
  assert_int_equal(clm_profile_begin(device->context), CLM_INVALID_ARGUMENT);
  assert_int_equal(clm_profile_end(device->context, &ms), CLM_INVALID_ARGUMENT);
  assert_non_null(strstr(clm_context_error(device->context), "profiling"));
  char name[32] = "cpu";
  if (device->opencl) snprintf(name, sizeof name, "%.*s", (int)strcspn(device->name, " "), device->name);
  clm_context *context;
  assert_int_equal(clm_context_create(&(clm_context_options){.device = name, .profiling = true}, &context), CLM_OK);
  clm_buffer *buffer;
  enum { COUNT = 1 << 18 };
  assert_int_equal(clm_buffer_create(context, COUNT * 4, &buffer), CLM_OK);
  const clm_axpby_args args = {.out = clm_tensor_of(buffer, 0, CLM_F32, 1, (int64_t[]){COUNT})};
  for (int round = 0; round < 2; round++) {
    assert_int_equal(clm_profile_begin(context), CLM_OK);
    for (int i = 0; i < 3; i++) assert_int_equal(clm_axpby(context, &args), CLM_OK);
    assert_int_equal(clm_profile_end(context, &ms), CLM_OK);
    assert_true(ms > 0 && ms < 60000);
  }
  clm_buffer_destroy(&buffer);
  clm_context_destroy(&context);
}

/* ---- Two contexts in two threads ---- */

typedef struct worker {
  const char *device;
  bool right;
} worker;

static void *work(void *data) {
  worker *w = data;
  enum { ROWS = 40, DIM = 50 };
  clm_context *context;
  clm_buffer *buffer = NULL;
  float x[ROWS * DIM], out[DIM];
  for (int i = 0; i < ROWS * DIM; i++) x[i] = (float)(i % DIM);
  w->right = clm_context_create(&(clm_context_options){.device = w->device, .threads = 2}, &context) == CLM_OK;
  if (!w->right) return NULL;
  for (int round = 0; round < 10 && w->right; round++) {
    w->right = clm_buffer_create(context, sizeof x + sizeof out, &buffer) == CLM_OK;
    if (!w->right) break;
    const clm_column_sum_args args = {.x = clm_tensor_of(buffer, 0, CLM_F32, 2, (int64_t[]){ROWS, DIM}),
                                      .out = clm_tensor_of(buffer, sizeof x, CLM_F32, 1, (int64_t[]){DIM})};
    w->right = clm_tensor_write(args.x, x, sizeof x) == CLM_OK && clm_column_sum(context, &args) == CLM_OK &&
               clm_tensor_read(args.out, out, sizeof out) == CLM_OK;
    for (int i = 0; i < DIM; i++) w->right &= out[i] == (float)(ROWS * i);
    clm_buffer_destroy(&buffer);
  }
  clm_context_destroy(&context);
  return NULL;
}

static void test_side_by_side(const test_device *device, const void *data) {
  (void)data;
  char name[32] = "cpu";
  if (device->opencl) snprintf(name, sizeof name, "%.*s", (int)strcspn(device->name, " "), device->name);
  worker workers[3] = {{name, false}, {name, false}, {"cpu", false}};
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
  for (int i = 0; i < 3; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
  for (int i = 0; i < 3; i++) assert_true(workers[i].right);
}

/* 2 x of three numbers, by a context and buffer that are destroyed on the way. */
static bool doubles(clm_context *context, clm_buffer *buffer) {
  static const float x[3] = {1, 2, 3};
  float got[3] = {0};
  const clm_tensor t = clm_tensor_of(buffer, 0, CLM_F32, 1, (int64_t[]){3});
  return clm_tensor_write(t, x, sizeof x) == CLM_OK &&
         clm_axpby(context, &(clm_axpby_args){.out = t, .beta = 2}) == CLM_OK &&
         clm_tensor_read(t, got, sizeof got) == CLM_OK && got[0] == 2 && got[1] == 4 && got[2] == 6;
}

/* A child of fork() destroys what it inherited, without hanging, and works with a context of its own; the parent's is
 * as before. */
static void test_fork(const test_device *device, const void *data) {
  (void)data;
  clm_context *context = test_device_open(device);
  clm_buffer *buffer = NULL;
  assert_non_null(context);
  assert_int_equal(clm_buffer_create(context, 64, &buffer), CLM_OK);
  assert_true(doubles(context, buffer));
  fflush(NULL);
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    alarm(60);
    clm_buffer_destroy(&buffer);
    clm_context_destroy(&context);
    if (buffer || context) _exit(2);
    if (clm_context_create(&(clm_context_options){.device = "cpu", .threads = 2}, &context)) _exit(3);
    if (clm_buffer_create(context, 64, &buffer)) _exit(4);
    if (!doubles(context, buffer)) _exit(5);
    clm_buffer_destroy(&buffer);
    clm_context_destroy(&context);
    _exit(0);
  }
  int status = -1;
  assert_int_equal(waitpid(child, &status, 0), child);
  if (!WIFEXITED(status)) fail_msg("the child ended by signal %d", WTERMSIG(status));
  assert_int_equal(WEXITSTATUS(status), 0);
  assert_true(doubles(context, buffer));
  clm_buffer_destroy(&buffer);
  clm_context_destroy(&context);
}

static void add(void) {
  for (size_t i = 0; i < TEST_COUNT(refused); i++)
    test_add(NULL, test_refused, &refused[i], "refused: device \"%s\", level %s", refused[i].device,
             refused[i].cpu_level ? refused[i].cpu_level : "default");
  test_add(NULL, test_defaults, NULL, "defaults");
  test_add(NULL, test_cpu, NULL, "the CPU backend");
  test_add(NULL, test_devices_listed, NULL, "list of devices");
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    test_add(device, test_information, NULL, "information");
    test_add(device, test_messages, NULL, "messages");
    test_add(device, test_profiling, NULL, "profiling");
    test_add(device, test_side_by_side, NULL, "contexts side by side");
    test_add(device, test_fork, NULL, "fork");
  }
}

int main(void) { return test_main("context", add); }
