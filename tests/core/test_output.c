/* Output files: whole or not at all, in the place of regular files only; and JSON that is whole when memory is short.
 */
#include "cmocka_all.h"
#include "core/file.h"
#include "core/json_print.h"
#include "devices.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static char folder[] = "/tmp/clmamba-test-XXXXXX";

static int entries(void) {
  DIR *d = opendir(folder);
  int n = 0;
  assert_non_null(d);
  for (struct dirent *e; (e = readdir(d)) != NULL;) n += e->d_name[0] != '.';
  closedir(d);
  return n;
}

static void write_old(const char *path, const char *text) {
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fputs(text, f) < 0, 0);
  assert_int_equal(fclose(f), 0);
}

static void expect_text(const char *path, const char *want) {
  char text[64] = "";
  FILE *f = fopen(path, "rb");
  assert_non_null(f);
  text[fread(text, 1, sizeof text - 1, f)] = '\0';
  fclose(f);
  assert_string_equal(text, want);
}

static int replace(const char *path, const char *text) {
  output_file o;
  int error = output_file_open(&o, path);
  if (error) return error;
  output_file_write(&o, text, strlen(text));
  return output_file_close(&o, true);
}

static mode_t type_of(const char *path) {
  struct stat about;
  assert_int_equal(lstat(path, &about), 0);
  return about.st_mode & S_IFMT;
}

/* Every test works in the folder and leaves it empty. */
static void test_regular(const test_device *device, const void *data) {
  (void)device, (void)data;
  output_file o;
  struct stat about;
  mode_t mask = umask(027);
  assert_int_equal(replace("a", "new"), 0);
  umask(mask);
  expect_text("a", "new");
  assert_int_equal(stat("a", &about), 0);
  assert_int_equal(about.st_mode & 0777, 0640); /* as open gives it */
  assert_int_equal(chmod("a", 0604), 0);
  assert_int_equal(replace("a", "newer"), 0);
  expect_text("a", "newer");
  assert_int_equal(stat("a", &about), 0);
  assert_int_equal(about.st_mode & 0777, 0604); /* as it was */
  /* Not kept: the old one stays. */
  assert_int_equal(output_file_open(&o, "a"), 0);
  assert_true(output_file_write(&o, "part", 4));
  assert_int_equal(output_file_close(&o, false), 0);
  expect_text("a", "newer");
  assert_int_equal(entries(), 1);
  /* The longest name that a file can have. */
  char name[256];
  memset(name, 'n', sizeof name - 1);
  name[sizeof name - 1] = '\0';
  assert_int_equal(replace(name, "long"), 0);
  expect_text(name, "long");
  unlink(name);
  unlink("a");
  assert_int_equal(replace("no/where", "x"), ENOENT);
  assert_int_equal(replace(".", "x"), EISDIR);
  assert_int_equal(entries(), 0);
}

/* Two that write the same path at the same time do not write into the same temporary file. */
static void test_two_writers(const test_device *device, const void *data) {
  (void)device, (void)data;
  output_file first, second;
  assert_int_equal(output_file_open(&first, "a"), 0);
  assert_int_equal(output_file_open(&second, "a"), 0);
  for (int i = 0; i < 5; i++) {
    assert_true(output_file_write(&first, "1", 1));
    assert_true(output_file_write(&second, "22", 2));
    assert_true(output_file_sync(&first));
  }
  assert_int_equal(output_file_close(&first, true), 0);
  expect_text("a", "11111");
  assert_int_equal(output_file_close(&second, true), 0);
  expect_text("a", "2222222222");
  assert_int_equal(entries(), 1);
  unlink("a");
}

static void test_links(const test_device *device, const void *data) {
  (void)device, (void)data;
  assert_int_equal(mkdir("sub", 0777), 0);
  write_old("sub/target", "old");
  assert_int_equal(symlink("target", "sub/near"), 0);
  assert_int_equal(symlink("sub/near", "far"), 0);
  assert_int_equal(replace("far", "new"), 0);
  assert_int_equal(type_of("far"), S_IFLNK);
  assert_int_equal(type_of("sub/near"), S_IFLNK);
  expect_text("sub/target", "new");
  /* By its whole path, and to what is not there yet. */
  char target[64];
  snprintf(target, sizeof target, "%s/sub/made", folder);
  assert_int_equal(symlink(target, "whole"), 0);
  assert_int_equal(replace("whole", "made"), 0);
  assert_int_equal(type_of("whole"), S_IFLNK);
  expect_text("sub/made", "made");
  assert_int_equal(symlink("loop", "loop"), 0);
  assert_int_equal(replace("loop", "x"), ELOOP);
  static const char *const left[] = {"sub/target", "sub/near", "sub/made", "far", "whole", "loop"};
  for (size_t i = 0; i < TEST_COUNT(left); i++) assert_int_equal(unlink(left[i]), 0);
  assert_int_equal(rmdir("sub"), 0);
}

static void test_special(const test_device *device, const void *data) {
  (void)device, (void)data;
  char text[8] = "";
  assert_int_equal(mkfifo("fifo", 0666), 0);
  int reader = open("fifo", O_RDONLY | O_NONBLOCK);
  assert_true(reader >= 0);
  assert_int_equal(replace("fifo", "piped"), 0);
  assert_int_equal(read(reader, text, sizeof text), 5);
  assert_string_equal(text, "piped");
  assert_int_equal(type_of("fifo"), S_IFIFO);
  close(reader);
  unlink("fifo");
  /* A device of our own, since a defect would cost the system its own one; making one takes rights. */
  if (mknod("null", S_IFCHR | 0666, makedev(1, 3)) == 0) {
    assert_int_equal(symlink("null", "link"), 0);
    assert_int_equal(replace("link", "x"), 0);
    assert_int_equal(type_of("null"), S_IFCHR);
    assert_int_equal(type_of("link"), S_IFLNK);
    unlink("link");
    unlink("null");
  }
  if (mknod("full", S_IFCHR | 0666, makedev(1, 7)) == 0) {
    int error = replace("full", "x");
    assert_true(error == ENOSPC || error == EACCES); /* EACCES: a file system mounted without devices */
    assert_int_equal(type_of("full"), S_IFCHR);
    unlink("full");
  }
  assert_int_equal(entries(), 0);
}

/* A file that may not grow: the old one stays, nothing else is left, and the message says why. */
static void test_no_room(const test_device *device, const void *data) {
  (void)device, (void)data;
  struct rlimit before, now;
  write_old("a", "old");
  char *big = calloc(1, 100000);
  assert_non_null(big);
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
  void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
  now = (struct rlimit){50000, before.rlim_max};
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &now), 0);
  clm_status status = file_replace(test_reference, "a", (file_part[]){{big, 100000}}, 1);
  setrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, handler);
  free(big);
  assert_int_equal(status, CLM_IO_ERROR);
  assert_non_null(strstr(clm_context_error(test_reference), "cannot write a: File too large"));
  expect_text("a", "old");
  assert_int_equal(entries(), 1);
  unlink("a");
}

/* ---- JSON when memory is short ---- */

static int allocations_left; /* until one fails, once */

static void *failing_malloc(size_t bytes) { return allocations_left-- == 0 ? NULL : malloc(bytes); }

/* Whole or NULL, whichever allocation fails: jansson's json_dumps would leave out a key now and then. */
static void test_json(const test_device *device, const void *data) {
  (void)device, (void)data;
  json_t *json = json_object();
  char key[32];
  for (int i = 0; i < 200; i++) {
    snprintf(key, sizeof key, "a key of the table, %d", i);
    assert_int_equal(json_object_set_new(json, key, json_pack("[i, {s:i}]", i, "x", i)), 0);
  }
  const size_t forms[] = {JSON_COMPACT, JSON_INDENT(2), JSON_INDENT(2) | JSON_SORT_KEYS};
  for (size_t f = 0; f < TEST_COUNT(forms); f++) {
    char *whole = json_print(json, forms[f]), *text = NULL;
    assert_non_null(whole);
    json_t *back = json_loads(whole, 0, NULL);
    assert_int_equal(json_equal(json, back), 1);
    json_decref(back);
    json_set_alloc_funcs(failing_malloc, free);
    for (int fail = 0, reached = 1; reached; fail++) {
      allocations_left = fail;
      text = json_print(json, forms[f]);
      reached = allocations_left < 0;
      if (text) assert_string_equal(text, whole);
      else assert_true(reached);
      free(text);
    }
    json_set_alloc_funcs(malloc, free);
    free(whole);
  }
  json_decref(json);
  assert_null(json_print(NULL, 0));
}

static void add(void) {
  test_add(NULL, test_regular, NULL, "regular files");
  test_add(NULL, test_two_writers, NULL, "two writers");
  test_add(NULL, test_links, NULL, "links");
  test_add(NULL, test_special, NULL, "devices and FIFOs");
  test_add(NULL, test_no_room, NULL, "no room");
  test_add(NULL, test_json, NULL, "JSON without memory");
}

int main(void) {
  if (!mkdtemp(folder) || chdir(folder) != 0) return EXIT_FAILURE;
  int status = test_main_reference("output", add);
  return chdir("/") == 0 && rmdir(folder) == 0 ? status : EXIT_FAILURE;
}
