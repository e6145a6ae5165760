#include "folder.h"
#include "cmocka_all.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char test_folder[] = "/tmp/clmamba-test-XXXXXX";

bool folder_make(void) { return mkdtemp(test_folder) != NULL; }

const char *in_folder(const char *name) {
  static char paths[4][320];
  static int next;
  next = (next + 1) % 4;
  snprintf(paths[next], sizeof paths[next], "%s/%s", test_folder, name);
  return paths[next];
}

void folder_empty(void) {
  DIR *folder = opendir(test_folder);
  for (const struct dirent *e = readdir(folder); e; e = readdir(folder))
    if (e->d_name[0] != '.') unlink(in_folder(e->d_name));
  closedir(folder);
}

bool folder_remove(void) {
  folder_empty();
  return rmdir(test_folder) == 0;
}

void put(bytes *b, const void *data, size_t count) {
  if (b->count + count > b->capacity) {
    b->capacity = 2 * (b->count + count);
    b->data = realloc(b->data, b->capacity);
    assert_non_null(b->data);
  }
  if (count) memcpy(b->data + b->count, data, count);
  b->count += count;
}

void put_number(bytes *b, uint64_t number, size_t count) {
  for (size_t i = 0; i < count; i++, number >>= 8) put(b, &(unsigned char){(unsigned char)number}, 1);
}

void put_text(bytes *b, const char *text) { put(b, text, strlen(text)); }

void bytes_release(bytes *b) {
  free(b->data);
  *b = (bytes){0};
}

void write_file(const char *name, const void *data, size_t count) {
  FILE *f = fopen(in_folder(name), "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(data, 1, count, f), count);
  assert_int_equal(fclose(f), 0);
}

bytes read_file(const char *name) {
  bytes b = {0};
  char part[4096];
  FILE *f = fopen(in_folder(name), "rb");
  assert_non_null(f);
  for (size_t got; (got = fread(part, 1, sizeof part, f)) > 0;) put(&b, part, got);
  assert_int_equal(fclose(f), 0);
  return b;
}

void expect_failure(clm_context *context, clm_status got, clm_status want, const char *part) {
  const char *error = clm_context_error(context);
  if (got != want || !strstr(error, part))
    fail_msg("got %s: \"%s\", expected %s and \"%s\"", clm_status_string(got), error, clm_status_string(want), part);
}
