#include "devices.h"
#include "cmocka_all.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define MAX_DEVICES 32

#ifdef __has_feature
#define HAS_FEATURE(x) __has_feature(x)
#else
#define HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || HAS_FEATURE(address_sanitizer) ||               \
    HAS_FEATURE(thread_sanitizer)
#define SANITIZED true
#else
#define SANITIZED false
#endif

test_device test_devices[MAX_DEVICES];
size_t test_device_count;
clm_context *test_reference;

/* ---- Which devices ---- */

enum { LONGEST_WORD = 64 };

/* The next of the comma-separated words, lower or upper case alike; false after the last. */
static bool next_word(const char **rest, char *word) {
  *rest += strspn(*rest, ",");
  size_t length = strcspn(*rest, ",");
  snprintf(word, LONGEST_WORD, "%.*s", (int)length, *rest);
  *rest += length;
  return length > 0;
}

static bool same(const char *word, const char *other) { return strcasecmp(word, other) == 0; }
static bool begins(const char *text, const char *word) { return strncasecmp(text, word, strlen(word)) == 0; }

static bool contains(const char *text, const char *word) {
  for (; *text; text++)
    if (begins(text, word)) return true;
  return false;
}

static bool names_platform(const char *word, const char *platform) {
  return contains(platform, same(word, "pocl") ? "Portable Computing Language" : word);
}

/* Whether the word picks the device: a level of the CPU backend, or with `info` an OpenCL device. "cpu" never picks
 * one of these, though PoCL's are named cpu-something. */
static bool picks(const char *word, const char *id, const clm_device_info *info) {
  if (same(word, id)) return true;
  if (!info || same(word, "cpu")) return !info && same(word, "cpu");
  return same(word, "opencl") || names_platform(word, info->platform) || begins(info->name, word);
}

typedef bool word_test(const char *word, const char *id, const clm_device_info *info);

static bool asked_for(word_test *test, const char *id, const clm_device_info *info) {
  const char *words = getenv("CLM_TEST_DEVICES");
  if (!words || !*words) return true;
  char word[LONGEST_WORD];
  while (next_word(&words, word))
    if (test(word, id, info)) return true;
  return false;
}

static bool wanted(const char *id, const clm_device_info *info) { return asked_for(picks, id, info); }

static clm_context *open_device(const char *id, bool opencl, char *error, size_t size) {
  clm_context *context = NULL;
  clm_context_options options = {.error = error, .error_size = size};
  if (opencl) options.device = id;
  else options.device = "cpu", options.cpu_level = id, options.threads = 2;
  return clm_context_create(&options, &context) == CLM_OK ? context : NULL;
}

clm_context *test_device_open(const test_device *device) {
  char error[256] = "";
  clm_context *context = open_device(device->id, device->opencl, error, sizeof error);
  if (!context) fprintf(stderr, "%s: %s\n", device->name, error);
  return context;
}

static void add_device(const char *name, const char *id, clm_context *context, const clm_device_info *info) {
  if (test_device_count == MAX_DEVICES) {
    fprintf(stderr, "more than %d devices\n", MAX_DEVICES);
    exit(EXIT_FAILURE);
  }
  test_device *d = &test_devices[test_device_count++];
  snprintf(d->name, sizeof d->name, "%s", name);
  snprintf(d->id, sizeof d->id, "%s", id);
  d->context = context;
  d->opencl = info != NULL;
  d->simulated = info && contains(info->name, "Oclgrind");
  d->slow = SANITIZED || d->simulated || (info && (info->type == CLM_DEVICE_CPU || contains(info->name, "llvmpipe")));
}

static bool processor_has(const char *level) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  if (strcmp(level, "avx2") == 0) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return strcmp(level, "baseline") == 0;
}

static void open_cpu(void) {
  static const char *const levels[] = {"baseline", "avx2", "avx512", "avx512vnni", "neon"};
  for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
    char name[32], error[256] = "";
    snprintf(name, sizeof name, "cpu %s", levels[i]);
    if (!wanted(levels[i], NULL)) continue;
    clm_context *context = open_device(levels[i], false, error, sizeof error);
    if (context) {
      add_device(name, levels[i], context, NULL);
    } else {
      printf("# not here: %s (%s)\n", name, error);
      if (processor_has(levels[i])) exit(EXIT_FAILURE);
    }
  }
}

static void open_opencl(void) {
  clm_device_info infos[MAX_DEVICES];
  size_t count = 0;
  clm_status status = clm_devices(infos, MAX_DEVICES, &count);
  if (status) {
    fprintf(stderr, "clm_devices: %s\n", clm_status_string(status));
    exit(EXIT_FAILURE);
  }
  for (size_t i = 0; i < count && i < MAX_DEVICES; i++) {
    char name[300], device[32], error[256] = "";
    snprintf(name, sizeof name, "opencl:%zu %s, %s", i, infos[i].platform, infos[i].name);
    snprintf(device, sizeof device, "opencl:%zu", i);
    if (!wanted(device, &infos[i])) continue;
    if (infos[i].unusable[0]) {
      printf("# not used: %s (%s)\n", name, infos[i].unusable);
      continue;
    }
    clm_context *context = open_device(device, true, error, sizeof error);
    if (!context) {
      fprintf(stderr, "%s: %s\n", name, error);
      exit(EXIT_FAILURE);
    }
    add_device(name, device, context, &infos[i]);
  }
}

static bool is_platform(const char *word, const char *platform, const clm_device_info *unused) {
  (void)unused;
  return same(word, platform);
}

static void check_required(void) {
  const char *words = getenv("CLM_REQUIRE_PLATFORMS");
  char word[LONGEST_WORD];
  while (words && next_word(&words, word)) {
    bool found = !asked_for(is_platform, word, NULL); /* CLM_TEST_DEVICES leaves it out */
    for (size_t i = 0; i < test_device_count; i++) {
      clm_device_info info;
      found |= test_devices[i].opencl && clm_context_device(test_devices[i].context, &info) == CLM_OK &&
               names_platform(word, info.platform);
    }
    if (!found) {
      fprintf(stderr, "CLM_REQUIRE_PLATFORMS: no usable device of platform %s\n", word);
      exit(EXIT_FAILURE);
    }
  }
}

/* CLM_TEST_SHARE=1/2: every other device, and the tests on the reference alone only in the first share. */
static int share, shares = 1;

static void take_share(void) {
  const char *text = getenv("CLM_TEST_SHARE");
  if (!text) return;
  if (sscanf(text, "%d/%d", &share, &shares) != 2 || share < 1 || share > shares) {
    fprintf(stderr, "CLM_TEST_SHARE is \"%s\", expected 1/2 or the like\n", text);
    exit(EXIT_FAILURE);
  }
  share--;
  size_t kept = 0;
  for (size_t i = 0; i < test_device_count; i++) {
    if ((int)(i % (size_t)shares) == share) test_devices[kept++] = test_devices[i];
    else clm_context_destroy(&test_devices[i].context);
  }
  test_device_count = kept;
}

static void open_reference(void) {
  char error[256];
  clm_context_options options = {
      .device = "cpu", .cpu_level = "reference", .threads = 1, .error = error, .error_size = sizeof error};
  if (clm_context_create(&options, &test_reference)) {
    fprintf(stderr, "reference: %s\n", error);
    exit(EXIT_FAILURE);
  }
}

/* ---- The list of tests ---- */

typedef struct test_entry {
  const test_device *device;
  test_body body;
  const void *data;
  char name[520];
} test_entry;

static test_entry **entries;
static size_t entry_count, entry_room;

/* CLM_TEST_EVERY=N or N,M: of a program's tests on a device only every Nth; on one of OpenCL only every Mth. */
static bool left_out(const test_device *device) {
  static int counts[MAX_DEVICES + 1]; /* the last: of tests without a device */
  const char *text = getenv("CLM_TEST_EVERY");
  if (!text) return false;
  char *rest;
  long every = strtol(text, &rest, 10);
  if (*rest == ',' && device && device->opencl) every = strtol(rest + 1, &rest, 10);
  return every > 1 && counts[device ? device - test_devices : MAX_DEVICES]++ % every != 0;
}

void test_add(const test_device *device, test_body body, const void *data, const char *format, ...) {
  if ((!device && share != 0) || left_out(device)) return;
  if (entry_count == entry_room) {
    entry_room = entry_room ? 2 * entry_room : 64;
    entries = realloc(entries, entry_room * sizeof *entries);
    if (!entries) abort();
  }
  test_entry *e = calloc(1, sizeof *e);
  if (!e) abort();
  *e = (test_entry){.device = device, .body = body, .data = data};
  char what[200];
  va_list args;
  va_start(args, format);
  vsnprintf(what, sizeof what, format, args);
  va_end(args);
  snprintf(e->name, sizeof e->name, "%s%s%s", what, device ? " on " : "", device ? device->name : "");
  entries[entry_count++] = e;
}

static void run_entry(void **state) {
  const test_entry *e = *state;
  e->body(e->device, e->data);
}

static int run_entries(const char *group) {
  struct CMUnitTest *tests = calloc(entry_count + 1, sizeof *tests);
  if (!tests) abort();
  for (size_t i = 0; i < entry_count; i++)
    tests[i] = (struct CMUnitTest){.name = entries[i]->name, .test_func = run_entry, .initial_state = entries[i]};
  int failed = _cmocka_run_group_tests(group, tests, entry_count, NULL, NULL);

  for (size_t i = 0; i < entry_count; i++) free(entries[i]);
  free(entries);
  entries = NULL;
  entry_count = entry_room = 0;
  free(tests);
  for (size_t i = 0; i < test_device_count; i++) clm_context_destroy(&test_devices[i].context);
  clm_context_destroy(&test_reference);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

int test_main_reference(const char *group, void (*add)(void)) {
  open_reference();
  add();
  return run_entries(group);
}

int test_main(const char *group, void (*add)(void)) {
  open_reference();
  open_cpu();
  open_opencl();
  check_required();
  take_share();
  if (test_device_count == 0) printf("# no device to test\n");
  add();
  return run_entries(group);
}
