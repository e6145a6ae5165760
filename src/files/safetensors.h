/* The safetensors file format: 8 bytes of header length (little endian), a JSON header, the tensors' bytes. */
#ifndef CLM_FILES_SAFETENSORS_H
#define CLM_FILES_SAFETENSORS_H

#include "files/source.h"

clm_status safetensors_open(clm_context *context, const char *path, source *file);

/* A string of the header's __metadata__, or NULL. */
const char *safetensors_metadata(const source *file, const char *key);

/* What is written: numbers of the host, or of a device's buffer, which are fetched in pieces. */
typedef struct safetensor {
  const char *name;  /* NULL: more bytes of the tensor before it, whose shape is that of all */
  const char *dtype; /* "F32", ... */
  int rank;
  int64_t shape[CLM_MAX_RANK];
  const void *data;
  clm_buffer *buffer; /* where data is NULL */
  size_t offset;      /* in bytes           */
  size_t bytes;
} safetensor;

typedef struct safetensors_text {
  const char *key, *value;
} safetensors_text;

/* Writes under another name, then renames. `metadata` ends with a NULL key; NULL for none. */
clm_status safetensors_write(clm_context *context, const char *path, const safetensor *tensors, size_t count,
                             const safetensors_text *metadata);

#endif
