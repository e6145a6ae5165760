#include "core/json_print.h"
#include <stdlib.h>

/* Measured, then written into memory of that size: json_dumps lets its buffer grow, and where there is no memory for
 * it to grow by a key, leaves that key out without a word (jansson 2.14, do_dump). */
char *json_print(const json_t *json, size_t flags) {
  size_t bytes = json ? json_dumpb(json, NULL, 0, flags) : 0;
  char *text = bytes ? malloc(bytes + 1) : NULL;
  if (!text) return NULL;
  if (json_dumpb(json, text, bytes, flags) != bytes) {
    free(text);
    return NULL;
  }
  text[bytes] = '\0';
  return text;
}
