/* A progress bar on a terminal, plain lines anywhere else. */
#ifndef CLM_TOOLS_PROGRESS_H
#define CLM_TOOLS_PROGRESS_H

#include <stdbool.h>

typedef struct progress {
  bool terminal, shown;
  int columns;
  double last; /* when the bar was drawn, tool_seconds() */
  int error;   /* errno of what stderr did not take, 0: nothing */
} progress;

progress progress_start(void);

/* Redraws the bar (at most ten times a second; nothing if stderr is not a terminal): `fraction` in [0, 1]. */
void progress_bar(progress *p, double fraction, const char *text);

/* Prints a line that stays, above the bar if there is one. */
void progress_line(progress *p, const char *text);

/* Whether an error of stdout or stderr only means that nobody reads it any more: it is closed, its reader or its
 * terminal has gone. Work goes on then; a disk that is full is another matter. */
bool progress_unread(int error);

/* Removes the bar. */
void progress_end(progress *p);

#endif
