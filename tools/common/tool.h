/* What every tool shares: its name in messages, its command line, the device it runs on. */
#ifndef CLM_TOOLS_TOOL_H
#define CLM_TOOLS_TOOL_H

#include "common/about.h"
#include "common/options.h"
#include <clmamba/context.h>

/* Exit statuses. "common/about.c" documents them for --help and the manual. */
enum { TOOL_OK = 0, TOOL_FAILED = 1, TOOL_USAGE = 2 };

/* "NAME: message" on stderr; returns TOOL_FAILED, so that `return tool_fail(...)` ends main. */
int tool_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Parses the command line. True: go on. False: exit with *exit_status (the message of a wrong command line has been
 * printed; --help, --version and the like have been served). Entries of about->options store into their variables;
 * they must have no `val`. `operand`: NULL if about has none, else receives it (NULL if absent). */
bool tool_parse(int argc, char **argv, const tool_about *about, const char **operand, int *exit_status);

/* Whether an option that stores into `variable` was on the command line: its default and a value equal to it differ.
 */
bool tool_given(const void *variable);

/* --device and --threads: `{NULL, '\0', POPT_ARG_INCLUDE_TABLE, tool_device_options, 0, "Device:", NULL}`. */
typedef struct tool_device_choice {
  const char *device; /* what clm_context_options.device takes */
  int threads;
} tool_device_choice;
extern tool_device_choice tool_device;
extern struct poptOption tool_device_options[];

/* The context that --device and --threads ask for; on failure the message is on stderr and NULL is returned. */
clm_context *tool_context(const clm_context_options *more);

double tool_seconds(void); /* monotonic */

void tool_date(char date[11]); /* today, as 2026-11-27 */

#endif
