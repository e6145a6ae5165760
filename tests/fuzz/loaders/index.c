#include "fuzz.h"
#include <string.h>

static clm_status read_nothing(clm_context *context, const source_tensor *t, size_t begin, size_t bytes, void *out) {
  (void)context, (void)t, (void)begin;
  memset(out, 1, bytes);
  return CLM_OK;
}
static const source_format no_format = {.read = read_nothing};

/* Every file that an index lists opens, and has one tensor: what counts is that no name leads out of the folder. */
static clm_status open_shard(clm_context *context, const char *path, source *file) {
  const char *name = path + strlen("folder/");
  if (strncmp(path, "folder/", 7) != 0 || !*name || *name == '.' || strpbrk(name, "/\\")) __builtin_trap();
  const source_tensor tensor = {.name = "backbone.norm_f.weight", .bytes = 4, .rank = 1, .from = file};
  clm_status status = source_begin(context, path, &no_format, NULL, file);
  if (status == CLM_OK) status = source_reserve(context, file, 1);
  if (status == CLM_OK) file->tensors[file->count++] = tensor;
  return source_opened(context, file, status);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  source file;
  clm_status status = shards_open(fuzz_context(), "folder", fuzz_path(data, size), open_shard, &file);
  fuzz_expect(status);
  if (status == CLM_OK) fuzz_read_source(&file, 0);
  return 0;
}
