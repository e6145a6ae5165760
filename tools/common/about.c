#include "common/about.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { COLUMNS = 80, MIN_COLUMNS = 40, MAX_COLUMNS = 120, TEXT_COLUMN = 28 };

const tool_entry about_statuses[] = {
    {"0", "success; also where an interrupt ended the work early and what was done so far has been kept"},
    {"1", "failure: a file, device, model or check, or an interrupt that left nothing to keep"},
    {"2", "wrong command line"},
    {NULL, NULL},
};

void about_text(tool_text *text, const tool_options *options) {
  text->options = options;
  for (size_t i = 0; i < options->count; i++)
    tool_option_default(options->at[i].entry, text->shown_default[i], sizeof text->shown_default[i]);
}

int about_columns(void) {
  const char *given = getenv("COLUMNS");
  long columns = given ? strtol(given, NULL, 10) : 0;
  struct winsize size = {0};
  if (columns <= 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) columns = size.ws_col;
  if (columns <= 0) columns = COLUMNS;
  return columns < MIN_COLUMNS ? MIN_COLUMNS : columns > MAX_COLUMNS ? MAX_COLUMNS : (int)columns;
}

/* ---- Text in columns ---- */

typedef struct writer {
  int columns, indent, at; /* `at`: characters on the line so far */
} writer;

static void new_line(writer *w) {
  putchar('\n');
  w->at = 0;
}

static void pad_to(writer *w, int column) {
  for (; w->at < column; w->at++) putchar(' ');
}

static void put(writer *w, const char *text, int length) {
  printf("%.*s", length, text);
  w->at += length;
}

/* One word, on the next line where it does not fit on this one; in pieces where it fits on none. */
static void put_word(writer *w, const char *word, int length) {
  bool first = w->at <= w->indent;
  if (!first && w->at + 1 + length > w->columns) new_line(w), first = true;
  if (first) pad_to(w, w->indent);
  else put(w, " ", 1);
  for (int room; length > (room = w->columns - w->at); word += room, length -= room) {
    put(w, word, room);
    new_line(w);
    pad_to(w, w->indent);
  }
  put(w, word, length);
}

/* Paragraphs, filled; "\n\n" begins a new one. */
static void put_text(writer *w, const char *text) {
  while (*text) {
    int blanks = (int)strspn(text, " \n"), length;
    if (blanks >= 2 && memchr(text, '\n', 2) && text[1] == '\n') new_line(w), new_line(w);
    text += blanks;
    length = (int)strcspn(text, " \n");
    if (length) put_word(w, text, length);
    text += length;
  }
}

/* "name", and its text in a column of its own. */
static void put_entry(int columns, const char *name, const char *text) {
  writer w = {.columns = columns, .indent = 2};
  bool narrow = columns < 2 * TEXT_COLUMN;
  int indent = narrow ? 8 : TEXT_COLUMN;
  put_word(&w, name, (int)strlen(name));
  if (text && *text) {
    if (narrow || w.at + 2 > indent) new_line(&w);
    else pad_to(&w, indent);
    w.indent = indent;
    put_text(&w, text);
  }
  new_line(&w);
}

/* ---- --help ---- */

static void option_name(const struct poptOption *o, char *text, size_t size) {
  char letter[8] = "    ";
  if (o->shortName) snprintf(letter, sizeof letter, "-%c%s", o->shortName, o->longName ? ", " : "");
  snprintf(text, size, "%s%s%s%s%s", letter, o->longName ? "--" : "", o->longName ? o->longName : "",
           !o->argDescrip ? ""
           : o->longName  ? "="
                          : " ",
           o->argDescrip ? o->argDescrip : "");
}

static void option_text(const struct poptOption *o, const char *shown_default, char *text, size_t size) {
  snprintf(text, size, "%s%s%s%s", o->descrip ? o->descrip : "", *shown_default ? " (default: " : "", shown_default,
           *shown_default ? ")" : "");
}

static void put_options(const tool_text *text, int columns) {
  const char *group = "Options:";
  printf("\n%s\n", group);
  for (size_t i = 0; i < text->options->count; i++) {
    const tool_option *o = &text->options->at[i];
    char name[128], words[512];
    if (tool_option_hidden(o->entry)) continue;
    if (o->group && strcmp(o->group, group) != 0) printf("\n%s\n", group = o->group);
    option_name(o->entry, name, sizeof name);
    option_text(o->entry, text->shown_default[i], words, sizeof words);
    put_entry(columns, name, words);
  }
}

void about_list(const tool_list *list, int columns) {
  tool_entry entry;
  printf("%s%s%s%s:\n", list->title, list->option ? " (--" : "", list->option ? list->option : "",
         list->option ? ")" : "");
  for (size_t i = 0; list->entry(i, &entry); i++) put_entry(columns, entry.name, entry.text);
}

static void put_entries(const char *title, const tool_entry *entries, int columns) {
  printf("\n%s:\n", title);
  for (; entries->name; entries++) put_entry(columns, entries->name, entries->text);
}

void about_help(const tool_about *about, const tool_text *text, int columns) {
  writer w = {.columns = columns};
  printf("Usage: %s [OPTION...]%s%s\n\n", about->name, about->operand ? " " : "",
         about->operand ? about->operand : "");
  put_text(&w, about->description);
  new_line(&w);
  put_options(text, columns);
  for (const tool_list *list = about->lists; list && list->title; list++) {
    putchar('\n');
    about_list(list, columns);
  }
  if (about->examples) put_entries("Examples", about->examples, columns);
  put_entries("Exit status", about_statuses, columns);
}
