#include "text/bytes.h"
#include "text/utf8.h"
#include <stdlib.h>
#include <string.h>

char *bytes_reserve(byte_buffer *b, size_t more) {
  if (more > SIZE_MAX / 4 - b->bytes) return NULL;
  if (b->bytes + more > b->capacity || !b->data) {
    size_t capacity = b->capacity ? b->capacity : 256;
    while (capacity < b->bytes + more) capacity *= 2;
    char *larger = realloc(b->data, capacity);
    if (!larger) return NULL;
    b->data = larger;
    b->capacity = capacity;
  }
  return b->data + b->bytes;
}

bool bytes_append(byte_buffer *b, const char *text, size_t bytes) {
  char *end = bytes_reserve(b, bytes);
  if (!end) return false;
  if (bytes) memcpy(end, text, bytes);
  b->bytes += bytes;
  return true;
}

bool bytes_append_lossy(byte_buffer *b, const char *text, size_t bytes) {
  bool ok = true, open;
  for (size_t at = 0; at < bytes && ok;) {
    size_t valid = utf8_valid(text + at, bytes - at);
    ok = bytes_append(b, text + at, valid);
    at += valid;
    if (at == bytes || !ok) break;
    at += utf8_ill_formed(text + at, bytes - at, &open);
    ok = bytes_append(b, UTF8_REPLACEMENT, strlen(UTF8_REPLACEMENT));
  }
  return ok;
}

void bytes_free(byte_buffer *b) {
  free(b->data);
  *b = (byte_buffer){0};
}

bool is_listed(const char *words, const char *word) {
  const size_t length = strlen(word);
  for (const char *at = words; *at; at += strcspn(at, " "), at += *at == ' ')
    if (length && strncmp(at, word, length) == 0 && (at[length] == ' ' || !at[length])) return true;
  return false;
}
