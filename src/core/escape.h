/* Messages quote files and arguments, which may hold anything: a message moves no cursor, forges no line and reverses
 * no text. */
#ifndef CLM_CORE_ESCAPE_H
#define CLM_CORE_ESCAPE_H

#include <stdbool.h>
#include <stddef.h>

/* Copies `text`, as much as fits, with control characters and bytes that are not UTF-8 as \xNN, and with characters
 * that only control how others are shown (Unicode categories Cc, Cf, Zl and Zp) as \u{N}. A backslash stays: what is
 * escaped already is left as it is. `lines`: newlines and tabs stay too. */
void escape_text(char *to, size_t size, const char *text, bool lines);

#endif
