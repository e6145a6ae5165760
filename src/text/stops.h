/* Stop strings in a text that comes piece by piece. */
#ifndef CLM_TEXT_STOPS_H
#define CLM_TEXT_STOPS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct stops {
  const char *const *strings; /* none of them empty */
  size_t count;
  char *text; /* [0, shown) has been let through, [shown, looked) is held back, the rest is new */
  size_t shown, looked, bytes, capacity;
} stops;

/* Adds text; false: out of memory. */
bool stops_add(stops *s, const char *text, size_t bytes);

typedef struct stops_found {
  const char *text; /* let through; valid until more is added */
  size_t bytes;
  bool stopped; /* a stop string is complete: the text ends before it */
} stops_found;

/* What may become a stop string is held back until it is decided, or the text is at its end. Of several strings the
 * one that is complete first counts, of those complete at once the longest: where pieces begin and end makes no
 * difference. */
stops_found stops_look(stops *s, bool at_end);

void stops_free(stops *s);

#endif
