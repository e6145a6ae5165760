#include "reference.h"
#include <stdlib.h>

void *ref_alloc(clm_context *ctx, const char *op, int64_t count, size_t size) {
  void *memory = calloc((size_t)count, size);
  if (!memory)
    context_fail(ctx, CLM_OUT_OF_MEMORY, "%s: no memory for %lld elements of %zu bytes", op, (long long)count, size);
  return memory;
}
