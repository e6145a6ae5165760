/* The options of a tool: its popt table as a flat list, which --help, the manual page, the completion and the parser
 * walk; numbers on the command line. Messages go to stderr. */
#ifndef CLM_TOOLS_OPTIONS_H
#define CLM_TOOLS_OPTIONS_H

#include <popt.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct tool_option {
  const struct poptOption *entry;
  const char *group; /* heading of the included table it comes from; NULL: the tool's own */
  bool given;        /* on this command line */
} tool_option;

enum { TOOL_MAX_OPTIONS = 128 };

typedef struct tool_options {
  tool_option at[TOOL_MAX_OPTIONS];
  size_t count;
} tool_options;

/* Appends the entries of a table and of the tables that it includes. */
void tool_options_add(tool_options *options, const struct poptOption *table);

/* POPT_ARG_NONE, POPT_ARG_STRING, ... without the flags. */
unsigned tool_option_type(const struct poptOption *entry);

/* Hidden options are parsed, but not documented. */
bool tool_option_hidden(const struct poptOption *entry);

/* "--top-k", or "-n" where there is no long form; in static memory that the next call reuses. */
const char *tool_option_name(const struct poptOption *entry);

/* The default that the table asks to be shown, "" if there is none; call it before anything is parsed. */
void tool_option_default(const struct poptOption *entry, char *text, size_t size);

/* Parses the command line into the variables of the table. True: every option is stored and *operand, where it is not
 * NULL, is the argument that is no option (or NULL). A string stays valid to the end of the program. */
bool tool_options_parse(tool_options *options, const char *name, int argc, char **argv, const char **operand);

/* A whole number; false after a message that names the option. */
bool tool_number(const char *option, const char *text, long long low, long long high, long long *value);

#endif
