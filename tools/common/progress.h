/* A progress bar on a terminal, plain lines anywhere else. */
#ifndef CLM_TOOLS_PROGRESS_H
#define CLM_TOOLS_PROGRESS_H

#include <stdbool.h>

typedef struct progress {
  bool terminal, shown;
  int columns;
  double last; /* when the bar was drawn, tool_seconds() */
} progress;

progress progress_start(void);

/* Redraws the bar (at most ten times a second; nothing if stderr is not a terminal): `fraction` in [0, 1]. */
void progress_bar(progress *p, double fraction, const char *text);

/* Prints a line that stays, above the bar if there is one. */
void progress_line(progress *p, const char *text);

/* Removes the bar. */
void progress_end(progress *p);

#endif
