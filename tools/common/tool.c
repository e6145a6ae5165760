#include "common/tool.h"
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *tool_name = "clmamba";

int tool_fail(const char *format, ...) {
  fflush(stdout);
  fprintf(stderr, "%s: ", tool_name);
  va_list args;
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  fputc('\n', stderr);
  return TOOL_FAILED;
}

static int show_version;
static struct poptOption common_options[] = {
    {"version", '\0', POPT_ARG_NONE, &show_version, 0, "print the version and leave", NULL},
    POPT_TABLEEND,
};

bool tool_parse(int argc, char **argv, const char *name, const struct poptOption *options, const char **positional,
                int *exit_status) {
  tool_name = name;
  signal(SIGXFSZ, SIG_IGN); /* a file that reaches the limit of `ulimit -f` is an error that can be reported */
  const struct poptOption table[] = {
      {NULL, '\0', POPT_ARG_INCLUDE_TABLE, (void *)(uintptr_t)options, 0, NULL, NULL},
      {NULL, '\0', POPT_ARG_INCLUDE_TABLE, common_options, 0, "Common:", NULL},
      POPT_AUTOHELP POPT_TABLEEND,
  };
  *exit_status = TOOL_USAGE;
  poptContext context = poptGetContext(name, argc, (const char **)argv, table, 0);
  if (positional) poptSetOtherOptionHelp(context, "[OPTION...] OPERATION");
  int rc = poptGetNextOpt(context);
  bool parsed = rc == -1;
  if (!parsed)
    tool_fail("%s: %s (see %s --help)", poptBadOption(context, POPT_BADOPTION_NOALIAS), poptStrerror(rc), name);
  if (parsed && positional) {
    const char *argument = poptGetArg(context);
    static char *kept; /* to the end of the program: poptFreeContext frees its own */
    free(kept);
    *positional = kept = argument ? strdup(argument) : NULL;
  }
  if (parsed && poptPeekArg(context)) {
    tool_fail("unexpected argument \"%s\" (see %s --help)", poptPeekArg(context), name);
    parsed = false;
  }
  if (parsed && show_version) {
    printf("%s %s\n", name, clm_version());
    *exit_status = TOOL_OK;
    parsed = false;
  }
  poptFreeContext(context);
  return parsed;
}

tool_device_choice tool_device = {.device = "auto"};
struct poptOption tool_device_options[] = {
    {"device", '\0', POPT_ARG_STRING | POPT_ARGFLAG_SHOW_DEFAULT, &tool_device.device, 0,
     "where to run: auto, cpu, opencl, or opencl:N as mamba-info lists them", "DEVICE"},
    {"threads", '\0', POPT_ARG_INT, &tool_device.threads, 0, "threads of the CPU backend (0: one per processor)",
     "N"},
    POPT_TABLEEND,
};

clm_context *tool_context(const clm_context_options *more) {
  clm_context_options options = more ? *more : (clm_context_options){0};
  char error[512] = "";
  options.device = tool_device.device;
  options.threads = tool_device.threads;
  options.error = error;
  options.error_size = sizeof error;
  clm_context *context = NULL;
  if (tool_device.threads < 0) {
    tool_fail("--threads is %d, at least 0 is expected", tool_device.threads);
    return NULL;
  }
  clm_status status = clm_context_create(&options, &context);
  if (status) tool_fail("%s", error[0] ? error : clm_status_string(status));
  return context;
}

double tool_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
