/* What the tests run on: every CPU level of this processor above "reference", every usable OpenCL device of every
 * platform; and the reference, a context of that CPU level.
 *
 * CLM_TEST_DEVICES, CLM_REQUIRE_PLATFORMS and CLM_TEST_EVERY choose among them (docs/testing.md).
 *
 * CLM_TEST_SHARE=1/2: every other device, so that one program's tests run as two processes. */
#ifndef TEST_DEVICES_H
#define TEST_DEVICES_H

#include <clmamba/clmamba.h>

typedef struct test_device {
  char name[300];
  char id[32]; /* "opencl:1", or the CPU level */
  clm_context *context;
  bool opencl;
  bool slow;      /* OpenCL on a CPU, or a sanitizer's build: not for large shapes or many kernel variants */
  bool simulated; /* oclgrind, a thousand times slower: problem_check leaves out all but small problems */
} test_device;

extern test_device test_devices[];
extern size_t test_device_count;
extern clm_context *test_reference; /* CPU level "reference": what the other devices are compared with */

/* Another context of the device, which the caller destroys; NULL, and a message on stderr, where there is none. */
clm_context *test_device_open(const test_device *);

/* A test's body; `data` is one row of a table. */
typedef void (*test_body)(const test_device *device, const void *data);

/* Adds one cmocka test. `device` NULL: it runs on the reference alone. */
void test_add(const test_device *device, test_body body, const void *data, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#define TEST_COUNT(table) (sizeof(table) / sizeof((table)[0]))

/* As test_main, without devices: the reference alone. */
int test_main_reference(const char *group, void (*add)(void));

/* Opens the devices, lets `add` add tests, runs them; the program's exit status. */
int test_main(const char *group, void (*add)(void));

#endif
