#include "text/tokenizer.h"
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

static clm_status index_codes(clm_tokenizer *t) {
  code_token *pairs = malloc((size_t)t->size * sizeof *pairs);
  if (!pairs) return context_fail(t->context, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  for (int64_t i = 0; i < t->size; i++) pairs[i] = (code_token){t->codes[i], (int32_t)i};
  qsort(pairs, (size_t)t->size, sizeof *pairs, by_code);
  bool twice = false;
  for (int64_t i = 0; i < t->size; i++) {
    t->sorted[i] = pairs[i].token;
    twice = twice || (i > 0 && pairs[i].code == pairs[i - 1].code);
  }
  free(pairs);
  return twice ? context_fail(t->context, CLM_BAD_FORMAT, "tokenizer: two tokens stand for the same character")
               : CLM_OK;
}

clm_status tokenizer_new(clm_context *ctx, clm_vocabulary kind, uint32_t *codes, int64_t size,
                         clm_tokenizer **tokenizer) {
  clm_tokenizer *t = calloc(1, sizeof *t);
  *tokenizer = t;
  if (!t) {
    free(codes);
    return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  }
  *t = (clm_tokenizer){.context = ctx, .kind = kind, .size = size, .codes = codes};
  t->sorted = calloc((size_t)size, sizeof *t->sorted);
  t->texts = calloc((size_t)size, sizeof *t->texts);
  clm_status status =
      t->sorted && t->texts ? index_codes(t) : context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  if (status) {
    clm_tokenizer_destroy(tokenizer);
    return status;
  }
  for (int64_t i = 0; i < size; i++)
    if (kind == CLM_VOCABULARY_BYTE) t->texts[i][0] = (char)(unsigned char)codes[i];
    else utf8_encode(codes[i], t->texts[i]);
  return CLM_OK;
}

void clm_tokenizer_destroy(clm_tokenizer **tokenizer) {
  if (!tokenizer || !*tokenizer) return;
  free((*tokenizer)->codes);
  free((*tokenizer)->sorted);
  free((*tokenizer)->texts);
  free(*tokenizer);
  *tokenizer = NULL;
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

static clm_status create_char(clm_context *ctx, const char *text, size_t bytes, char *seen,
                              clm_tokenizer **tokenizer) {
  int64_t size = 0, next = 0;
  if (!seen) return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  TRY(collect(ctx, text, bytes, seen, &size));
  if (size == 0) return context_fail(ctx, CLM_INVALID_ARGUMENT, "the text is empty: it has no characters to learn");
  uint32_t *codes = malloc((size_t)size * sizeof *codes);
  if (!codes) return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  for (uint32_t code = 0; code < CODE_POINTS; code++)
    if (seen[code]) codes[next++] = code;
  return tokenizer_new(ctx, CLM_VOCABULARY_CHAR, codes, size, tokenizer);
}

clm_status clm_tokenizer_create(clm_context *ctx, clm_vocabulary kind, const char *text, size_t bytes,
                                clm_tokenizer **tokenizer) {
  *tokenizer = NULL;
  if (kind == CLM_VOCABULARY_CHAR) {
    char *seen = calloc(CODE_POINTS, 1);
    clm_status status = create_char(ctx, text, bytes, seen, tokenizer);
    free(seen);
    return status;
  }
  uint32_t *codes = malloc(256 * sizeof *codes);
  if (!codes) return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  for (uint32_t byte = 0; byte < 256; byte++) codes[byte] = byte;
  return tokenizer_new(ctx, CLM_VOCABULARY_BYTE, codes, 256, tokenizer);
}

int64_t clm_tokenizer_vocab_size(const clm_tokenizer *t) { return t->size; }
clm_vocabulary clm_tokenizer_kind(const clm_tokenizer *t) { return t->kind; }

/* The token of a code, -1 if there is none. */
static int32_t find_token(const clm_tokenizer *t, uint32_t code) {
  int64_t low = 0, high = t->size;
  while (low < high) {
    int64_t middle = (low + high) / 2;
    if (t->codes[t->sorted[middle]] < code) low = middle + 1;
    else high = middle;
  }
  return low < t->size && t->codes[t->sorted[low]] == code ? t->sorted[low] : -1;
}

clm_status clm_tokenizer_encode(const clm_tokenizer *t, const char *text, size_t bytes, int32_t *ids, size_t capacity,
                                size_t *count) {
  *count = 0;
  for (size_t at = 0, length; at < bytes; at += length) {
    uint32_t code = (unsigned char)text[at];
    length = t->kind == CLM_VOCABULARY_BYTE ? 1 : utf8_decode(text + at, bytes - at, &code);
    if (length == 0) return context_fail(t->context, CLM_BAD_FORMAT, "the text is not UTF-8 at byte %zu", at);
    int32_t token = find_token(t, code);
    if (token < 0)
      return context_fail(t->context, CLM_BAD_FORMAT,
                          t->kind == CLM_VOCABULARY_BYTE ? "byte 0x%02X at byte %zu is not in the vocabulary"
                                                         : "character U+%04X at byte %zu is not in the vocabulary",
                          (unsigned)code, at);
    if (*count < capacity) ids[*count] = token;
    ++*count;
  }
  return CLM_OK;
}

const char *clm_tokenizer_token(const clm_tokenizer *t, int32_t id, size_t *bytes) {
  *bytes = 0;
  if (id < 0 || id >= t->size) return NULL;
  *bytes = t->kind == CLM_VOCABULARY_BYTE ? 1 : strlen(t->texts[id]);
  return t->texts[id];
}
