#include "common/options.h"
#include "common/tool.h"
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_end(const struct poptOption *o) { return !o->longName && !o->shortName && !o->arg; }

static void add(tool_options *options, const struct poptOption *table, const char *group) {
  for (const struct poptOption *o = table; !is_end(o); o++) {
    if (tool_option_type(o) == POPT_ARG_INCLUDE_TABLE) add(options, o->arg, o->descrip ? o->descrip : group);
    else if (options->count < TOOL_MAX_OPTIONS) options->at[options->count++] = (tool_option){o, group, false};
  }
}

void tool_options_add(tool_options *options, const struct poptOption *table) { add(options, table, NULL); }

unsigned tool_option_type(const struct poptOption *o) { return o->argInfo & POPT_ARG_MASK; }

bool tool_option_hidden(const struct poptOption *o) { return o->argInfo & POPT_ARGFLAG_DOC_HIDDEN; }

const char *tool_option_name(const struct poptOption *o) {
  static char name[64];
  if (o->longName) snprintf(name, sizeof name, "--%s", o->longName);
  else snprintf(name, sizeof name, "-%c", o->shortName);
  return name;
}

void tool_option_default(const struct poptOption *o, char *text, size_t size) {
  text[0] = '\0';
  if (!(o->argInfo & POPT_ARGFLAG_SHOW_DEFAULT)) return;
  switch (tool_option_type(o)) {
  case POPT_ARG_INT: snprintf(text, size, "%d", *(const int *)o->arg); break;
  case POPT_ARG_LONGLONG: snprintf(text, size, "%lld", *(const long long *)o->arg); break;
  case POPT_ARG_DOUBLE: snprintf(text, size, "%g", *(const double *)o->arg); break;
  case POPT_ARG_STRING: {
    const char *value = *(char *const *)o->arg;
    if (value) snprintf(text, size, "%s", value);
    break;
  }
  default: break;
  }
}

/* ---- Numbers ---- */

bool tool_number(const char *option, const char *text, long long low, long long high, long long *value) {
  char *end;
  errno = 0;
  *value = strtoll(text, &end, 10);
  if (end == text || *end) return tool_fail("%s is \"%.60s\", expected a whole number", option, text), false;
  if (errno == ERANGE) return tool_fail("%s is %.60s, which is too large a number", option, text), false;
  if (*value < low || *value > high)
    return tool_fail("%s is %.60s, expected %lld to %lld", option, text, low, high), false;
  return true;
}

/* Tools set no locale, so that the decimal point is a point. */
static bool take_double(const char *option, const char *text, double *value) {
  char *end;
  *value = strtod(text, &end);
  if (end == text || *end) return tool_fail("%s is \"%.60s\", expected a number", option, text), false;
  if (!isfinite(*value)) return tool_fail("%s is %.60s, expected a finite number", option, text), false;
  return true;
}

/* ---- The command line ---- */

static bool take_string(tool_option *o, char *text) {
  char **to = o->entry->arg;
  if (o->given) free(*to); /* the default is not ours */
  *to = text;
  return true;
}

/* Stores `text`, which it owns, as the entry's type asks for. */
static bool take(tool_option *o, char *text) {
  const struct poptOption *e = o->entry;
  const char *name = tool_option_name(e);
  long long number;
  bool ok = true;
  switch (tool_option_type(e)) {
  case POPT_ARG_NONE: *(int *)e->arg = 1; break;
  case POPT_ARG_STRING: ok = take_string(o, text), text = NULL; break;
  case POPT_ARG_ARGV:
    ok = poptSaveString(e->arg, POPT_ARG_ARGV, text) == 0 || (tool_fail("out of memory"), false);
    break;
  case POPT_ARG_INT:
    ok = tool_number(name, text, INT_MIN, INT_MAX, &number);
    if (ok) *(int *)e->arg = (int)number;
    break;
  case POPT_ARG_LONGLONG: ok = tool_number(name, text, LLONG_MIN, LLONG_MAX, e->arg); break;
  case POPT_ARG_DOUBLE: ok = take_double(name, text, e->arg); break;
  default: ok = (tool_fail("%s has a type that is not known", name), false);
  }
  free(text);
  o->given = ok;
  return ok;
}

/* popt splits the command line; what it would store it hands out as text, entry by entry (`val`). */
static void make_table(const tool_options *options, struct poptOption *table) {
  for (size_t i = 0; i < options->count; i++) {
    table[i] = *options->at[i].entry;
    table[i].argInfo = tool_option_type(&table[i]) == POPT_ARG_NONE ? POPT_ARG_NONE : POPT_ARG_STRING;
    table[i].arg = NULL;
    table[i].val = (int)i + 1;
  }
  table[options->count] = (struct poptOption)POPT_TABLEEND;
}

static bool take_all(tool_options *options, const char *name, poptContext context, const char **operand) {
  int rc;
  while ((rc = poptGetNextOpt(context)) > 0)
    if (!take(&options->at[rc - 1], poptGetOptArg(context))) return false;
  if (rc < -1)
    return tool_fail("%s: %s (see %s --help)", poptBadOption(context, POPT_BADOPTION_NOALIAS), poptStrerror(rc),
                     name),
           false;
  const char *argument = operand ? poptGetArg(context) : NULL;
  static char *kept; /* poptFreeContext frees its own */
  free(kept);
  kept = argument ? strdup(argument) : NULL;
  if (operand) *operand = kept;
  if (argument && !kept) return tool_fail("out of memory"), false;
  const char *stray = poptPeekArg(context);
  return !stray || (tool_fail("unexpected argument \"%s\" (see %s --help)", stray, name), false);
}

bool tool_options_parse(tool_options *options, const char *name, int argc, char **argv, const char **operand) {
  struct poptOption table[TOOL_MAX_OPTIONS + 1];
  make_table(options, table);
  poptContext context = poptGetContext(name, argc, (const char **)argv, table, 0);
  if (!context) return tool_fail("out of memory"), false;
  bool ok = take_all(options, name, context, operand);
  poptFreeContext(context);
  return ok;
}
