#include "common/progress.h"
#include "common/tool.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BAR_WIDTH 24

progress progress_start(void) {
  struct winsize size = {0};
  progress p = {.terminal = isatty(STDERR_FILENO) == 1, .columns = 80};
  if (p.terminal && ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) p.columns = size.ws_col;
  return p;
}

void progress_bar(progress *p, double fraction, const char *text) {
  double now = tool_seconds();
  if (!p->terminal || (p->shown && now - p->last < 0.1)) return;
  if (!(fraction > 0)) fraction = 0;
  if (fraction > 1) fraction = 1;
  char bar[BAR_WIDTH + 1];
  int filled = (int)(fraction * BAR_WIDTH + 0.5);
  memset(bar, '.', BAR_WIDTH);
  memset(bar, '#', (size_t)filled);
  bar[BAR_WIDTH] = '\0';
  int room = p->columns - BAR_WIDTH - 10; /* "[bar] 100%  " and a column for the cursor */
  fprintf(stderr, "\r[%s] %3.0f%%  %.*s\033[K", bar, 100 * fraction, room > 0 ? room : 0, text);
  fflush(stderr);
  p->shown = true;
  p->last = now;
}

void progress_line(progress *p, const char *text) {
  progress_end(p);
  errno = 0;
  if (fprintf(stderr, "%s\n", text) < 0 && !p->error) p->error = errno;
}

bool progress_unread(int error) { return error == EBADF || error == EPIPE || error == EIO; }

void progress_end(progress *p) {
  if (p->shown) fputs("\r\033[K", stderr);
  p->shown = false;
}
