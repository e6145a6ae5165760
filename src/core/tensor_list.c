#include "core/tensor_list.h"
#include "core/arith.h"
#include <assert.h>
#include <string.h>

clm_tensor tensor_place(clm_buffer *buffer, size_t *used, clm_dtype dtype, int rank, const int64_t *shape) {
  clm_tensor t = clm_tensor_of(buffer, *used, dtype, rank, shape);
  *used += round_up_line((size_t)clm_tensor_count(t) * clm_dtype_size(dtype));
  return t;
}

void tensor_list_add(tensor_list *list, const char *name, clm_dtype dtype, int rank, const int64_t *shape) {
  assert(list->count < TENSOR_LIST_MAX);
  tensor_description *item = &list->items[list->count++];
  *item = (tensor_description){.name = name, .dtype = dtype, .rank = rank};
  memcpy(item->shape, shape, (size_t)rank * sizeof *shape);
}

void tensor_list_place(const tensor_list *list, clm_buffer *buffer, size_t *used, clm_tensor *views) {
  for (int i = 0; i < list->count; i++) {
    const tensor_description *item = &list->items[i];
    views[i] = tensor_place(buffer, used, item->dtype, item->rank, item->shape);
  }
}
