#include "text/code_vocabulary.h"
#include "core/context.h"
#include "core/try.h"
#include "text/utf8.h"
#include <stdlib.h>
#include <string.h>

#define CODE_POINTS 0x110000

typedef struct code_token {
  uint32_t code;
  int32_t token;
} code_token;

static int by_code(const void *a, const void *b) {
  const code_token *x = a, *y = b;
  return x->code < y->code ? -1 : x->code > y->code;
}

static clm_status index_codes(clm_context *ctx, code_vocabulary *v) {
  code_token *pairs = malloc((size_t)v->size * sizeof *pairs);
  if (!pairs) return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  for (int64_t i = 0; i < v->size; i++) pairs[i] = (code_token){v->codes[i], (int32_t)i};
  qsort(pairs, (size_t)v->size, sizeof *pairs, by_code);
  bool twice = false;
  for (int64_t i = 0; i < v->size; i++) {
    v->sorted[i] = pairs[i].token;
    twice = twice || (i > 0 && pairs[i].code == pairs[i - 1].code);
  }
  free(pairs);
  return twice ? context_fail(ctx, CLM_BAD_FORMAT, "tokenizer: two tokens stand for the same character") : CLM_OK;
}

clm_status code_vocabulary_create(clm_context *ctx, clm_vocabulary kind, uint32_t *codes, int64_t size,
                                  code_vocabulary *v) {
  *v = (code_vocabulary){.size = size, .codes = codes};
  v->sorted = calloc((size_t)size, sizeof *v->sorted);
  v->texts = calloc((size_t)size, sizeof *v->texts);
  v->spellings = calloc((size_t)size, sizeof *v->spellings);
  if (!v->sorted || !v->texts || !v->spellings)
    return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  TRY(index_codes(ctx, v));
  for (int64_t i = 0; i < size; i++)
    if (kind == CLM_VOCABULARY_BYTE) {
      v->texts[i][0] = (char)(unsigned char)codes[i];
      utf8_encode(byte_level_code(codes[i]), v->spellings[i]);
    } else {
      utf8_encode(codes[i], v->texts[i]);
      utf8_encode(codes[i], v->spellings[i]);
    }
  return CLM_OK;
}

void code_vocabulary_free(code_vocabulary *v) {
  free(v->codes);
  free(v->sorted);
  free(v->texts);
  free(v->spellings);
  *v = (code_vocabulary){0};
}

/* Marks in `seen` every code point of the text. */
static clm_status collect(clm_context *ctx, const char *text, size_t bytes, char *seen, int64_t *size) {
  for (size_t at = 0, length; at < bytes; at += length) {
    uint32_t code;
    length = utf8_decode(text + at, bytes - at, &code);
    if (length == 0 || code == 0)
      return context_fail(ctx, CLM_BAD_FORMAT,
                          "the text is not %s at byte %zu: a character vocabulary cannot be made of it, a byte "
                          "vocabulary can",
                          length ? "free of zero bytes" : "UTF-8", at);
    *size += !seen[code];
    seen[code] = 1;
  }
  return CLM_OK;
}

static clm_status learn_characters(clm_context *ctx, byte_string text, char *seen, code_vocabulary *v) {
  int64_t size = 0, next = 0;
  if (!seen) return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  TRY(collect(ctx, text.text, text.bytes, seen, &size));
  if (size == 0) return context_fail(ctx, CLM_INVALID_ARGUMENT, "the text is empty: it has no characters to learn");
  uint32_t *codes = malloc((size_t)size * sizeof *codes);
  if (!codes) return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  for (uint32_t code = 0; code < CODE_POINTS; code++)
    if (seen[code]) codes[next++] = code;
  return code_vocabulary_create(ctx, CLM_VOCABULARY_CHAR, codes, size, v);
}

clm_status code_vocabulary_learn(clm_context *ctx, clm_vocabulary kind, byte_string text, code_vocabulary *v) {
  if (kind == CLM_VOCABULARY_CHAR) {
    char *seen = calloc(CODE_POINTS, 1);
    clm_status status = learn_characters(ctx, text, seen, v);
    free(seen);
    return status;
  }
  uint32_t *codes = malloc(256 * sizeof *codes);
  if (!codes) return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  for (uint32_t byte = 0; byte < 256; byte++) codes[byte] = byte;
  return code_vocabulary_create(ctx, CLM_VOCABULARY_BYTE, codes, 256, v);
}

int32_t code_vocabulary_find(const code_vocabulary *v, uint32_t code) {
  int64_t low = 0, high = v->size;
  while (low < high) {
    int64_t middle = (low + high) / 2;
    if (v->codes[v->sorted[middle]] < code) low = middle + 1;
    else high = middle;
  }
  return low < v->size && v->codes[v->sorted[low]] == code ? v->sorted[low] : -1;
}

clm_status code_vocabulary_encode(clm_context *ctx, clm_vocabulary kind, const code_vocabulary *v, byte_string text,
                                  token_sink *sink) {
  for (size_t at = 0, length; at < text.bytes; at += length) {
    uint32_t code = (unsigned char)text.text[at];
    length = kind == CLM_VOCABULARY_BYTE ? 1 : utf8_decode(text.text + at, text.bytes - at, &code);
    if (length == 0) return context_fail(ctx, CLM_BAD_FORMAT, "the text is not UTF-8 at byte %zu", at);
    int32_t token = code_vocabulary_find(v, code);
    if (token < 0)
      return context_fail(ctx, CLM_BAD_FORMAT,
                          kind == CLM_VOCABULARY_BYTE ? "byte 0x%02X at byte %zu is not in the vocabulary"
                                                      : "character U+%04X at byte %zu is not in the vocabulary",
                          (unsigned)code, at);
    sink_put(sink, token);
  }
  return CLM_OK;
}
