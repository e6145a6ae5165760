/* A model in several files: an index says which tensor lies in which. */
#include "core/context.h"
#include "core/file.h"
#include "core/json_file.h"
#include "core/try.h"
#include "files/source.h"
#include <stdlib.h>
#include <string.h>

#define MAX_INDEX_BYTES (64u << 20)
#define MAX_SHARDS      1024

typedef struct shards {
  source *files; /* in the order of their names */
  size_t count;
} shards;

static void shards_close(source *s) {
  shards *all = s->state;
  for (size_t i = 0; i < all->count; i++) source_close(&all->files[i]);
  free(all->files);
  free(all);
}

static const source_format shards_format = {.close = shards_close};

static clm_status bad(clm_context *ctx, const source *s, const char *what) {
  return context_fail(ctx, CLM_BAD_FORMAT, "%s is not a valid index: %s", s->path, what);
}

/* The name of a file in the index's folder, and nothing that leads elsewhere. */
static bool is_plain(const json_t *file) {
  const char *name = json_string_value(file);
  return name && *name && *name != '.' && strlen(name) < 256 && strlen(name) == json_string_length(file) &&
         !strpbrk(name, "/\\");
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* The names of the files that the index lists, sorted, each once. */
static clm_status list_files(clm_context *ctx, const source *s, const json_t *map, const char **names,
                             size_t *count) {
  size_t listed = 0;
  const char *tensor;
  json_t *file;
  json_object_foreach((json_t *)(uintptr_t)map, tensor, file) {
    if (!is_plain(file))
      return context_fail(ctx, CLM_BAD_FORMAT,
                          "%s: tensor \"%.100s\" lies in \"%.100s\", expected the name of a file in the same folder",
                          s->path, tensor, json_is_string(file) ? json_string_value(file) : "");
    names[listed++] = json_string_value(file);
  }
  if (listed) qsort(names, listed, sizeof *names, by_text);
  *count = 0;
  for (size_t i = 0; i < listed; i++)
    if (!*count || strcmp(names[i], names[*count - 1]) != 0) names[(*count)++] = names[i];
  return *count <= MAX_SHARDS ? CLM_OK : bad(ctx, s, "it lists more than 1024 files");
}

static clm_status open_files(clm_context *ctx, const source *s, shards *all, const char *directory,
                             source_opener open, const char *const *names, size_t count) {
  all->files = calloc(count ? count : 1, sizeof *all->files);
  if (!all->files) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", s->path);
  all->count = count;
  for (size_t i = 0; i < count; i++) {
    char *path = file_path(directory, names[i]);
    if (!path) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", s->path);
    clm_status status = open(ctx, path, &all->files[i]);
    free(path);
    TRY(status);
  }
  return CLM_OK;
}

static bool is_in_later_file(const shards *all, size_t file, const char *name) {
  for (size_t i = file + 1; i < all->count; i++)
    if (source_find(&all->files[i], name)) return true;
  return false;
}

/* All tensors of all files, the last one's of those that are in several: as transformers does it. What the index says
 * of a single tensor does not matter; it may name one that no file has, such as a head that is tied. */
static clm_status collect(clm_context *ctx, source *s, const shards *all) {
  size_t count = 0;
  for (size_t i = 0; i < all->count; i++) count += all->files[i].count;
  TRY(source_reserve(ctx, s, count));
  for (size_t i = 0; i < all->count; i++)
    for (size_t k = 0; k < all->files[i].count; k++) {
      const source_tensor *t = &all->files[i].tensors[k];
      if (!is_in_later_file(all, i, t->name)) s->tensors[s->count++] = *t;
    }
  return CLM_OK;
}

static clm_status open_index(clm_context *ctx, source *s, const char *directory, source_opener open,
                             const json_t *index) {
  const json_t *map = json_object_get(index, "weight_map");
  if (!json_is_object(map)) return bad(ctx, s, "it is not a JSON object with a \"weight_map\"");
  const char **names = calloc(json_object_size(map) + 1, sizeof *names);
  size_t count = 0;
  if (!names) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", s->path);
  clm_status status = list_files(ctx, s, map, names, &count);
  if (status == CLM_OK) status = open_files(ctx, s, s->state, directory, open, names, count);
  free(names);
  return status ? status : collect(ctx, s, s->state);
}

static clm_status open_all(clm_context *ctx, source *s, const char *directory, source_opener open) {
  json_t *index;
  TRY(json_read(ctx, s->path, MAX_INDEX_BYTES, JSON_PYTHON, &index, NULL, NULL));
  clm_status status = open_index(ctx, s, directory, open, index);
  json_decref(index);
  return status;
}

clm_status shards_open(clm_context *ctx, const char *directory, const char *index, source_opener open, source *s) {
  shards *all = calloc(1, sizeof *all);
  if (!all) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", index);
  clm_status status = source_begin(ctx, index, &shards_format, all, s);
  if (status == CLM_OK) status = open_all(ctx, s, directory, open);
  return source_opened(ctx, s, status);
}
