#include "common/interrupt.h"
#include <signal.h>
#include <stddef.h>

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
enum { SIGNALS = sizeof signals / sizeof *signals };

static volatile sig_atomic_t came, caught[SIGNALS];

static void note(int number) {
  (void)number;
  came = 1;
  for (int i = 0; i < SIGNALS; i++)
    if (caught[i]) signal(signals[i], SIG_DFL);
}

void interrupt_catch(void) {
  const struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART};
  for (int i = 0; i < SIGNALS; i++) {
    struct sigaction before;
    bool ignored = sigaction(signals[i], NULL, &before) == 0 && before.sa_handler == SIG_IGN;
    if (signals[i] == SIGHUP && ignored) continue; /* nohup */
    caught[i] = sigaction(signals[i], &action, NULL) == 0;
  }
}

bool interrupt_came(void) { return came; }
