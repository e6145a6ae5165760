#include "core/context.h"
#include "core/escape.h"
#include <stdarg.h>
#include <stdio.h>

clm_status context_fail(clm_context *context, clm_status status, const char *format, ...) {
  char message[2 * sizeof context->error];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  escape_text(context->error, sizeof context->error, message, false);
  return status;
}

static void deliver(clm_context *context, clm_log_level level, const char *message) {
  if (context->log) context->log(context->log_user, level, message);
  else if (level <= CLM_LOG_WARNING) fprintf(stderr, "clmamba: %s\n", message);
}

void context_log(clm_context *context, clm_log_level level, const char *format, ...) {
  char message[2048], escaped[4096];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  escape_text(escaped, sizeof escaped, message, false);
  deliver(context, level, escaped);
}

void context_log_lines(clm_context *context, clm_log_level level, const char *title, const char *lines) {
  char message[4096], escaped[4096];
  snprintf(message, sizeof message, "%s: %s", title, lines);
  escape_text(escaped, sizeof escaped, message, true);
  deliver(context, level, escaped);
}

void context_explain(clm_context *context, const char *format, ...) {
  if (context->plan) return;
  va_list args;
  va_start(args, format);
  vsnprintf(context->explain, sizeof context->explain, format, args);
  va_end(args);
}
