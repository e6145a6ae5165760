/* Ctrl-C and its like: the first asks the work to end, a second one ends the program at once. */
#ifndef CLM_TOOLS_INTERRUPT_H
#define CLM_TOOLS_INTERRUPT_H

#include <stdbool.h>

/* From now on SIGINT, SIGTERM and SIGHUP are noted. */
void interrupt_catch(void);

bool interrupt_came(void);

#endif
