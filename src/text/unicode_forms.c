#include "text/unicode_forms.h"
#include "text/utf8.h"
#include <stdlib.h>
#include <utf8proc.h>

/* Code points after Unicode 9 that utf8proc (Unicode 15) decomposes, composes or orders. */
static const uint32_t newer[][2] = {
    {0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},     {0xc3c, 0xc3c},
    {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x1715, 0x1715},   {0x1abf, 0x1ace},   {0x1df6, 0x1df9},
    {0x1dfa, 0x1dfa},   {0x32ff, 0x32ff},   {0xa7f2, 0xa7f4},   {0xa82c, 0xa82c},   {0xab69, 0xab69},
    {0x10781, 0x107ba}, {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50},
    {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e}, {0x11839, 0x1183a},
    {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0},
    {0x11a34, 0x11a34}, {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d45}, {0x11d97, 0x11d97},
    {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e030, 0x1e06d}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136},
    {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef}, {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9},
};

static int by_range(const void *key, const void *element) {
  uint32_t code = *(const uint32_t *)key;
  const uint32_t *range = element;
  return code < range[0] ? -1 : code > range[1];
}

static bool is_newer(uint32_t code) {
  return code >= newer[0][0] && bsearch(&code, newer, sizeof newer / sizeof *newer, sizeof *newer, by_range);
}

static bool is_hangul(uint32_t code) {
  return (code >= 0x1100 && code < 0x1200) || (code >= 0xac00 && code < 0xd7a4);
}

/* Nothing decomposes it, and nothing before or after it composes with it or is ordered across it. */
static bool is_inert(uint32_t code) {
  const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)code);
  return (p->combining_class == 0 && p->decomp_seqindex == UINT16_MAX && p->comb_index == UINT16_MAX &&
          !is_hangul(code)) ||
         is_newer(code);
}

static int combining_class(utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; }

/* Runs of marks in the order of their classes, each class in its own order: a counting sort, so that a run of a
 * million marks costs no more than its length. utf8proc's own would compare each with each. */
static bool order_marks(utf8proc_int32_t *codes, size_t count) {
  utf8proc_int32_t *sorted = NULL;
  for (size_t begin = 0, end; begin < count; begin = end) {
    size_t places[257] = {0};
    for (end = begin; end < count && combining_class(codes[end]); end++) places[combining_class(codes[end]) + 1]++;
    if (end - begin < 2) {
      end += end == begin;
      continue;
    }
    if (!sorted && !(sorted = malloc(count * sizeof *sorted))) return false;
    for (int class = 1; class < 256; class ++) places[class + 1] += places[class];
    for (size_t i = begin; i < end; i++) sorted[places[combining_class(codes[i])]++] = codes[i];
    for (size_t i = begin; i < end; i++) codes[i] = sorted[i - begin];
  }
  free(sorted);
  return true;
}

/* A stretch without inert code points. */
static bool append_form(byte_buffer *to, byte_string text, utf8proc_option_t options) {
  size_t longest = options & UTF8PROC_COMPAT ? 18 : 4; /* decompositions: U+FDFA, U+0390 */
  size_t capacity = (text.bytes / 2 + 2) * longest, count = 0;
  utf8proc_int32_t *codes = malloc(capacity * sizeof *codes);
  if (!codes) return false;
  for (size_t at = 0, length; at < text.bytes; at += length) {
    uint32_t code = 0;
    length = utf8_decode(text.text + at, text.bytes - at, &code);
    utf8proc_ssize_t got = utf8proc_decompose_char((utf8proc_int32_t)code, codes + count,
                                                   (utf8proc_ssize_t)(capacity - count), options, NULL);
    if (got > 0) count += (size_t)got;
  }
  bool ok = order_marks(codes, count);
  utf8proc_ssize_t kept = utf8proc_normalize_utf32(codes, (utf8proc_ssize_t)count, options);
  char *end = ok && kept >= 0 ? bytes_reserve(to, (size_t)kept * UTF8_MAX) : NULL;
  for (utf8proc_ssize_t i = 0; end && i < kept; i++) end += utf8_encode((uint32_t)codes[i], end);
  if (end) to->bytes = (size_t)(end - to->data);
  free(codes);
  return end != NULL;
}

bool unicode_form_append(byte_buffer *to, byte_string text, bool compose, bool compatible) {
  utf8proc_option_t options = UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                              (compatible ? UTF8PROC_COMPAT : (utf8proc_option_t)0);
  uint32_t plain = compose && !compatible ? 0x300 : 0x80; /* below it nothing changes by itself */
  size_t begin = 0;                                       /* of what is not written yet */
  for (size_t at = 0, last = 0; at < text.bytes;) {       /* last: the code point before `at` */
    uint32_t code = 0;
    size_t length = utf8_decode(text.text + at, text.bytes - at, &code);
    if (code < plain || is_inert(code)) {
      last = at;
      at += length;
      continue;
    }
    size_t first = at; /* with what stands before, if that could compose with it */
    if (at > begin && utf8_decode(text.text + last, at - last, &code) && !is_inert(code)) first = last;
    do at += length, length = at < text.bytes ? utf8_decode(text.text + at, text.bytes - at, &code) : 0;
    while (length && code >= plain && !is_inert(code));
    if (!bytes_append(to, text.text + begin, first - begin) ||
        !append_form(to, (byte_string){text.text + first, at - first}, options))
      return false;
    begin = last = at;
  }
  return bytes_append(to, text.text + begin, text.bytes - begin);
}
