/* Where the tensors of a model come from: names, shapes and bytes, whatever the file format. Files are checked in
 * full when they are opened: nothing in one can lead outside of it. */
#ifndef CLM_FILES_SOURCE_H
#define CLM_FILES_SOURCE_H

#include <clmamba/tensor.h>

/* How numbers are stored. */
#define SOURCE_DTYPES(X)                                                                                             \
  X(F32, 4, 1)                                                                                                       \
  X(F16, 2, 1)                                                                                                       \
  X(BF16, 2, 1)                                                                                                      \
  X(Q8_0, 34, 32) /* blocks of 32: an f16 scale and as many int8 */                                                  \
  X(OTHER, 1, 1)  /* what no parameter can be made of */

typedef enum source_dtype {
#define X(name, bytes, elements) SOURCE_##name,
  SOURCE_DTYPES(X)
#undef X
} source_dtype;

typedef struct source source;

typedef struct source_tensor {
  const char *name;
  const char *dtype_name; /* as the file calls it, for messages */
  source_dtype dtype;
  int rank;
  int64_t shape[CLM_MAX_RANK]; /* the last dimension is contiguous                           */
  size_t bytes;                /* as stored                                                  */
  source *from;                /* the file that it lies in                                   */
  uint64_t place;              /* for its format: where in the file, or the entry of an archive ... */
  size_t skip;                 /* ... and the bytes in it before the tensor                  */
  size_t first;                /* of a part of a tensor: the bytes of the whole before it    */
} source_tensor;

/* What the names of the tensors, and the values of A, look like. */
typedef enum source_naming {
  NAMING_PYTORCH,      /* Hugging Face's; the original's, which differ in one name, are read too           */
  NAMING_ORIGINAL,     /* the original's, for what is written                                              */
  NAMING_ORIGINAL_MLP, /* of the original with an MLP after each mixer: two blocks are one layer there     */
  NAMING_GGUF,         /* llama.cpp's; A itself is stored, not log(-A)                                     */
  NAMING_HYBRID,       /* Hugging Face's where a layer is a mixer, or several, and an MLP: two blocks      */
  NAMING_GRANITE,      /* the same with Granite's names                                                    */
  NAMING_NEMOTRON      /* as NAMING_PYTORCH, with the names of Nemotron's experts                          */
} source_naming;

/* A factor on rows of the tensors whose names end so, as they are read. */
typedef struct source_scale {
  const char *name;
  int64_t first, rows; /* 0: all */
  double factor;
} source_scale;

enum { SOURCE_SCALES = 24 };
typedef struct source_scales {
  size_t count;
  source_scale items[SOURCE_SCALES];
} source_scales;

/* A file format. */
typedef struct source_format {
  void (*close)(source *); /* may be NULL */
  /* `bytes` more of a tensor: from its start if `begin` is 0, else where the last call ended. */
  clm_status (*read)(clm_context *, const source_tensor *, size_t begin, size_t bytes, void *out);
} source_format;

struct source {
  char *path;
  source_tensor *tensors; /* sorted by name */
  size_t count;
  source_naming naming;
  source_scales scales;
  const source_format *format;
  void *state; /* the format's own */
};

/* Begins a source: its path is kept for messages. */
clm_status source_begin(clm_context *context, const char *path, const source_format *format, void *state,
                        source *made);

/* Ends the opening of one, `status` being how it went so far: sorts the tensors by name, refuses a name that is there
 * twice. Closes the source if anything is wrong. */
clm_status source_opened(clm_context *context, source *made, clm_status status);

/* Room for so many tensors; the caller fills them in and counts. */
clm_status source_reserve(clm_context *context, source *made, size_t count);

void source_close(source *file);

/* NULL: no such tensor. */
const source_tensor *source_find(const source *file, const char *name);

/* The bytes of a tensor as they are stored, all or one part after another; `begin` as in source_format. */
clm_status source_read(clm_context *context, const source_tensor *tensor, size_t begin, size_t bytes, void *out);

/* The whole of one, to be freed. */
clm_status source_read_all(clm_context *context, const source_tensor *tensor, void **data);

/* Whether two tensors are the same bytes of one file. */
bool source_same_bytes(const source_tensor *a, const source_tensor *b);

/* "F32" to SOURCE_F32; SOURCE_OTHER for what is not known. */
source_dtype source_dtype_named(const char *name);

/* How many elements and bytes make up one block of a dtype. */
size_t source_block_elements(source_dtype dtype);
size_t source_block_bytes(source_dtype dtype);

/* Fails, with what to give instead, if `path` is a file: where the directory of a model is expected. */
clm_status source_check_directory(clm_context *context, const char *path);

/* Opens the weights of a model directory: the first of model.safetensors, model.safetensors.index.json,
 * pytorch_model.bin, pytorch_model.bin.index.json that is there. */
clm_status source_open_directory(clm_context *context, const char *directory, source *file);

/* Opens every file that an index ("weight_map": name -> file in its folder) lists, as one source. */
typedef clm_status (*source_opener)(clm_context *, const char *path, source *);
clm_status shards_open(clm_context *context, const char *directory, const char *index, source_opener open,
                       source *file);

#endif
