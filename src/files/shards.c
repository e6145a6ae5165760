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
  json_t *index;
  json_t *names; /* object whose keys are the files, each once */
  source *files;
  size_t count;
} shards;

static void shards_close(source *s) {
  shards *all = s->state;
  for (size_t i = 0; i < all->count; i++) source_close(&all->files[i]);
  json_decref(all->index);
  json_decref(all->names);
  free(all->files);
  free(all);
}

static const source_format shards_format = {.close = shards_close};

static clm_status bad(clm_context *ctx, const source *s, const char *what) {
  return context_fail(ctx, CLM_BAD_FORMAT, "%s is not a valid index: %s", s->path, what);
}

/* The name of a file beside the index, and nothing that leads elsewhere. */
static bool is_plain(const char *name) {
  return *name && *name != '.' && strlen(name) < 256 && !strpbrk(name, "/\\");
}

static clm_status read_index(clm_context *ctx, const source *s, shards *all, const json_t **map) {
  TRY(json_read(ctx, s->path, MAX_INDEX_BYTES, JSON_EXACT, &all->index, NULL, NULL));
  *map = json_object_get(all->index, "weight_map");
  if (!json_is_object(*map)) return bad(ctx, s, "it is not a JSON object with a \"weight_map\"");
  all->names = json_object();
  const char *tensor;
  json_t *file;
  json_object_foreach((json_t *)(uintptr_t)*map, tensor, file) {
    const char *name = json_string_value(file);
    if (!name || !is_plain(name))
      return context_fail(ctx, CLM_BAD_FORMAT,
                          "%s: tensor \"%.100s\" lies in \"%.100s\", expected the name of a file beside the index",
                          s->path, tensor, name ? name : "");
    if (json_object_get(all->names, name)) continue;
    if (json_object_size(all->names) == MAX_SHARDS) return bad(ctx, s, "it lists more than 1024 files");
    if (json_object_set_new(all->names, name, json_integer((json_int_t)json_object_size(all->names))))
      return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", s->path);
  }
  return CLM_OK;
}

static clm_status open_files(clm_context *ctx, const source *s, shards *all, const char *directory,
                             source_opener open) {
  size_t count = json_object_size(all->names);
  all->files = calloc(count ? count : 1, sizeof *all->files);
  if (!all->files) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", s->path);
  all->count = count;
  const char *name;
  json_t *number;
  json_object_foreach(all->names, name, number) {
    char *path = file_path(directory, name);
    if (!path) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", s->path);
    clm_status status = open(ctx, path, &all->files[json_integer_value(number)]);
    free(path);
    TRY(status);
  }
  return CLM_OK;
}

/* Every tensor that the index lists, from the file in which it says it is. */
static clm_status collect(clm_context *ctx, source *s, const shards *all, const json_t *map) {
  TRY(source_reserve(ctx, s, json_object_size(map)));
  const char *tensor;
  json_t *file;
  json_object_foreach((json_t *)(uintptr_t)map, tensor, file) {
    const char *name = json_string_value(file);
    const source *shard = &all->files[json_integer_value(json_object_get(all->names, name))];
    const source_tensor *found = source_find(shard, tensor);
    if (!found)
      return context_fail(ctx, CLM_BAD_FORMAT, "%s has no tensor \"%.100s\", which %s expects there", shard->path,
                          tensor, s->path);
    s->tensors[s->count++] = *found;
  }
  return CLM_OK;
}

static clm_status open_all(clm_context *ctx, source *s, const char *directory, source_opener open) {
  const json_t *map;
  TRY(read_index(ctx, s, s->state, &map));
  TRY(open_files(ctx, s, s->state, directory, open));
  return collect(ctx, s, s->state, map);
}

clm_status shards_open(clm_context *ctx, const char *directory, const char *index, source_opener open, source *s) {
  shards *all = calloc(1, sizeof *all);
  if (!all) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", index);
  clm_status status = source_begin(ctx, index, &shards_format, all, s);
  if (status == CLM_OK) status = open_all(ctx, s, directory, open);
  return source_opened(ctx, s, status);
}
