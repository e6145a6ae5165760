/* Manual pages, in the macros of man(7). */
#include "common/about.h"
#include <clmamba/context.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The day of the build, or of SOURCE_DATE_EPOCH for builds that must not depend on it. */
static void put_date(void) {
  const char *given = getenv("SOURCE_DATE_EPOCH");
  time_t when = given ? (time_t)strtoll(given, NULL, 10) : time(NULL);
  char text[32] = "1970-01-01";
  struct tm day;
  if (gmtime_r(&when, &day)) strftime(text, sizeof text, "%Y-%m-%d", &day);
  fputs(text, stdout);
}

enum { LINE = 64 }; /* characters; what is escaped takes more */

static void put_character(char c) {
  switch (c) {
  case '\\': fputs("\\e", stdout); break;
  case '-': fputs("\\-", stdout); break;
  case '"': fputs("\\(dq", stdout); break;
  default: putchar(c);
  }
}

/* Text with what roff would read as its own escaped, in lines of moderate length. `line`: it begins an input line. */
static void put(const char *text, bool line) {
  size_t column = 0;
  while (*text) {
    if (text[0] == '\n' && text[1] == '\n') {
      fputs("\n.PP\n", stdout);
      text += 2;
      column = 0, line = true;
      continue;
    }
    if (*text == ' ' && column + strcspn(text + 1, " \n") > LINE) {
      putchar('\n');
      text++;
      column = 0, line = true;
    }
    if (line && (*text == '.' || *text == '\'')) fputs("\\&", stdout);
    line = false;
    put_character(*text++);
    column++;
  }
}

static void put_upper(const char *text) {
  for (; *text; text++) putchar(toupper((unsigned char)*text));
}

static void put_heading(const char *title) {
  fputs(".SH ", stdout);
  put_upper(title);
  putchar('\n');
}

static void put_bold(const char *text) {
  fputs("\\fB", stdout);
  put(text, false);
  fputs("\\fR", stdout);
}

static void put_option(const struct poptOption *o, const char *shown_default) {
  const char letter[] = {'-', o->shortName, '\0'};
  puts(".TP");
  if (o->shortName) put_bold(letter);
  if (o->shortName && o->longName) fputs(", ", stdout);
  if (o->longName) {
    fputs("\\fB\\-\\-", stdout);
    put(o->longName, false);
    fputs("\\fR", stdout);
  }
  if (o->argDescrip) {
    fputs(o->longName ? "=\\fI" : " \\fI", stdout);
    put(o->argDescrip, false);
    fputs("\\fR", stdout);
  }
  putchar('\n');
  put(o->descrip ? o->descrip : "", true);
  if (*shown_default) {
    fputs(" (default: ", stdout);
    put(shown_default, false);
    putchar(')');
  }
  putchar('\n');
}

static void put_options(const tool_text *text) {
  const char *group = NULL;
  puts(".SH OPTIONS");
  for (size_t i = 0; i < text->options->count; i++) {
    const tool_option *o = &text->options->at[i];
    if (tool_option_hidden(o->entry)) continue;
    if (o->group && (!group || strcmp(o->group, group) != 0)) {
      group = o->group;
      printf(".SS %.*s\n", (int)strcspn(group, ":"), group);
    }
    put_option(o->entry, text->shown_default[i]);
  }
}

static void put_entry(const tool_entry *entry) {
  puts(".TP");
  put_bold(entry->name);
  putchar('\n');
  put(entry->text ? entry->text : "", true);
  putchar('\n');
}

static void put_list(const tool_list *list) {
  tool_entry entry;
  put_heading(list->title);
  if (list->option) {
    fputs("Values of \\fB\\-\\-", stdout);
    put(list->option, false);
    puts("\\fR:");
  }
  for (size_t i = 0; list->entry(i, &entry); i++) put_entry(&entry);
}

static void put_entries(const char *title, const tool_entry *entries) {
  put_heading(title);
  for (; entries->name; entries++) put_entry(entries);
}

void about_manual(const tool_about *about, const tool_text *text) {
  fputs(".TH ", stdout);
  put_upper(about->name);
  fputs(" 1 ", stdout);
  put_date();
  printf(" \"clmamba %s\" \"User Commands\"\n.SH NAME\n", clm_version());
  put(about->name, true);
  fputs(" \\- ", stdout);
  put(about->summary, false);
  fputs("\n.SH SYNOPSIS\n", stdout);
  put_bold(about->name);
  puts(" [\\fIOPTION\\fR...]");
  if (about->operand) printf("\\fI%s\\fR\n", about->operand);
  puts(".SH DESCRIPTION");
  put(about->description, true);
  putchar('\n');
  put_options(text);
  for (const tool_list *list = about->lists; list && list->title; list++) put_list(list);
  if (about->examples) put_entries("Examples", about->examples);
  put_entries("Exit status", about_statuses);
  puts(".SH SEE ALSO\n.BR clmamba (7)");
}
