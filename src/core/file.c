#include "core/file.h"
#include "core/context.h"
#include "core/try.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *file_path(const char *directory, const char *name) {
  size_t size = strlen(directory) + strlen(name) + 2;
  char *path = malloc(size);
  if (path) snprintf(path, size, "%s/%s", directory, name);
  return path;
}

/* What git leaves of a large file that was not fetched: three lines of text. */
#define LFS_POINTER       "version https://git-lfs.github.com/spec/"
#define LFS_POINTER_BYTES 1024

static clm_status read_failed(clm_context *ctx, const char *path, const char *why) {
  return context_fail(ctx, CLM_IO_ERROR, "cannot read %s: %s", path, why);
}

static clm_status check_content(clm_context *ctx, const char *path, const file_input *in) {
  char begin[sizeof LFS_POINTER - 1];
  if (in->bytes < sizeof begin || in->bytes > LFS_POINTER_BYTES) return CLM_OK;
  TRY(file_read_at(ctx, path, in, 0, sizeof begin, begin));
  if (memcmp(begin, LFS_POINTER, sizeof begin) != 0) return CLM_OK;
  return context_fail(ctx, CLM_BAD_FORMAT,
                      "%s is a Git LFS pointer, not the file itself: run \"git lfs pull\" in its repository", path);
}

/* A file descriptor of a regular file, or -1 with the reason. Without O_NONBLOCK a FIFO would wait for a writer. */
static int open_regular(const char *path, size_t *bytes, const char **why) {
  struct stat about;
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  *why = NULL;
  if (fd < 0 || fstat(fd, &about) != 0) *why = strerror(errno);
  else if (S_ISDIR(about.st_mode)) *why = strerror(EISDIR);
  else if (!S_ISREG(about.st_mode)) *why = "it is not a regular file";
  if (!*why) {
    *bytes = (size_t)about.st_size;
    return fd;
  }
  if (fd >= 0) close(fd);
  return -1;
}

clm_status file_open(clm_context *ctx, const char *path, file_input *in) {
  const char *why;
  in->fd = open_regular(path, &in->bytes, &why);
  if (in->fd < 0) return read_failed(ctx, path, why);
  clm_status status = check_content(ctx, path, in);
  if (status) file_input_close(in);
  return status;
}

clm_status file_read_at(clm_context *ctx, const char *path, const file_input *in, uint64_t offset, size_t bytes,
                        void *out) {
  for (size_t at = 0; at < bytes;) {
    const ssize_t got = pread(in->fd, (char *)out + at, bytes - at, (off_t)(offset + at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return read_failed(ctx, path, got < 0 ? strerror(errno) : "it became shorter");
    at += (size_t)got;
  }
  return CLM_OK;
}

void file_input_close(file_input *in) {
  if (in->fd >= 0) close(in->fd);
  *in = FILE_INPUT_CLOSED;
}

bool file_begins_with(const char *path, const char *text) {
  char begin[16];
  size_t bytes, length = strlen(text);
  const char *why;
  const int fd = open_regular(path, &bytes, &why);
  if (fd < 0) return false;
  const bool begins =
      length <= sizeof begin && pread(fd, begin, length, 0) == (ssize_t)length && memcmp(begin, text, length) == 0;
  close(fd);
  return begins;
}

static clm_status read_all(clm_context *ctx, const char *path, const file_input *in, size_t limit, char **data) {
  if (in->bytes > limit)
    return context_fail(ctx, CLM_BAD_FORMAT, "%s has %zu bytes, at most %zu are expected", path, in->bytes, limit);
  char *text = malloc(in->bytes + 1);
  if (!text) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s (%zu bytes)", path, in->bytes);
  clm_status status = file_read_at(ctx, path, in, 0, in->bytes, text);
  text[in->bytes] = '\0';
  if (status) free(text);
  else *data = text;
  return status;
}

clm_status file_read(clm_context *ctx, const char *path, size_t limit, char **data, size_t *bytes) {
  file_input in;
  *data = NULL;
  *bytes = 0;
  TRY(file_open(ctx, path, &in));
  clm_status status = read_all(ctx, path, &in, limit, data);
  if (status == CLM_OK) *bytes = in.bytes;
  file_input_close(&in);
  return status;
}

static clm_status write_failed(clm_context *ctx, const char *path, int error) {
  return context_fail(ctx, error == ENOMEM ? CLM_OUT_OF_MEMORY : CLM_IO_ERROR, "cannot write %s: %s", path,
                      strerror(error));
}

clm_status file_create(clm_context *ctx, const char *path, output_file *out) {
  int error = output_file_open(out, path);
  return error ? write_failed(ctx, path, error) : CLM_OK;
}

clm_status file_close(clm_context *ctx, const char *path, output_file *out, clm_status status) {
  int error = output_file_close(out, status == CLM_OK);
  return error ? write_failed(ctx, path, error) : status;
}

clm_status file_replace(clm_context *ctx, const char *path, const file_part *parts, size_t count) {
  output_file out;
  clm_status status = file_create(ctx, path, &out);
  if (status) return status;
  for (size_t i = 0; i < count; i++) output_file_write(&out, parts[i].data, parts[i].bytes);
  return file_close(ctx, path, &out, CLM_OK);
}
