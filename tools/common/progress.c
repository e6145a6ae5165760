#include "common/progress.h"
#include "common/tool.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { WIDEST_BAR = 24, NARROWEST_BAR = 10, COLUMNS = 80 };
static const double quick_seconds = 2, redraw_seconds = 0.1, dumb_seconds = 10;
#define UNKNOWN (-1.0)

/* What is shown. The lock is held for everything: a thread redraws a task that calls nothing. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static struct {
  bool terminal, dumb;
  bool shown;       /* the bar is on the terminal                      */
  bool waiting;     /* a task of progress_wait is under way            */
  bool has_watcher; /* the thread that redraws it                      */
  pthread_t watcher;
  double begun, drawn;
  double fraction;
  char text[256], note[256];
} now;

progress progress_start(void) {
  const char *term = getenv("TERM");
  now.terminal = isatty(STDERR_FILENO) == 1;
  now.dumb = !term || !*term || strcmp(term, "dumb") == 0;
  return (progress){.terminal = now.terminal};
}

/* ---- Drawing ---- */

static int columns(void) {
  struct winsize size = {0};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : COLUMNS;
}

/* "[#####.....]  50%  text", cut to the terminal's width less a column for the cursor. */
static void bar_line(char *line, size_t size, const char *text, int room) {
  int width = room - 9 - (int)strlen(text);
  width = width > WIDEST_BAR ? WIDEST_BAR : width < NARROWEST_BAR ? NARROWEST_BAR : width;
  char bar[WIDEST_BAR + 1];
  int filled = (int)(now.fraction * width + 0.5);
  memset(bar, '.', (size_t)width);
  memset(bar, '#', (size_t)filled);
  bar[width] = '\0';
  snprintf(line, size, "[%s] %3.0f%%  %s", bar, 100 * now.fraction, text);
}

static void draw(double seconds) {
  char line[384];
  const char *text = now.note[0] ? now.note : now.text;
  int room = columns() - 1;
  if (now.fraction >= 0 && !now.dumb) bar_line(line, sizeof line, text, room);
  else if (now.fraction >= 0) snprintf(line, sizeof line, "%3.0f%%  %s", 100 * now.fraction, text);
  else snprintf(line, sizeof line, "%s  %.0f s", text, seconds - now.begun);
  if (now.dumb) fprintf(stderr, "%.*s\n", room, line);
  else fprintf(stderr, "\r%.*s\033[K", room, line);
  fflush(stderr);
  now.shown = !now.dumb;
  now.drawn = seconds;
}

/* Draws unless it is too early, or was done just now. */
static void draw_if_due(void) {
  double seconds = tool_seconds(), pause = now.dumb ? dumb_seconds : redraw_seconds;
  if (!now.terminal || (now.waiting && seconds - now.begun < quick_seconds) || seconds - now.drawn < pause) return;
  draw(seconds);
}

static void erase(void) {
  if (now.shown) fputs("\r\033[K", stderr);
  now.shown = false;
}

/* ---- The thread ---- */

static void *watch(void *unused) {
  pthread_mutex_lock(&lock);
  while (now.waiting) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 500000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&wake, &lock, &until);
    if (now.waiting) draw_if_due();
  }
  pthread_mutex_unlock(&lock);
  return unused;
}

/* Without a thread the task only shows what it says itself. Signals are the main thread's business. */
static void start_watcher(void) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  now.has_watcher = pthread_create(&now.watcher, NULL, watch, NULL) == 0;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* ---- The calls ---- */

static void set(double fraction, const char *text) {
  now.fraction = fraction;
  now.note[0] = '\0';
  snprintf(now.text, sizeof now.text, "%s", text);
}

void progress_wait(progress *p, const char *text) {
  if (!p->terminal) return;
  progress_end(p);
  set(UNKNOWN, text);
  now.begun = tool_seconds();
  now.drawn = 0;
  now.waiting = true;
  start_watcher();
}

void progress_bar(progress *p, double fraction, const char *text) {
  if (!p->terminal) return;
  pthread_mutex_lock(&lock);
  set(!(fraction > 0) ? 0 : fraction > 1 ? 1 : fraction, text);
  draw_if_due();
  pthread_mutex_unlock(&lock);
}

void progress_note(const char *text) {
  pthread_mutex_lock(&lock);
  snprintf(now.note, sizeof now.note, "%s", text);
  pthread_mutex_unlock(&lock);
}

void progress_line(progress *p, const char *text) {
  pthread_mutex_lock(&lock);
  erase();
  errno = 0;
  if (fprintf(stderr, "%s\n", text) < 0 && p && !p->error) p->error = errno;
  pthread_mutex_unlock(&lock);
}

bool progress_unread(int error) { return error == EBADF || error == EPIPE || error == EIO; }

void progress_erase(void) {
  pthread_mutex_lock(&lock);
  erase();
  pthread_mutex_unlock(&lock);
}

void progress_end(progress *p) {
  if (!p->terminal) return;
  pthread_mutex_lock(&lock);
  now.waiting = false;
  pthread_cond_signal(&wake);
  pthread_mutex_unlock(&lock);
  if (now.has_watcher) pthread_join(now.watcher, NULL);
  now.has_watcher = false;
  erase();
  fflush(stderr);
}
