#include "text/stops.h"
#include <stdlib.h>
#include <string.h>

static void drop(byte_buffer *buffer, size_t bytes) {
  buffer->bytes -= bytes;
  if (buffer->bytes) memmove(buffer->data, buffer->data + bytes, buffer->bytes);
}

/* Drops what has been let through. */
static void forget_passed(stops *s) {
  size_t left = s->passed, gone = 0;
  while (gone < s->part_count && s->parts[gone].searched <= left) left -= s->parts[gone++].searched;
  if (gone < s->part_count) {
    s->parts[gone].searched -= left;
    if (s->parts[gone].alike) s->parts[gone].shown -= left;
  }
  s->part_count -= gone;
  if (gone && s->part_count) memmove(s->parts, s->parts + gone, s->part_count * sizeof *s->parts);
  drop(&s->searched, s->passed);
  drop(&s->shown, s->given);
  s->looked -= s->passed;
  s->passed = s->given = 0;
}

static bool add_part(stops *s, stops_part part) {
  stops_part *last = s->part_count ? &s->parts[s->part_count - 1] : NULL;
  if (last && last->alike && part.alike) {
    last->searched += part.searched;
    last->shown += part.shown;
    return true;
  }
  if (s->part_count == s->part_capacity) {
    size_t capacity = 2 * s->part_capacity + 4;
    stops_part *larger = realloc(s->parts, capacity * sizeof *larger);
    if (!larger) return false;
    s->parts = larger;
    s->part_capacity = capacity;
  }
  s->parts[s->part_count++] = part;
  return true;
}

bool stops_add(stops *s, byte_string searched, byte_string shown) {
  forget_passed(s);
  if (!searched.bytes && !shown.bytes) return true;
  bool alike = searched.bytes == shown.bytes && memcmp(searched.text, shown.text, shown.bytes) == 0;
  return bytes_append(&s->searched, searched.text, searched.bytes) &&
         bytes_append(&s->shown, shown.text, shown.bytes) &&
         add_part(s, (stops_part){searched.bytes, shown.bytes, alike});
}

/* Bytes to show of the first `searched` bytes. A part that is not alike is shown when all of it has passed. */
static size_t shown_of(const stops *s, size_t searched) {
  size_t shown = 0;
  for (size_t i = 0; i < s->part_count; i++) {
    const stops_part *part = &s->parts[i];
    if (part->searched > searched) return shown + (part->alike ? searched : 0);
    searched -= part->searched;
    shown += part->shown;
  }
  return shown;
}

/* Bytes of the longest stop string that ends at `end`, 0 if none does. */
static size_t ends_at(const stops *s, size_t end) {
  size_t longest = 0;
  for (size_t i = 0; i < s->count; i++) {
    size_t length = strlen(s->strings[i]);
    if (length <= end && length > longest && memcmp(s->searched.data + end - length, s->strings[i], length) == 0)
      longest = length;
  }
  return longest;
}

/* Bytes at the end of the text that may be the beginning of a stop string. */
static size_t undecided(const stops *s) {
  size_t longest = 0;
  for (size_t i = 0; i < s->count; i++) {
    size_t length = strlen(s->strings[i]) - 1;
    if (length > s->searched.bytes) length = s->searched.bytes;
    while (length > longest && memcmp(s->searched.data + s->searched.bytes - length, s->strings[i], length) != 0)
      length--;
    if (length > longest) longest = length;
  }
  return longest;
}

stops_found stops_look(stops *s, bool at_end) {
  forget_passed(s);
  stops_found found = {.text = s->shown.data};
  while (s->looked < s->searched.bytes && !found.stopped) {
    size_t length = ends_at(s, ++s->looked);
    if (!length) continue;
    found.stopped = true;
    s->passed = s->looked - length;
  }
  if (!found.stopped) s->passed = s->searched.bytes - (at_end ? 0 : undecided(s));
  found.bytes = s->given = shown_of(s, s->passed);
  return found;
}

void stops_free(stops *s) {
  bytes_free(&s->searched);
  bytes_free(&s->shown);
  free(s->parts);
  *s = (stops){0};
}
