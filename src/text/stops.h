/* Stop strings in a text that comes piece by piece. What is searched and what is shown of it may differ: special
 * tokens are searched, but not shown. */
#ifndef CLM_TEXT_STOPS_H
#define CLM_TEXT_STOPS_H

#include "text/bytes.h"

/* Bytes of both texts that came together. Alike: they are the same, byte for byte. */
typedef struct stops_part {
  size_t searched, shown;
  bool alike;
} stops_part;

typedef struct stops {
  const char *const *strings; /* none of them empty */
  size_t count;
  byte_buffer searched; /* [0, passed) has been let through, [passed, looked) is held back, the rest is new */
  byte_buffer shown;    /* [0, given) has been let through                                                  */
  stops_part *parts;    /* of both, in order */
  size_t part_count, part_capacity;
  size_t passed, looked, given;
} stops;

/* Adds text to both; false: out of memory. */
bool stops_add(stops *s, byte_string searched, byte_string shown);

typedef struct stops_found {
  const char *text; /* let through, as it is shown; valid until more is added */
  size_t bytes;
  bool stopped; /* a stop string is complete: the text ends before it */
} stops_found;

/* What may become a stop string is held back until it is decided, or the text is at its end. Of several strings the
 * one that is complete first counts, of those complete at once the longest: where pieces begin and end makes no
 * difference. */
stops_found stops_look(stops *s, bool at_end);

void stops_free(stops *s);

#endif
