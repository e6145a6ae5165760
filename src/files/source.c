#include "files/source.h"
#include "core/context.h"
#include "core/file.h"
#include "core/try.h"
#include "files/pytorch.h"
#include "files/safetensors.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
  const char *name;
  size_t bytes, elements;
} blocks[] = {
#define X(name, bytes, elements) [SOURCE_##name] = {#name, bytes, elements},
    SOURCE_DTYPES(X)
#undef X
};

size_t source_block_elements(source_dtype dtype) { return blocks[dtype].elements; }
size_t source_block_bytes(source_dtype dtype) { return blocks[dtype].bytes; }

source_dtype source_dtype_named(const char *name) {
  int dtype = 0;
  while (dtype < SOURCE_OTHER && strcmp(name, blocks[dtype].name) != 0) dtype++;
  return (source_dtype)dtype;
}

clm_status source_begin(clm_context *ctx, const char *path, const source_format *format, void *state, source *s) {
  *s = (source){.path = strdup(path), .format = format, .state = state};
  return s->path ? CLM_OK : context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
}

clm_status source_reserve(clm_context *ctx, source *s, size_t count) {
  s->tensors = calloc(count ? count : 1, sizeof *s->tensors);
  return s->tensors ? CLM_OK : context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", s->path);
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const source_tensor *)a)->name, ((const source_tensor *)b)->name);
}

static clm_status sort(clm_context *ctx, source *s) {
  if (s->count) qsort(s->tensors, s->count, sizeof *s->tensors, by_name);
  for (size_t i = 1; i < s->count; i++)
    if (by_name(&s->tensors[i - 1], &s->tensors[i]) == 0)
      return context_fail(ctx, CLM_BAD_FORMAT, "%s has two tensors named \"%.100s\"", s->path, s->tensors[i].name);
  return CLM_OK;
}

clm_status source_opened(clm_context *ctx, source *s, clm_status status) {
  if (status == CLM_OK) status = sort(ctx, s);
  if (status) source_close(s);
  return status;
}

void source_close(source *s) {
  if (s->format && s->format->close) s->format->close(s);
  free(s->tensors);
  free(s->path);
  *s = (source){0};
}

const source_tensor *source_find(const source *s, const char *name) {
  const source_tensor key = {.name = name};
  return s->count ? bsearch(&key, s->tensors, s->count, sizeof key, by_name) : NULL;
}

clm_status source_read(clm_context *ctx, const source_tensor *t, size_t begin, size_t bytes, void *out) {
  return bytes ? t->from->format->read(ctx, t, begin, bytes, out) : CLM_OK;
}

clm_status source_read_all(clm_context *ctx, const source_tensor *t, void **data) {
  *data = malloc(t->bytes ? t->bytes : 1);
  if (!*data) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", t->from->path);
  clm_status status = source_read(ctx, t, 0, t->bytes, *data);
  if (status) {
    free(*data);
    *data = NULL;
  }
  return status;
}

bool source_same_bytes(const source_tensor *a, const source_tensor *b) {
  return a->from == b->from && a->place == b->place && a->skip == b->skip && a->first == b->first &&
         a->bytes == b->bytes;
}

clm_status source_check_directory(clm_context *ctx, const char *path) {
  struct stat about;
  file_input file;
  if (stat(path, &about) != 0 || S_ISDIR(about.st_mode)) return CLM_OK;
  TRY(file_open(ctx, path, &file)); /* a pointer of Git LFS, or no regular file: that is said */
  file_input_close(&file);
  const char *slash = strrchr(path, '/');
  return context_fail(
      ctx, CLM_UNSUPPORTED,
      "%s is neither a model directory nor a GGUF file: give the directory that holds config.json and "
      "the weights, \"%.*s\"",
      path, slash ? (int)(slash - path + (slash == path)) : 1, slash ? path : ".");
}

/* In the order in which Hugging Face's reader looks for them. */
static const struct {
  const char *name;
  source_opener open;
  bool index;
} candidates[] = {
    {"model.safetensors", safetensors_open, false},
    {"model.safetensors.index.json", safetensors_open, true},
    {"pytorch_model.bin", pytorch_open, false},
    {"pytorch_model.bin.index.json", pytorch_open, true},
};

clm_status source_open_directory(clm_context *ctx, const char *directory, source *s) {
  for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++) {
    char *path = file_path(directory, candidates[i].name);
    if (!path) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", directory);
    bool here = access(path, F_OK) == 0;
    clm_status status = CLM_OK;
    if (here && candidates[i].index) status = shards_open(ctx, directory, path, candidates[i].open, s);
    else if (here) status = candidates[i].open(ctx, path, s);
    free(path);
    if (here) return status;
  }
  return context_fail(ctx, CLM_IO_ERROR,
                      "%s has no weights: neither model.safetensors nor pytorch_model.bin, nor the index of either",
                      directory);
}
