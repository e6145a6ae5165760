/* UTF-8, strictly: no overlong forms, no surrogates, nothing past U+10FFFF. */
#ifndef CLM_TEXT_UTF8_H
#define CLM_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_MAX         4              /* bytes of one code point */
#define UTF8_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD                  */

/* Bytes of the code point at the front of `text` (at least one byte long); 0 if it is not UTF-8. */
size_t utf8_decode(const char *text, size_t bytes, uint32_t *code);

/* Writes up to UTF8_MAX bytes; returns how many. */
size_t utf8_encode(uint32_t code, char *text);

/* Bytes at the front of `text` (at least one) that one U+FFFD stands for where utf8_decode gives 0: the longest part
 * that could begin a code point, or one byte (Unicode, table 3-8; so do Python and Rust). *open: it ends the text,
 * and more bytes could make it a code point. */
size_t utf8_ill_formed(const char *text, size_t bytes, bool *open);

/* Bytes at the front of `text` that are UTF-8. */
size_t utf8_valid(const char *text, size_t bytes);

#endif
