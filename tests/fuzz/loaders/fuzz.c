#define _GNU_SOURCE
#include "fuzz.h"
#include "files/convert.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

const char *fuzz_path(const uint8_t *data, size_t size) {
  static int fd = -1;
  static char path[40];
  if (fd < 0) {
    fd = memfd_create("fuzz", 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  }
  if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size) abort();
  return path;
}

static void no_log(void *user, clm_log_level level, const char *message) { (void)user, (void)level, (void)message; }

clm_context *fuzz_context(void) {
  static clm_context *context;
  if (!context &&
      clm_context_create(&(clm_context_options){.device = "cpu", .threads = 1, .log = no_log}, &context) != CLM_OK)
    abort();
  return context;
}

void fuzz_expect(clm_status status) {
  if (status != CLM_OK && !*clm_context_error(fuzz_context())) abort();
}

/* Blocks of every dtype fit. */
enum { PIECE = 34 * 32, LARGEST = 1 << 22 }; /* an expanded tensor is larger than its file */

static void read_tensor(const source_tensor *t) {
  static char raw[PIECE];
  static float values[PIECE];
  const size_t block = source_block_bytes(t->dtype);
  for (size_t at = 0, n; at < t->bytes && at < LARGEST; at += n) {
    n = t->bytes - at < PIECE ? t->bytes - at : PIECE;
    if (source_read(fuzz_context(), t, at, n, raw)) return fuzz_expect(CLM_IO_ERROR);
    if (t->dtype != SOURCE_OTHER && n % block == 0)
      convert(&(conversion){.from = t->dtype}, raw, n / block * source_block_elements(t->dtype), values);
    else
      for (size_t i = 0; i < n; i++) values[0] += (float)raw[i];
  }
}

void fuzz_read_source(source *file, size_t size) {
  size_t bytes = 0;
  for (size_t i = 0; i < file->count; i++) {
    const source_tensor *t = &file->tensors[i];
    if (source_find(file, t->name) != t) abort();
    bytes += t->bytes;
    if (size && bytes > size) abort();
    read_tensor(t);
  }
  source_close(file);
}
