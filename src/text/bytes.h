/* A string that grows. A zeroed one is empty; nothing is zero-terminated. */
#ifndef CLM_TEXT_BYTES_H
#define CLM_TEXT_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct byte_string { /* borrowed */
  const char *text;
  size_t bytes;
} byte_string;

typedef struct byte_buffer {
  char *data;
  size_t bytes, capacity;
} byte_buffer;

/* Room for `more` bytes after the end; NULL when out of memory. The caller counts what it writes in `bytes`. */
char *bytes_reserve(byte_buffer *buffer, size_t more);
bool bytes_append(byte_buffer *buffer, const char *text, size_t bytes);
void bytes_free(byte_buffer *buffer);

static inline byte_string bytes_of(const byte_buffer *buffer) { return (byte_string){buffer->data, buffer->bytes}; }

/* The buffer becomes `text` with U+FFFD for what is not UTF-8 in it. */
bool bytes_append_lossy(byte_buffer *buffer, const char *text, size_t bytes);

/* Whether `word` is one of `words`, which have one space between them. */
bool is_listed(const char *words, const char *word);

#endif
