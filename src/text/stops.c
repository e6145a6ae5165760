#include "text/stops.h"
#include <stdlib.h>
#include <string.h>

/* Drops what has been let through. */
static void forget_shown(stops *s) {
  s->bytes -= s->shown;
  s->looked -= s->shown;
  if (s->bytes) memmove(s->text, s->text + s->shown, s->bytes);
  s->shown = 0;
}

bool stops_add(stops *s, const char *text, size_t bytes) {
  forget_shown(s);
  if (s->capacity - s->bytes < bytes) {
    size_t capacity = 2 * (s->bytes + bytes);
    char *larger = realloc(s->text, capacity);
    if (!larger) return false;
    s->text = larger;
    s->capacity = capacity;
  }
  if (bytes) memcpy(s->text + s->bytes, text, bytes);
  s->bytes += bytes;
  return true;
}

/* Bytes of the longest stop string that ends at `end`, 0 if none does. */
static size_t ends_at(const stops *s, size_t end) {
  size_t longest = 0;
  for (size_t i = 0; i < s->count; i++) {
    size_t length = strlen(s->strings[i]);
    if (length <= end && length > longest && memcmp(s->text + end - length, s->strings[i], length) == 0)
      longest = length;
  }
  return longest;
}

/* Bytes at the end of the text that may be the beginning of a stop string. */
static size_t undecided(const stops *s) {
  size_t longest = 0;
  for (size_t i = 0; i < s->count; i++) {
    size_t length = strlen(s->strings[i]) - 1;
    if (length > s->bytes) length = s->bytes;
    while (length > longest && memcmp(s->text + s->bytes - length, s->strings[i], length) != 0) length--;
    if (length > longest) longest = length;
  }
  return longest;
}

stops_found stops_look(stops *s, bool at_end) {
  forget_shown(s);
  stops_found found = {.text = s->text};
  while (s->looked < s->bytes && !found.stopped) {
    size_t length = ends_at(s, ++s->looked);
    if (!length) continue;
    found.stopped = true;
    found.bytes = s->looked - length;
  }
  if (!found.stopped) found.bytes = s->bytes - (at_end ? 0 : undecided(s));
  s->shown = found.bytes;
  return found;
}

void stops_free(stops *s) {
  free(s->text);
  *s = (stops){0};
}
