/* Kernel sources: the folder CLM_CL_DIR goes before what is embedded; errors of the compiler reach the caller. */
#include "backend/opencl/opencl.h"
#include "problem.h"
#include "scratch_folder.h"
#include <stdio.h>
#include <string.h>

typedef struct heard {
  char text[8192];
} heard;

static void listen(void *user, clm_log_level level, const char *message) {
  heard *h = user;
  if (level == CLM_LOG_ERROR) snprintf(h->text, sizeof h->text, "%s", message);
}

static clm_context *open_again(const test_device *device, heard *log) {
  char name[32];
  snprintf(name, sizeof name, "%.*s", (int)strcspn(device->name, " "), device->name);
  clm_context *context;
  const clm_context_options options = {.device = name, .no_program_cache = true, .log = listen, .log_user = log};
  assert_int_equal(clm_context_create(&options, &context), CLM_OK);
  return context;
}

static void write_file(const char *folder, const char *name, const char *text) {
  char path[400];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(text, file);
  assert_int_equal(fclose(file), 0);
}

static const char adamw_text[] = "#include \"columns.h\"\n" /* embedded: not in the folder */
                                 "#include \"own.h\"\n"
                                 "#include \"own.h\"\n" /* once */
                                 "__kernel void adamw(__global float *x, __local float *scratch) {\n"
                                 "  float sum = lane_sum((float)get_local_id(1), scratch);\n"
                                 "  if (get_local_id(1) == 0) x[get_global_id(0)] = sum + OWN(0);\n"
                                 "}\n";

static void test_override(const test_device *device, const void *unused) {
  (void)unused;
  char folder[200];
  heard log = {""};
  scratch_create(folder, sizeof folder);
  write_file(folder, "adamw.cl", adamw_text);
  write_file(folder, "own.h", "static inline float own(void) { return 100.0f; }\n#define OWN(x) own()\n");
  clm_context *context = open_again(device, &log);
  setenv("CLM_CL_DIR", folder, 1);
  opencl_kernel *kernel, *again, *plain;
  clm_status status = opencl_kernel_get(context, "adamw", "adamw", "", &kernel);
  unsetenv("CLM_CL_DIR");
  if (status) fail_msg("%s\n%s", clm_context_error(context), log.text);
  assert_int_equal(opencl_kernel_get(context, "adamw", "adamw", "", &again), CLM_OK); /* found, not compiled anew */
  assert_ptr_equal(kernel, again);
  assert_int_equal(opencl_kernel_get(context, "adamw", "adamw", "-DOTHER", &plain), CLM_OK); /* the embedded one */
  assert_ptr_not_equal(kernel, plain);

  clm_buffer *buffer;
  float values[8];
  assert_int_equal(clm_buffer_create(context, sizeof values, &buffer), CLM_OK);
  size_t size[2] = {8, 4};
  assert_int_equal(OPENCL_RUN(context, kernel, 2, size, size, ARG_BUFFER(buffer), ARG_LOCAL(32 * sizeof(float))),
                   CLM_OK);
  assert_int_equal(clm_buffer_read(buffer, 0, sizeof values, values), CLM_OK);
  for (int i = 0; i < 8; i++) assert_true(values[i] == 106.0f);
  clm_buffer_destroy(&buffer);
  clm_context_destroy(&context);
  scratch_remove(folder);
}

static void expect_failure(clm_context *context, const char *family, const char *name, clm_status expected,
                           const char *message) {
  opencl_kernel *kernel;
  assert_int_equal(opencl_kernel_get(context, family, name, "", &kernel), expected);
  assert_null(kernel);
  if (!strstr(clm_context_error(context), message))
    fail_msg("\"%s\" does not say \"%s\"", clm_context_error(context), message);
}

static void test_failures(const test_device *device, const void *unused) {
  (void)unused;
  char folder[200];
  heard log = {""};
  scratch_create(folder, sizeof folder);
  write_file(folder, "wrong.cl", "__kernel void wrong(__global float *x) { x[0] = no_such_name; }\n");
  write_file(folder, "lost.cl", "#include \"no_such_file.h\"\n");
  clm_context *context = open_again(device, &log);
  setenv("CLM_CL_DIR", folder, 1);
  for (int i = 0; i < 2; i++) { /* a failure is not remembered as a success */
    log.text[0] = '\0';
    expect_failure(context, "wrong", "wrong", CLM_BUILD_FAILED, "wrong.cl did not compile");
    if (!strstr(log.text, "no_such_name")) fail_msg("the log is \"%s\"", log.text);
  }
  expect_failure(context, "lost", "lost", CLM_BUILD_FAILED, "no kernel source no_such_file.h");
  expect_failure(context, "nowhere", "nowhere", CLM_BUILD_FAILED, "no kernel source nowhere.cl");
  unsetenv("CLM_CL_DIR");
  expect_failure(context, "adamw", "no_such_kernel", CLM_DEVICE_ERROR, "kernel no_such_kernel of adamw.cl");
  clm_context_destroy(&context);
  scratch_remove(folder);
}

/* Every probe off gives the plain kernels; on, what was found is possible. */
static void test_probes(const test_device *device, const void *unused) {
  (void)unused;
  heard log = {""};
  setenv("CLM_OPENCL_PLAIN", "1", 1);
  clm_context *context = open_again(device, &log);
  const schedule_device *d = opencl_schedule_device(context);
  unsetenv("CLM_OPENCL_PLAIN");
  assert_false(d->ptx);
  assert_int_equal(d->shuffle, SHUFFLE_NONE);
  clm_context_destroy(&context);

  context = open_again(device, &log);
  d = opencl_schedule_device(context);
  assert_true(d->compute_units >= 1 && d->max_work_group >= 1 && d->subgroup >= 1);
  assert_true(d->local_memory_bytes >= 16384); /* the least that OpenCL 1.2 allows is 32 KiB, embedded 1 KiB */
  assert_true(d->shuffle != SHUFFLE_PTX || d->ptx);
  assert_string_equal(clm_context_error(context), "");
  clm_context_destroy(&context);
}

static void add(void) {
  for (size_t i = 0; i < test_device_count; i++) {
    if (!test_devices[i].opencl) continue;
    test_add(&test_devices[i], test_override, NULL, "a folder of kernels overrides");
    test_add(&test_devices[i], test_failures, NULL, "kernels that do not compile");
    test_add(&test_devices[i], test_probes, NULL, "probes");
  }
}

int main(void) { return test_main("source", add); }
