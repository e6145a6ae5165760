/* What a tool says of itself: --help, its manual page and its completion for bash, all from its table of options. */
#ifndef CLM_TOOLS_ABOUT_H
#define CLM_TOOLS_ABOUT_H

#include "common/options.h"

typedef struct tool_entry {
  const char *name, *text; /* NULL: no text */
} tool_entry;

/* What an option or the operand can name: operations, presets, models. */
typedef struct tool_list {
  const char *title;                          /* "Operations"                                               */
  const char *option;                         /* the option that takes them, "preset"; NULL: the operand    */
  bool (*entry)(size_t i, tool_entry *entry); /* false after the last; texts last until the next call       */
} tool_list;

typedef struct tool_about {
  const char *name;                 /* "mamba-train"                                                        */
  const char *summary;              /* what it does, in one line without a period                           */
  const char *description;          /* paragraphs, with an empty line between them                          */
  const char *operand;              /* "OPERATION"; NULL: only options                                      */
  const struct poptOption *options; /* an argument "a|b|C" takes the words a and b, or any C                */
  const tool_list *lists;           /* ended by one without title; NULL: none                               */
  const tool_entry *examples;       /* commands and what they do; ended by one without name                 */
} tool_about;

/* The options with their texts, defaults included. */
typedef struct tool_text {
  const tool_options *options;
  char shown_default[TOOL_MAX_OPTIONS][64];
} tool_text;

void about_text(tool_text *text, const tool_options *options);

/* Columns of the terminal: COLUMNS, else what the terminal says, else 80. */
int about_columns(void);

void about_help(const tool_about *about, const tool_text *text, int columns);
void about_manual(const tool_about *about, const tool_text *text);
void about_completion(const tool_about *about, const tool_text *text);

/* Prints one list, as --help has it. */
void about_list(const tool_list *list, int columns);

/* Exit statuses, the same for every tool; ended by an entry without name. */
extern const tool_entry about_statuses[];

#endif
