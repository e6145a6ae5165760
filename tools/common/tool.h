/* What every tool shares: its name in error sentences, its options, the device it runs on. */
#ifndef CLM_TOOLS_TOOL_H
#define CLM_TOOLS_TOOL_H

#include <clmamba/context.h>
#include <popt.h>

enum { TOOL_OK = 0, TOOL_FAILED = 1, TOOL_USAGE = 2 }; /* exit statuses */

/* "NAME: sentence" on stderr; returns TOOL_FAILED, so that `return tool_fail(...)` ends main. */
int tool_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Parses the command line. True: go on. False: leave with *exit_status (an unknown option or a stray argument has got
 * its sentence; --help and --version have been served). Table entries store into their variables; val must be 0.
 * `positional`: NULL if none is accepted, else receives the only one (NULL if absent). */
bool tool_parse(int argc, char **argv, const char *name, const struct poptOption *options, const char **positional,
                int *exit_status);

/* --device and --threads: `{NULL, '\0', POPT_ARG_INCLUDE_TABLE, tool_device_options, 0, "Device:", NULL}`. */
typedef struct tool_device_choice {
  const char *device; /* what clm_context_options.device takes */
  int threads;
} tool_device_choice;
extern tool_device_choice tool_device;
extern struct poptOption tool_device_options[];

/* The context that --device and --threads ask for; on failure the sentence is on stderr and NULL is returned. */
clm_context *tool_context(const clm_context_options *more);

double tool_seconds(void); /* monotonic */

#endif
