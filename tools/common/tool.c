#include "common/tool.h"
#include "common/progress.h"
#include "core/clock.h"
#include "core/escape.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *tool_name = "clmamba";

int tool_fail(const char *format, ...) {
  char message[1024], escaped[2048]; /* it may quote what the caller typed, or a file */
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  escape_text(escaped, sizeof escaped, message, false);
  progress_erase();
  fflush(stdout);
  fprintf(stderr, "%s: %s\n", tool_name, escaped);
  return TOOL_FAILED;
}

static struct { int help, version, manual, completion; } show;
static const struct poptOption common_options[] = {
    {"help", 'h', POPT_ARG_NONE, &show.help, 0, "print this help and exit", NULL},
    {"version", '\0', POPT_ARG_NONE, &show.version, 0, "print the version and exit", NULL},
    {"print-man", '\0', POPT_ARG_NONE | POPT_ARGFLAG_DOC_HIDDEN, &show.manual, 0, "print the manual page", NULL},
    {"print-completion", '\0', POPT_ARG_NONE | POPT_ARGFLAG_DOC_HIDDEN, &show.completion, 0,
     "print the completion for bash", NULL},
    POPT_TABLEEND,
};
static const struct poptOption common_group[] = {
    {NULL, '\0', POPT_ARG_INCLUDE_TABLE, (void *)(uintptr_t)common_options, 0, "Common:", NULL},
    POPT_TABLEEND,
};

tool_device_choice tool_device = {.device = "auto"};
struct poptOption tool_device_options[] = {
    {"device", '\0', POPT_ARG_STRING | POPT_ARGFLAG_SHOW_DEFAULT, &tool_device.device, 0,
     "where to run; opencl:N as mamba-info lists them", "auto|cpu|opencl|opencl:N"},
    {"threads", '\0', POPT_ARG_INT, &tool_device.threads, 0, "threads of the CPU backend (0: one per processor)",
     "N"},
    POPT_TABLEEND,
};

static tool_options parsed;

/* True if the command line asked for a text about the tool instead of its work. */
static bool show_text(const tool_about *about, const tool_text *text) {
  if (show.help) about_help(about, text, about_columns());
  else if (show.version) printf("%s %s\n", about->name, clm_version());
  else if (show.manual) about_manual(about, text);
  else if (show.completion) about_completion(about, text);
  else return false;
  return true;
}

/* A standard stream that is closed would be given to the next file that is opened, and written into. */
static void occupy_closed_streams(void) {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
    if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) return;
}

bool tool_parse(int argc, char **argv, const tool_about *about, const char **operand, int *exit_status) {
  static tool_text text;
  tool_name = about->name;
  occupy_closed_streams();
  signal(SIGXFSZ, SIG_IGN); /* a file that reaches the limit of `ulimit -f` is an error that can be reported */
  *exit_status = TOOL_USAGE;
  tool_options_add(&parsed, about->options);
  tool_options_add(&parsed, common_group);
  about_text(&text, &parsed); /* before anything is parsed: it has the defaults */
  if (!tool_options_parse(&parsed, about->name, argc, argv, about->operand ? operand : NULL)) return false;
  if (tool_device.threads < 0) return tool_fail("--threads is %d, expected 0 or more", tool_device.threads), false;
  if (!show_text(about, &text)) return true;
  *exit_status =
      fflush(stdout) == 0 ? TOOL_OK : tool_fail("cannot write to the standard output: %s", strerror(errno));
  return false;
}

bool tool_given(const void *variable) {
  for (size_t i = 0; i < parsed.count; i++)
    if (parsed.at[i].entry->arg == variable && parsed.at[i].given) return true;
  return false;
}

/* Warnings as the library prints them; what it is about to do for the terminal's progress. */
static void log_message(void *user, clm_log_level level, const char *message) {
  (void)user;
  if (level == CLM_LOG_INFO) progress_note(message);
  if (level > CLM_LOG_WARNING) return;
  char line[4200];
  snprintf(line, sizeof line, "clmamba: %s", message);
  progress_line(NULL, line);
}

clm_context *tool_context(const clm_context_options *more) {
  clm_context_options options = more ? *more : (clm_context_options){0};
  char error[512] = "";
  options.device = tool_device.device;
  options.threads = tool_device.threads;
  options.error = error;
  options.error_size = sizeof error;
  options.log = log_message;
  clm_context *context = NULL;
  progress bar = progress_start();
  progress_wait(&bar, "opening the device");
  clm_status status = clm_context_create(&options, &context);
  progress_end(&bar);
  if (status) tool_fail("%s", error[0] ? error : clm_status_string(status));
  return context;
}

void tool_date(char date[11]) {
  time_t now = time(NULL);
  struct tm day;
  if (!localtime_r(&now, &day) || strftime(date, 11, "%Y-%m-%d", &day) != 10) strcpy(date, "no date");
}

double tool_seconds(void) { return clock_seconds(); }
