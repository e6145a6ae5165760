#include "text/normalizer.h"
#include "core/context.h"
#include "core/try.h"
#include "text/byte_level.h"
#include "text/unicode_forms.h"
#include "text/utf8.h"
#include <utf8proc.h>

bool is_white_space(uint32_t code) {
  return (code >= 0x09 && code <= 0x0d) || code == 0x20 || code == 0x85 || code == 0xa0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 || code == 0x202f || code == 0x205f ||
         code == 0x3000;
}

static bool lowercase(byte_string text, byte_buffer *to) {
  char *end = bytes_reserve(to, 2 * text.bytes + UTF8_MAX); /* U+023A, U+0130 grow by one byte */
  if (!end) return false;
  for (size_t at = 0, length; at < text.bytes; at += length) {
    uint32_t code = 0;
    length = utf8_decode(text.text + at, text.bytes - at, &code);
    end += utf8_encode(code == 0x130 ? 'i' : (uint32_t)utf8proc_tolower((utf8proc_int32_t)code), end);
    if (code == 0x130) end += utf8_encode(0x307, end);
  }
  to->bytes = (size_t)(end - to->data);
  return true;
}

static clm_status replace(clm_context *ctx, const normalizer_step *step, pattern_scratch *scratch, byte_string text,
                          byte_buffer *to, bool *ok) {
  pattern_search search = {.pattern = step->pattern, .scratch = scratch, .text = text};
  size_t done = 0, begin = 0, end = 0;
  bool found;
  for (*ok = true; *ok;) {
    TRY(pattern_next(ctx, &search, &found, &begin, &end));
    if (!found) break;
    *ok =
        bytes_append(to, text.text + done, begin - done) && bytes_append(to, step->content.data, step->content.bytes);
    done = end;
  }
  *ok = *ok && bytes_append(to, text.text + done, text.bytes - done);
  return CLM_OK;
}

clm_status normalizer_step_apply(clm_context *ctx, const normalizer_step *step, pattern_scratch *scratch,
                                 byte_string text, byte_buffer *to) {
  bool ok = true, compose = step->kind == NORMALIZER_NFC || step->kind == NORMALIZER_NFKC;
  switch (step->kind) {
  case NORMALIZER_NFC:
  case NORMALIZER_NFD: ok = unicode_form_append(to, text, compose, false); break;
  case NORMALIZER_NFKC:
  case NORMALIZER_NFKD: ok = unicode_form_append(to, text, compose, true); break;
  case NORMALIZER_LOWERCASE: ok = lowercase(text, to); break;
  case NORMALIZER_PREPEND:
    ok = (text.bytes == 0 || bytes_append(to, step->content.data, step->content.bytes)) &&
         bytes_append(to, text.text, text.bytes);
    break;
  case NORMALIZER_REPLACE: TRY(replace(ctx, step, scratch, text, to, &ok)); break;
  case NORMALIZER_BYTE_LEVEL: ok = byte_level_append(to, text); break;
  }
  return ok ? CLM_OK : context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
}

clm_status normalizer_apply(clm_context *ctx, const normalizer *n, pattern_scratch *scratch, byte_buffer buffers[2],
                            byte_string *text) {
  for (size_t i = 0; i < n->count; i++) {
    byte_buffer *to = &buffers[i % 2];
    to->bytes = 0;
    TRY(normalizer_step_apply(ctx, &n->steps[i], scratch, *text, to));
    *text = bytes_of(to);
  }
  return CLM_OK;
}

void normalizer_free(normalizer *n) {
  for (size_t i = 0; i < n->count; i++) {
    bytes_free(&n->steps[i].content);
    pcre2_code_free(n->steps[i].pattern);
  }
  n->count = 0;
}
