/* A task that says nothing for a while, a bar, a line: what tests/tools/progress.sh looks at on terminals. */
#include "common/progress.h"
#include <time.h>

static void rest(double seconds) {
  nanosleep(&(struct timespec){(time_t)seconds, (long)(1e9 * (seconds - (double)(time_t)seconds))}, NULL);
}

int main(void) {
  static const char *const text =
      "compiling the kernels of a model whose name is longer than any terminal is wide, and more";
  progress p = progress_start();
  progress_wait(&p, "quick");
  rest(0.2);
  progress_end(&p);
  progress_wait(&p, text);
  rest(3);
  progress_note("a note");
  rest(1);
  progress_line(&p, "a line that stays");
  progress_bar(&p, 0.5, "half");
  rest(0.3);
  progress_bar(&p, 0.75, text);
  progress_end(&p);
  return 0;
}
