#include "core/context.h"
#include <stdarg.h>
#include <stdio.h>

clm_status context_fail(clm_context *context, clm_status status, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(context->error, sizeof context->error, format, args);
  va_end(args);
  return status;
}

void context_log(clm_context *context, clm_log_level level, const char *format, ...) {
  char message[4096];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  if (context->log) context->log(context->log_user, level, message);
  else if (level <= CLM_LOG_WARNING) fprintf(stderr, "clmamba: %s\n", message);
}

void context_explain(clm_context *context, const char *format, ...) {
  if (context->batching) return;
  va_list args;
  va_start(args, format);
  vsnprintf(context->explain, sizeof context->explain, format, args);
  va_end(args);
}
