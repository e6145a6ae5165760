#include "core/escape.h"
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

enum { PIECE = 16 }; /* maximum bytes of one character */

/* How one character, which begins at `text`, is written; the bytes that it has. */
static size_t escape_one(char piece[PIECE], const char *text, size_t left, bool lines) {
  utf8proc_int32_t code;
  const utf8proc_ssize_t length = utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)left, &code);
  if (length < 1) {
    snprintf(piece, PIECE, "\\x%02x", (unsigned)(unsigned char)*text);
    return 1;
  }
  const utf8proc_category_t category = utf8proc_category(code);
  const bool hidden = category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF ||
                      category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
  if (!hidden || (lines && (code == '\n' || code == '\t'))) snprintf(piece, PIECE, "%.*s", (int)length, text);
  else if (length == 1) snprintf(piece, PIECE, "\\x%02x", (unsigned)code);
  else snprintf(piece, PIECE, "\\u{%x}", (unsigned)code);
  return (size_t)length;
}

void escape_text(char *to, size_t size, const char *text, bool lines) {
  size_t used = 0;
  for (size_t left = strlen(text); left > 0;) {
    char piece[PIECE];
    const size_t bytes = escape_one(piece, text, left, lines), length = strlen(piece);
    if (used + length >= size) break;
    memcpy(to + used, piece, length);
    used += length;
    text += bytes;
    left -= bytes;
  }
  if (size) to[used] = '\0';
}
