/* The printable characters that byte-level BPE writes for bytes (GPT-2's table): a byte stands for itself where it is
 * a visible character of Latin-1, else for the next code point from U+0100 on. */
#ifndef CLM_TEXT_BYTE_LEVEL_H
#define CLM_TEXT_BYTE_LEVEL_H

#include "text/bytes.h"

#define BYTE_LEVEL_END 0x144u /* one past the largest stand-in */

/* The stand-in of a byte. */
uint32_t byte_level_code(unsigned byte);

/* The byte of a stand-in; -1 for any other code point. */
int byte_level_byte(uint32_t code);

/* Appends the stand-ins of all bytes of `text`. */
bool byte_level_append(byte_buffer *buffer, byte_string text);

/* Appends the bytes that stand-ins stand for, or the whole text as it is where one of its characters is none. */
bool byte_level_append_bytes(byte_buffer *buffer, byte_string text);

#endif
