/* How far the work is, on stderr: a bar on a terminal, plain lines on a dumb one, only the lines that the caller asks
 * for anywhere else. There is one stderr, so there is one progress: the functions share it. */
#ifndef CLM_TOOLS_PROGRESS_H
#define CLM_TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct progress {
  bool terminal; /* something is shown between the lines        */
  int error;     /* errno of what stderr did not take, 0: nothing */
} progress;

progress progress_start(void);

/* Begins a task that may take a while: after two seconds the terminal shows `text` and the time, whether or not
 * anything else is called. */
void progress_wait(progress *p, const char *text);

/* Redraws the bar, at most ten times a second: `fraction` in [0, 1]. Of a task of progress_wait nothing is shown in
 * its first two seconds. */
void progress_bar(progress *p, double fraction, const char *text);

/* Shows `text` in place of the task's own until the next call of the others: what it waits for. */
void progress_note(const char *text);

/* Prints a line that stays, above the bar if there is one; `p` may be NULL. */
void progress_line(progress *p, const char *text);

/* Whether an error of stdout or stderr only means that nobody reads it any more: it is closed, its reader or its
 * terminal has gone. Work goes on then; a disk that is full is another matter. */
bool progress_unread(int error);

/* Removes the bar until it is drawn again: something else is to be printed. */
void progress_erase(void);

/* Ends the task and removes the bar. */
void progress_end(progress *p);

#endif
