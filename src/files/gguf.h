/* GGUF, the file format of llama.cpp, versions 2 and 3 (little endian): named values, then named tensors. Everything
 * but the numbers of tensors is read and checked when the file is opened. */
#ifndef CLM_FILES_GGUF_H
#define CLM_FILES_GGUF_H

#include "files/source.h"

#define GGUF_ARCHITECTURE "general.architecture"

typedef enum gguf_type { /* as they are numbered in the file */
                         GGUF_U8,
                         GGUF_I8,
                         GGUF_U16,
                         GGUF_I16,
                         GGUF_U32,
                         GGUF_I32,
                         GGUF_F32,
                         GGUF_BOOL,
                         GGUF_STRING,
                         GGUF_ARRAY,
                         GGUF_U64,
                         GGUF_I64,
                         GGUF_F64,
                         GGUF_TYPES
} gguf_type;

/* Text of the file: not ended by a zero byte. */
typedef struct gguf_text {
  const char *text;
  size_t bytes;
} gguf_text;

typedef struct gguf_value {
  gguf_text key;
  gguf_type type; /* of the value, or of an array's elements */
  bool array;
  size_t count;     /* 1 where it is no array */
  const void *data; /* unaligned              */
} gguf_value;

/* True: the file begins as a GGUF file does. */
bool gguf_is(const char *path);

/* A source with NAMING_GGUF. */
clm_status gguf_open(clm_context *context, const char *path, source *file);

/* NULL: there is no such value. */
const gguf_value *gguf_find(const source *file, const char *key);

/* False: absent, or of another kind. Whole numbers of any width, text, true or false, real numbers of any kind. */
bool gguf_integer(const source *file, const char *key, int64_t *number);
bool gguf_real(const source *file, const char *key, double *number);
bool gguf_flag(const source *file, const char *key, bool *flag);
bool gguf_string(const source *file, const char *key, gguf_text *text);

/* Walks the elements of an array of text: `at` begins as value->data, and is moved to the next. */
gguf_text gguf_next_text(const void **at);

/* Elements of an array of numbers (or of bools), as real numbers. */
double gguf_element(const gguf_value *value, size_t i);

#endif
