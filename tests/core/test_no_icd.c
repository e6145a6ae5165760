/* A machine whose OpenCL loader finds no driver at all: auto is the CPU, OpenCL by name is refused with a message.
 */
#include "cmocka_all.h"
#include <clmamba/clmamba.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void test_list(void **state) {
  (void)state;
  size_t count = 99;
  assert_int_equal(clm_devices(NULL, 0, &count), CLM_OK);
  assert_int_equal(count, 0);
}

static void test_auto(void **state) {
  (void)state;
  static const char *const devices[] = {NULL, "auto", "cpu"};
  for (int i = 0; i < 3; i++) {
    clm_context *context;
    char error[200] = "";
    const clm_context_options options = {.device = devices[i], .error = error, .error_size = sizeof error};
    assert_int_equal(clm_context_create(&options, &context), CLM_OK);
    clm_device_info info;
    assert_int_equal(clm_context_device(context, &info), CLM_OK);
    assert_false(info.opencl);
    assert_string_equal(error, "");
    clm_context_destroy(&context);
  }
}

static void test_by_name(void **state) {
  (void)state;
  static const char *const devices[] = {"opencl", "opencl:0", "opencl:9"};
  for (int i = 0; i < 3; i++) {
    clm_context *context = (clm_context *)(void *)&context;
    char error[200] = "";
    const clm_context_options options = {.device = devices[i], .error = error, .error_size = sizeof error};
    assert_int_equal(clm_context_create(&options, &context), CLM_NO_DEVICE);
    assert_null(context);
    if (strlen(error) < 10) fail_msg("no message for %s: \"%s\"", devices[i], error);
  }
}

int main(void) {
  /* Before the loader looks for drivers, which it does in the first OpenCL call. */
  char folder[] = "/tmp/clmamba-no-icd-XXXXXX";
  if (!mkdtemp(folder) || setenv("OCL_ICD_VENDORS", folder, 1) || unsetenv("OCL_ICD_FILENAMES")) {
    perror("an empty folder of drivers");
    return EXIT_FAILURE;
  }
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_list),
      cmocka_unit_test(test_auto),
      cmocka_unit_test(test_by_name),
  };
  int failed = cmocka_run_group_tests_name("no_icd", tests, NULL, NULL);
  rmdir(folder);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
