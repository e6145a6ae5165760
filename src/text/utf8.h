/* UTF-8, strictly: no overlong forms, no surrogates, nothing past U+10FFFF. */
#ifndef CLM_TEXT_UTF8_H
#define CLM_TEXT_UTF8_H

#include <stddef.h>
#include <stdint.h>

#define UTF8_MAX 4 /* bytes of one code point */

/* Bytes of the code point at the front of `text` (at least one byte long); 0 if it is not UTF-8. */
size_t utf8_decode(const char *text, size_t bytes, uint32_t *code);

/* Writes at most UTF8_MAX bytes; returns how many. */
size_t utf8_encode(uint32_t code, char *text);

#endif
