#include "text/byte_level.h"
#include "text/utf8.h"

static bool visible(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/* The bytes that are not visible, in order: 00 to 20, 7f to a0, ad. */
uint32_t byte_level_code(unsigned byte) {
  if (visible(byte)) return byte;
  return 0x100 + (byte <= 0x20 ? byte : byte <= 0xa0 ? byte - 0x7f + 0x21 : 0x43);
}

int byte_level_byte(uint32_t code) {
  if (code < 0x100) return visible(code) ? (int)code : -1;
  if (code >= BYTE_LEVEL_END) return -1;
  code -= 0x100;
  return (int)(code <= 0x20 ? code : code == 0x43 ? 0xad : code - 0x21 + 0x7f);
}

bool byte_level_append(byte_buffer *b, byte_string text) {
  char *to = bytes_reserve(b, 2 * text.bytes);
  if (!to) return false;
  for (size_t i = 0; i < text.bytes; i++) to += utf8_encode(byte_level_code((unsigned char)text.text[i]), to);
  b->bytes = (size_t)(to - b->data);
  return true;
}

bool byte_level_append_bytes(byte_buffer *b, byte_string text) {
  char *to = bytes_reserve(b, text.bytes);
  if (!to) return false;
  size_t count = 0;
  for (size_t at = 0, length; at < text.bytes; at += length) {
    uint32_t code;
    length = utf8_decode(text.text + at, text.bytes - at, &code);
    int byte = length ? byte_level_byte(code) : -1;
    if (byte < 0) return bytes_append(b, text.text, text.bytes);
    to[count++] = (char)(unsigned char)byte;
  }
  b->bytes += count;
  return true;
}
