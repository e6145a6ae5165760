#include "core/file.h"
#include "core/context.h"
#include <errno.h>
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

static clm_status read_all(clm_context *ctx, const char *path, FILE *f, size_t limit, char **data, size_t *bytes) {
  struct stat about;
  if (fstat(fileno(f), &about) != 0)
    return context_fail(ctx, CLM_IO_ERROR, "cannot read %s: %s", path, strerror(errno));
  if (!S_ISREG(about.st_mode))
    return context_fail(ctx, CLM_IO_ERROR, "cannot read %s: it is not a regular file", path);
  if ((uintmax_t)about.st_size > limit)
    return context_fail(ctx, CLM_BAD_FORMAT, "%s has %jd bytes, at most %zu are expected", path,
                        (intmax_t)about.st_size, limit);
  size_t size = (size_t)about.st_size;
  char *text = malloc(size + 1);
  if (!text) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s (%zu bytes)", path, size);
  if (fread(text, 1, size, f) != size) {
    free(text);
    return context_fail(ctx, CLM_IO_ERROR, "cannot read %s: %s", path,
                        ferror(f) ? strerror(errno) : "it became shorter");
  }
  text[size] = '\0';
  *data = text;
  *bytes = size;
  return CLM_OK;
}

clm_status file_read(clm_context *ctx, const char *path, size_t limit, char **data, size_t *bytes) {
  *data = NULL;
  *bytes = 0;
  FILE *f = fopen(path, "rb");
  if (!f) return context_fail(ctx, CLM_IO_ERROR, "cannot read %s: %s", path, strerror(errno));
  clm_status status = read_all(ctx, path, f, limit, data, bytes);
  fclose(f);
  return status;
}

/* 0, or the errno of what went wrong. */
static int write_all(const char *path, const file_part *parts, size_t count) {
  FILE *f = fopen(path, "wb");
  if (!f) return errno;
  int error = 0;
  for (size_t i = 0; i < count && !error; i++)
    if (parts[i].bytes && fwrite(parts[i].data, 1, parts[i].bytes, f) != parts[i].bytes) error = errno ? errno : EIO;
  if (!error && (fflush(f) != 0 || fsync(fileno(f)) != 0)) error = errno;
  if (fclose(f) != 0 && !error) error = errno;
  return error;
}

clm_status file_replace(clm_context *ctx, const char *path, const file_part *parts, size_t count) {
  size_t size = strlen(path) + sizeof ".partial";
  char *beside = malloc(size);
  if (!beside) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory");
  snprintf(beside, size, "%s.partial", path);
  int error = write_all(beside, parts, count);
  if (!error && rename(beside, path) != 0) error = errno;
  if (error) remove(beside);
  free(beside);
  return error ? context_fail(ctx, CLM_IO_ERROR, "cannot write %s: %s", path, strerror(error)) : CLM_OK;
}
