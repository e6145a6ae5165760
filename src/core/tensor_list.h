/* Tensors one after another in a buffer, each on a cache line of its own. Without a buffer they are only counted: the
 * same code says how large the buffer must be and, once it is there, where everything stands. */
#ifndef CLM_CORE_TENSOR_LIST_H
#define CLM_CORE_TENSOR_LIST_H

#include <clmamba/tensor.h>

/* The next place in `buffer` (may be NULL); *used is the end of what has been placed so far, in bytes. */
clm_tensor tensor_place(clm_buffer *buffer, size_t *used, clm_dtype dtype, int rank, const int64_t *shape);

/* Tensors that are described before there is memory for them. */
enum { TENSOR_LIST_MAX = 12 };

typedef struct tensor_description {
  const char *name;
  clm_dtype dtype;
  int rank;
  int64_t shape[CLM_MAX_RANK];
  int grows; /* of a state: the dimension that is as long as its room; 0: none */
} tensor_description;

typedef struct tensor_list {
  int count;
  tensor_description items[TENSOR_LIST_MAX];
} tensor_list;

/* Adds an item, at most TENSOR_LIST_MAX of them. */
void tensor_list_add(tensor_list *list, const char *name, clm_dtype dtype, int rank, const int64_t *shape);

/* Places all items; views[i] is that of item i. */
void tensor_list_place(const tensor_list *list, clm_buffer *buffer, size_t *used, clm_tensor *views);

#endif
