/* Completion for bash: options, the words that an option takes, files and folders. */
#include "common/about.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* "mamba_train" */
static void put_identifier(const char *name) {
  for (; *name; name++) putchar(isalnum((unsigned char)*name) ? *name : '_');
}

/* The words of "f32|f16|TYPE": those in lower case. */
static size_t put_words(const char *argument) {
  size_t words = 0;
  for (const char *at = argument; *at;) {
    size_t length = strcspn(at, "|");
    bool literal = length > 0 && (islower((unsigned char)*at) || *at == '-');
    for (size_t i = 0; i < length; i++) literal = literal && !isupper((unsigned char)at[i]);
    if (literal) printf("%s%.*s", words++ ? " " : "", (int)length, at);
    at += length + (at[length] == '|');
  }
  return words;
}

static void put_list_words(const tool_list *list) {
  tool_entry entry;
  for (size_t i = 0; list->entry(i, &entry); i++) printf("%s%s", i ? " " : "", entry.name);
}

static bool has_list(const tool_about *about, const char *option) {
  for (const tool_list *list = about->lists; list && list->title; list++)
    if (option ? list->option && strcmp(list->option, option) == 0 : !list->option) return true;
  return false;
}

/* The words of every list of an option, or with NULL of the operand. */
static void put_lists(const tool_about *about, const char *option) {
  const char *between = "";
  for (const tool_list *list = about->lists; list && list->title; list++) {
    if (option ? !list->option || strcmp(list->option, option) != 0 : list->option != NULL) continue;
    fputs(between, stdout);
    put_list_words(list);
    between = " ";
  }
}

static bool takes_literals(const char *argument) {
  return strchr(argument, '|') && islower((unsigned char)*argument);
}

static bool takes_files(const char *argument) {
  static const char *const endings[] = {"FILE", "FILE|-", ".npy", ".svg", "MODEL", "OUT", "CSV"};
  size_t length = strlen(argument);
  for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
    size_t tail = strlen(endings[i]);
    if (length >= tail && strcmp(argument + length - tail, endings[i]) == 0) return true;
  }
  return false;
}

/* What may follow an option, as a branch of a `case`. */
static void put_case(const tool_about *about, const struct poptOption *o) {
  if (tool_option_hidden(o) || !o->argDescrip) return;
  fputs("    ", stdout);
  if (o->longName) printf("--%s", o->longName);
  if (o->longName && o->shortName) putchar('|');
  if (o->shortName) printf("-%c", o->shortName);
  fputs(") ", stdout);
  if (o->longName && has_list(about, o->longName)) {
    fputs("words='", stdout);
    put_lists(about, o->longName);
    puts("' ;;");
  } else if (takes_literals(o->argDescrip)) {
    fputs("words='", stdout);
    put_words(o->argDescrip);
    puts("' ;;");
  } else if (strcmp(o->argDescrip, "DIR") == 0) {
    puts("kind=-d ;;");
  } else {
    puts(takes_files(o->argDescrip) ? "kind=-f ;;" : "return ;;");
  }
}

static void put_options(const tool_text *text) {
  fputs("      words='", stdout);
  for (size_t i = 0; i < text->options->count; i++) {
    const struct poptOption *o = text->options->at[i].entry;
    if (!tool_option_hidden(o)) printf("%s%s", i ? " " : "", tool_option_name(o));
  }
  puts("'");
}

void about_completion(const tool_about *about, const tool_text *text) {
  printf("# bash completion for %s\n_", about->name);
  put_identifier(about->name);
  puts("() {\n"
       "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words='' kind=''\n"
       "  COMPREPLY=()\n"
       "  # bash takes --option=value apart at the sign\n"
       "  if [[ $cur == = ]]; then cur=''\n"
       "  elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi\n"
       "  case $prev in");
  for (size_t i = 0; i < text->options->count; i++) put_case(about, text->options->at[i].entry);
  puts("    *) if [[ $cur == -* ]]; then");
  put_options(text);
  fputs("    else\n      words='", stdout);
  put_lists(about, NULL);
  puts("'\n"
       "    fi ;;\n"
       "  esac\n"
       "  if [[ $kind ]]; then\n"
       "    compopt -o filenames\n"
       "    mapfile -t COMPREPLY < <(compgen \"$kind\" -- \"$cur\")\n"
       "  elif [[ $words ]]; then\n"
       "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
       "  fi\n"
       "}");
  fputs("complete -F _", stdout);
  put_identifier(about->name);
  printf(" %s\n", about->name);
}
