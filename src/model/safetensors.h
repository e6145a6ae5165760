/* The safetensors file format: 8 bytes of header length (little endian), a JSON header, the tensors' bytes.
 * Files are checked in full when they are opened: nothing in one can lead outside of it. */
#ifndef CLM_MODEL_SAFETENSORS_H
#define CLM_MODEL_SAFETENSORS_H

#include <clmamba/tensor.h>

typedef struct safetensor {
  const char *name;
  const char *dtype; /* "F32", ... */
  int rank;
  int64_t shape[CLM_MAX_RANK];
  const void *data; /* may be unaligned */
  size_t bytes;
} safetensor;

typedef struct safetensors {
  char *path;
  void *map;
  size_t bytes;
  struct json_t *header; /* owns the names */
  safetensor *tensors;
  size_t count;
} safetensors;

clm_status safetensors_open(clm_context *context, const char *path, safetensors *file);
void safetensors_close(safetensors *file);

/* NULL: no such tensor. */
const safetensor *safetensors_find(const safetensors *file, const char *name);

/* A string of the header's __metadata__, or NULL. */
const char *safetensors_metadata(const safetensors *file, const char *key);

/* Elements as f32 from F32, F16 or BF16; a sentence for any other dtype. */
clm_status safetensors_read_f32(clm_context *context, const safetensors *file, const safetensor *tensor, float *out);

typedef struct safetensors_text {
  const char *key, *value;
} safetensors_text;

/* Writes beside, then renames. `metadata` ends with a NULL key; NULL for none. */
clm_status safetensors_write(clm_context *context, const char *path, const safetensor *tensors, size_t count,
                             const safetensors_text *metadata);

#endif
