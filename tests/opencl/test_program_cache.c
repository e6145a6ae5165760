/* Compiled programs on disk: what is stored comes back; what is damaged, foreign or half-written does not. */
#include "backend/opencl/opencl.h"
#include "problem.h"
#include "scratch_folder.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAYLOAD = 300 };

static void open_in(program_cache *cache, const char *folder) {
  const clm_context_options options = {.cache_dir = folder};
  program_cache_open(cache, NULL, &options);
}

static program_key key_of(const char *text) { return program_cache_key(&text, 1); }

static void make_payload(unsigned char *data, size_t size, unsigned salt) {
  for (size_t i = 0; i < size; i++) data[i] = (unsigned char)(i * 7 + salt + i / 256);
}

static size_t read_all(const char *path, unsigned char *data, size_t most) {
  FILE *file = fopen(path, "rb");
  assert_non_null(file);
  size_t size = fread(data, 1, most, file);
  fclose(file);
  return size;
}

static void write_all(const char *path, const unsigned char *data, size_t size) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, size, file), size);
  assert_int_equal(fclose(file), 0);
}

static bool loads(program_cache *cache, const program_key *key) {
  size_t size = 0;
  unsigned char *data = program_cache_load(cache, key, &size);
  free(data);
  return data != NULL;
}

static void test_keys(const test_device *device, const void *data) {
  (void)device, (void)data;
  const char *const texts[][2] = {{"ab", "c"}, {"a", "bc"}, {"abc", ""}, {"", "abc"}, {"ab", "d"}};
  enum { COUNT = sizeof texts / sizeof texts[0] };
  program_key keys[COUNT];
  for (size_t i = 0; i < COUNT; i++) keys[i] = program_cache_key(texts[i], 2);
  for (size_t i = 0; i < COUNT; i++)
    for (size_t k = 0; k < i; k++) assert_memory_not_equal(&keys[i], &keys[k], sizeof keys[i]);
  program_key again = program_cache_key(texts[0], 2);
  assert_memory_equal(&keys[0], &again, sizeof again);
}

static void test_damage(const test_device *device, const void *unused) {
  (void)device, (void)unused;
  char folder[200], path[400];
  unsigned char payload[PAYLOAD], file[2 * PAYLOAD];
  program_cache cache;
  program_key key = key_of("a program"), other = key_of("another program");
  scratch_create(folder, sizeof folder);
  open_in(&cache, folder);
  make_payload(payload, sizeof payload, 1);
  assert_false(loads(&cache, &key));
  program_cache_store(&cache, &key, payload, sizeof payload);
  assert_int_equal(scratch_files(folder, path, sizeof path), 1);

  size_t size = 0;
  unsigned char *loaded = program_cache_load(&cache, &key, &size);
  assert_non_null(loaded);
  assert_int_equal(size, sizeof payload);
  assert_memory_equal(loaded, payload, size);
  free(loaded);
  assert_false(loads(&cache, &other));

  size_t whole = read_all(path, file, sizeof file);
  assert_true(whole > sizeof payload && whole < sizeof file);
  for (size_t i = 0; i < whole; i++) { /* every byte: magic, format, length, key, checksum, payload */
    file[i] = (unsigned char)(file[i] ^ 1u << (i % 8));
    write_all(path, file, whole);
    if (loads(&cache, &key)) fail_msg("byte %zu was changed and the entry still loads", i);
    file[i] = (unsigned char)(file[i] ^ 1u << (i % 8));
  }
  for (size_t length = 0; length < whole; length += length < 80 ? 1 : 13) {
    write_all(path, file, length);
    if (loads(&cache, &key)) fail_msg("cut to %zu bytes of %zu, the entry still loads", length, whole);
  }
  file[whole] = 0;
  write_all(path, file, whole + 1);
  assert_false(loads(&cache, &key));
  write_all(path, (const unsigned char *)"#!/bin/sh\necho a file of somebody else\n", 39);
  assert_false(loads(&cache, &key));
  write_all(path, file, whole);
  assert_true(loads(&cache, &key));

  char moved[400]; /* a good entry under the name of another key */
  snprintf(moved, sizeof moved, "%s/", folder);
  for (size_t i = 0; i < sizeof other.bytes; i++)
    snprintf(moved + strlen(moved), sizeof moved - strlen(moved), "%02x", other.bytes[i]);
  snprintf(moved + strlen(moved), sizeof moved - strlen(moved), ".bin");
  assert_int_equal(rename(path, moved), 0);
  assert_false(loads(&cache, &other));
  scratch_remove(folder);
}

static void test_switched_off(const test_device *device, const void *unused) {
  (void)device, (void)unused;
  char folder[200], below[400], file[300];
  unsigned char payload[PAYLOAD];
  program_cache cache;
  program_key key = key_of("a program");
  make_payload(payload, sizeof payload, 2);
  scratch_create(folder, sizeof folder);

  program_cache_open(&cache, NULL, &(clm_context_options){.cache_dir = folder, .no_program_cache = true});
  program_cache_store(&cache, &key, payload, sizeof payload);
  assert_false(loads(&cache, &key));
  setenv("CLM_PROGRAM_CACHE", "0", 1);
  open_in(&cache, folder);
  unsetenv("CLM_PROGRAM_CACHE");
  program_cache_store(&cache, &key, payload, sizeof payload);
  assert_false(loads(&cache, &key));
  assert_int_equal(scratch_files(folder, NULL, 0), 0);

  snprintf(file, sizeof file, "%s/file", folder); /* a folder that cannot be: below a file */
  write_all(file, payload, sizeof payload);
  snprintf(below, sizeof below, "%s/below/that", file);
  open_in(&cache, below);
  program_cache_store(&cache, &key, payload, sizeof payload);
  assert_false(loads(&cache, &key));
  open_in(&cache, "/proc/clmamba"); /* where nobody may write, not even root */
  program_cache_store(&cache, &key, payload, sizeof payload);
  assert_false(loads(&cache, &key));
  scratch_remove(folder);
}

static void test_places(const test_device *device, const void *unused) {
  (void)device, (void)unused;
  char xdg[4200], home[4200];
  snprintf(xdg, sizeof xdg, "%s", getenv("XDG_CACHE_HOME") ? getenv("XDG_CACHE_HOME") : "");
  snprintf(home, sizeof home, "%s", getenv("HOME") ? getenv("HOME") : "");
  program_cache cache;
  setenv("HOME", "/home/of", 1);
  setenv("XDG_CACHE_HOME", "/xdg", 1);
  program_cache_open(&cache, NULL, &(clm_context_options){0});
  assert_string_equal(cache.folder, "/xdg/clmamba");
  setenv("XDG_CACHE_HOME", "relative", 1);
  program_cache_open(&cache, NULL, &(clm_context_options){0});
  assert_string_equal(cache.folder, "/home/of/.cache/clmamba");
  unsetenv("XDG_CACHE_HOME");
  program_cache_open(&cache, NULL, &(clm_context_options){0});
  assert_string_equal(cache.folder, "/home/of/.cache/clmamba");
  program_cache_open(&cache, NULL, &(clm_context_options){.cache_dir = "/here"});
  assert_string_equal(cache.folder, "/here");
  unsetenv("HOME");
  program_cache_open(&cache, NULL, &(clm_context_options){0});
  assert_string_equal(cache.folder, "");
  if (xdg[0]) setenv("XDG_CACHE_HOME", xdg, 1);
  if (home[0]) setenv("HOME", home, 1);
}

/* Several processes write and read one entry: each read gives a whole payload of one of the writers, or nothing. */
static void test_processes(const test_device *device, const void *unused) {
  (void)device, (void)unused;
  enum { PROCESSES = 4, ROUNDS = 200, MOST = 40000 };
  char folder[200];
  scratch_create(folder, sizeof folder);
  pid_t children[PROCESSES];
  for (int p = 0; p < PROCESSES; p++) {
    children[p] = fork();
    assert_true(children[p] >= 0);
    if (children[p] != 0) continue;
    static unsigned char own[MOST], theirs[MOST];
    program_cache cache;
    program_key key = key_of("a program");
    open_in(&cache, folder);
    size_t own_size = (size_t)(p + 1) * MOST / PROCESSES;
    make_payload(own, own_size, (unsigned)p);
    for (int round = 0; round < ROUNDS; round++) {
      program_cache_store(&cache, &key, own, own_size);
      size_t size = 0;
      unsigned char *got = program_cache_load(&cache, &key, &size);
      if (!got) _exit(1); /* it was stored, so one whole entry or another is there */
      make_payload(theirs, size, (unsigned)(size * PROCESSES / MOST - 1));
      bool same = memcmp(got, theirs, size) == 0;
      free(got);
      if (!same) _exit(2);
    }
    _exit(0);
  }
  for (int p = 0; p < PROCESSES; p++) {
    int status = -1;
    assert_int_equal(waitpid(children[p], &status, 0), children[p]);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
  }
  assert_int_equal(scratch_files(folder, NULL, 0), 1); /* nobody left a temporary file */
  scratch_remove(folder);
}

static void count_warnings(void *user, clm_log_level level, const char *message) {
  if (level == CLM_LOG_WARNING && strstr(message, "are not used")) ++*(int *)user;
}

/* What a driver runs must be what this user stored: an entry, and a folder, that others own or may write are ignored
 * with one warning; nothing is stored there either. (Giving files away takes root.) */
static void test_owners(const test_device *device, const void *unused) {
  (void)device, (void)unused;
  enum { ENTRY, FOLDER };
  static const struct {
    const char *what;
    int target;
    mode_t mode;
    uid_t owner;
    bool used;
  } cases[] = {{"an entry that only its owner may write", ENTRY, 0644, 0, true},
               {"an entry that the group may write", ENTRY, 0620, 0, false},
               {"an entry that all may write", ENTRY, 0602, 0, false},
               {"another user's entry", ENTRY, 0644, 12345, false},
               {"a folder that only its owner may write", FOLDER, 0755, 0, true},
               {"a folder that the group may write", FOLDER, 0770, 0, false},
               {"a folder that all may write", FOLDER, 0777, 0, false},
               {"another user's folder", FOLDER, 0755, 12345, false}};
  unsigned char payload[PAYLOAD];
  make_payload(payload, sizeof payload, 5);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    if (cases[i].owner && geteuid() != 0) continue;
    char folder[200], path[400];
    program_cache cache;
    program_key key = key_of("a program"), other = key_of("another program");
    int warnings = 0;
    clm_context *context;
    assert_int_equal(
        clm_context_create(
            &(clm_context_options){.device = "cpu", .threads = 1, .log = count_warnings, .log_user = &warnings},
            &context),
        CLM_OK);
    scratch_create(folder, sizeof folder);
    program_cache_open(&cache, context, &(clm_context_options){.cache_dir = folder});
    program_cache_store(&cache, &key, payload, sizeof payload);
    assert_int_equal(scratch_files(folder, path, sizeof path), 1);
    const char *target = cases[i].target == ENTRY ? path : folder;
    assert_int_equal(chmod(target, cases[i].mode), 0);
    if (cases[i].owner) assert_int_equal(chown(target, cases[i].owner, cases[i].owner), 0);
    if (loads(&cache, &key) != cases[i].used || loads(&cache, &key) != cases[i].used)
      fail_msg("%s: it should %sbe used", cases[i].what, cases[i].used ? "" : "not ");
    if (warnings != !cases[i].used) fail_msg("%s: %d warnings", cases[i].what, warnings);
    program_cache_store(&cache, &other, payload, sizeof payload);
    bool stored = cases[i].used || cases[i].target == ENTRY;
    if (loads(&cache, &other) != stored)
      fail_msg("%s: another entry should %sbe stored", cases[i].what, stored ? "" : "not ");
    scratch_remove(folder);
    clm_context_destroy(&context);
  }
}

/* A FIFO or a link where an entry should be: neither waited for nor followed. */
static void test_no_regular_file(const test_device *device, const void *unused) {
  (void)device, (void)unused;
  char folder[200], path[400], moved[420];
  unsigned char payload[PAYLOAD];
  program_cache cache;
  program_key key = key_of("a program");
  scratch_create(folder, sizeof folder);
  open_in(&cache, folder);
  make_payload(payload, sizeof payload, 6);
  program_cache_store(&cache, &key, payload, sizeof payload);
  scratch_files(folder, path, sizeof path);
  snprintf(moved, sizeof moved, "%s.moved", path);
  assert_int_equal(rename(path, moved), 0);
  assert_int_equal(symlink(moved, path), 0);
  assert_false(loads(&cache, &key));
  assert_int_equal(unlink(path), 0);
  assert_int_equal(mkfifo(path, 0600), 0);
  assert_false(loads(&cache, &key));
  scratch_remove(folder);
}

/* Runs one kernel in a context of its own that keeps programs in `folder`. */
static void use_device(const test_device *device, const char *folder) {
  char name[32];
  snprintf(name, sizeof name, "%.*s", (int)strcspn(device->name, " "), device->name);
  clm_context *context;
  clm_buffer *buffer;
  const clm_context_options options = {.device = name, .cache_dir = folder};
  assert_int_equal(clm_context_create(&options, &context), CLM_OK);
  assert_int_equal(clm_buffer_create(context, 16 * sizeof(float), &buffer), CLM_OK);
  clm_tensor x = clm_tensor_of(buffer, 0, CLM_F32, 1, (const int64_t[]){16});
  float values[16];
  for (int i = 0; i < 16; i++) values[i] = (float)i;
  assert_int_equal(clm_tensor_write(x, values, sizeof values), CLM_OK);
  assert_int_equal(clm_axpby(context, &(clm_axpby_args){.out = x, .beta = 3}), CLM_OK);
  assert_int_equal(clm_tensor_read(x, values, sizeof values), CLM_OK);
  for (int i = 0; i < 16; i++) assert_true(values[i] == 3 * (float)i);
  clm_buffer_destroy(&buffer);
  clm_context_destroy(&context);
}

/* A driver's binary that is nonsense inside a sound entry, an entry that is damaged: both are compiled anew. */
static void test_on_device(const test_device *device, const void *unused) {
  (void)unused;
  char folder[200], path[400];
  static unsigned char file[1 << 22], nonsense[1000];
  scratch_create(folder, sizeof folder);
  use_device(device, folder);
  assert_int_equal(scratch_files(folder, path, sizeof path), 1);
  use_device(device, folder);
  assert_int_equal(scratch_files(folder, NULL, 0), 1);
  size_t whole = read_all(path, file, sizeof file);
  assert_in_range(whole, 100, sizeof file - 1);

  write_all(path, file, whole / 2);
  use_device(device, folder);
  assert_true(read_all(path, file, sizeof file) > whole / 2);

  if (strstr(device->name, "rusticl")) { /* Mesa 22.3 ends the process over a binary that it does not know */
    scratch_remove(folder);
    return;
  }
  program_cache cache;
  program_key key;
  open_in(&cache, folder);
  for (size_t i = 0; i < sizeof key.bytes; i++) {
    unsigned byte;
    assert_int_equal(sscanf(strrchr(path, '/') + 1 + 2 * i, "%2x", &byte), 1);
    key.bytes[i] = (unsigned char)byte;
  }
  make_payload(nonsense, sizeof nonsense, 3);
  program_cache_store(&cache, &key, nonsense, sizeof nonsense);
  use_device(device, folder);
  size_t size = 0;
  unsigned char *loaded = program_cache_load(&cache, &key, &size);
  assert_non_null(loaded);
  assert_false(size == sizeof nonsense && memcmp(loaded, nonsense, size) == 0);
  free(loaded);
  scratch_remove(folder);
}

static void add(void) {
  test_add(NULL, test_keys, NULL, "keys of different texts differ");
  test_add(NULL, test_damage, NULL, "a damaged entry is ignored");
  test_add(NULL, test_switched_off, NULL, "switched off, or no place to write");
  test_add(NULL, test_places, NULL, "where the cache is");
  test_add(NULL, test_owners, NULL, "what others may have written is not used");
  test_add(NULL, test_no_regular_file, NULL, "a FIFO or a link for an entry");
  test_add(NULL, test_processes, NULL, "several processes at once");
  for (size_t i = 0; i < test_device_count; i++)
    if (test_devices[i].opencl)
      test_add(&test_devices[i], test_on_device, NULL, "damaged programs are compiled anew");
}

int main(void) { return test_main("program_cache", add); }
