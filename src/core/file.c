#include "core/file.h"
#include "core/context.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

clm_status file_map(clm_context *ctx, const char *path, file_mapping *mapping) {
  *mapping = (file_mapping){0};
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return context_fail(ctx, CLM_IO_ERROR, "cannot read %s: %s", path, strerror(errno));
  struct stat about;
  int error = 0;
  if (fstat(fd, &about) != 0) error = errno;
  else if (!S_ISREG(about.st_mode)) error = EISDIR;
  else if (about.st_size > 0) {
    void *map = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) error = errno;
    else *mapping = (file_mapping){map, (size_t)about.st_size};
  }
  close(fd);
  return error ? context_fail(ctx, CLM_IO_ERROR, "cannot read %s: %s", path, strerror(error)) : CLM_OK;
}

void file_unmap(file_mapping *mapping) {
  if (mapping->data) munmap((void *)(uintptr_t)mapping->data, mapping->bytes);
  *mapping = (file_mapping){0};
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
