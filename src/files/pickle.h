/* The part of a pickle (Python's protocol 2) that torch.save makes of a dictionary of tensors, and nothing else: no
 * object is made, no name is looked up, an opcode or a name outside the list below is refused. */
#ifndef CLM_FILES_PICKLE_H
#define CLM_FILES_PICKLE_H

#include <clmamba/tensor.h>

typedef struct pickle_tensor {
  const char *name;    /* owned by the pickle */
  const char *storage; /* the key of its numbers: data/KEY in the archive; owned likewise */
  int dtype;           /* index of pickle_dtypes */
  int64_t numel;       /* of the storage                 */
  int64_t offset;      /* of the tensor in it, elements  */
  int rank;
  int64_t shape[CLM_MAX_RANK];
  int64_t stride[CLM_MAX_RANK]; /* elements; 0: the same ones again          */
  int64_t span;                 /* from its first element to past its last   */
  bool contiguous;              /* nothing else lies between                 */
} pickle_tensor;

/* Storage types by torch's names. */
typedef struct pickle_dtype {
  const char *storage, *name; /* "FloatStorage", "F32" */
  int bytes;
} pickle_dtype;
extern const pickle_dtype pickle_dtypes[];

typedef struct pickle {
  pickle_tensor *tensors; /* of the dictionary that the pickle is */
  size_t count;
  char *texts;
} pickle;

/* `path` is for messages. What is allocated is a small multiple of `bytes`. */
clm_status pickle_read(clm_context *context, const char *path, const unsigned char *data, size_t bytes, pickle *out);
void pickle_free(pickle *p);

#endif
