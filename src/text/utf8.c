#include "text/utf8.h"
#include <string.h>

size_t utf8_decode(const char *text, size_t bytes, uint32_t *code) {
  static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const unsigned char *s = (const unsigned char *)text;
  size_t length = s[0] < 0x80             ? 1
                  : (s[0] & 0xe0) == 0xc0 ? 2
                  : (s[0] & 0xf0) == 0xe0 ? 3
                  : (s[0] & 0xf8) == 0xf0 ? 4
                                          : 0;
  if (length == 0 || length > bytes) return 0;
  uint32_t value = length == 1 ? s[0] : s[0] & (0x7fu >> length);
  for (size_t i = 1; i < length; i++) {
    if ((s[i] & 0xc0) != 0x80) return 0;
    value = value << 6 | (s[i] & 0x3fu);
  }
  if (value < smallest[length] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) return 0;
  *code = value;
  return length;
}

size_t utf8_encode(uint32_t code, char *text) {
  size_t length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  for (size_t i = length - 1; i > 0; i--, code >>= 6) text[i] = (char)(unsigned char)(0x80 | (code & 0x3f));
  text[0] = (char)(unsigned char)(length == 1 ? code : (0xf00u >> length & 0xf0u) | code);
  return length;
}

size_t utf8_ill_formed(const char *text, size_t bytes, bool *open) {
  const unsigned char *s = (const unsigned char *)text;
  *open = false;
  size_t length = s[0] >= 0xc2 && s[0] < 0xe0   ? 2
                  : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
                  : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
                                                : 0;
  if (length == 0) return 1;
  unsigned char low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
  unsigned char high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
  size_t i = 1;
  while (i < length && i < bytes && s[i] >= low && s[i] <= high) {
    low = 0x80, high = 0xbf;
    i++;
  }
  *open = i == bytes;
  return i;
}

size_t utf8_valid(const char *text, size_t bytes) {
  size_t at = 0;
  while (at < bytes) {
    uint64_t eight;
    if (bytes - at >= sizeof eight && (memcpy(&eight, text + at, sizeof eight), !(eight & 0x8080808080808080u))) {
      at += sizeof eight;
      continue;
    }
    uint32_t code;
    size_t length = utf8_decode(text + at, bytes - at, &code);
    if (length == 0) break;
    at += length;
  }
  return at;
}
