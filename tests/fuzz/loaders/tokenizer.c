#include "text/tokenizer.h"
#include "fuzz.h"
#include "text/utf8.h"
#include <stdlib.h>
#include <string.h>

enum { IDS = 1 << 16, TEXT = 1 << 18 };

/* Decoding at once and token by token must give the same text, in whole characters. */
static void decode(const clm_tokenizer *t, const int32_t *ids, size_t count) {
  static char whole[TEXT];
  size_t bytes, piece_bytes, at = 0;
  const char *piece;
  clm_text_stream *stream;
  if (clm_tokenizer_decode(t, NULL, ids, count, whole, TEXT, &bytes) || bytes > TEXT) return;
  if (clm_text_stream_create(t, NULL, &stream)) return;
  for (size_t i = 0; i <= count; i++) {
    if (i < count ? clm_text_stream_push(stream, ids[i], &piece, &piece_bytes)
                  : clm_text_stream_finish(stream, &piece, &piece_bytes))
      break;
    if (utf8_valid(piece, piece_bytes) != piece_bytes || at + piece_bytes > bytes ||
        memcmp(whole + at, piece, piece_bytes) != 0)
      __builtin_trap();
    at += piece_bytes;
  }
  if (at != bytes) __builtin_trap();
  clm_text_stream_destroy(&stream);
}

/* A tokenizer.json, and after a zero byte a text for it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static int32_t ids[IDS];
  static const char usual[] = "It's  12345 a<|x|>b e\xcc\x81\xff\n\n ab";
  const uint8_t *end = size ? memchr(data, 0, size) : NULL;
  size_t bytes = end ? (size_t)(end - data) : size, count;
  const char *text = end ? (const char *)end + 1 : usual;
  size_t text_bytes = end ? size - bytes - 1 : strlen(usual);
  clm_tokenizer *t;
  json_error_t error;
  json_t *json = json_parse((const char *)data, bytes, JSON_EXACT, &error);
  if (!json) return 0;
  clm_status status = tokenizer_from_json(&(json_reader){fuzz_context(), "input"}, json, NULL, 0, &t);
  json_decref(json);
  fuzz_expect(status);
  if (status) return 0;
  for (int plain = 0; plain < 2; plain++) {
    clm_encode_options options = {.add_special_tokens = !plain, .plain_special_tokens = plain};
    fuzz_expect(status = clm_tokenizer_encode_with(t, &options, text, text_bytes, ids, IDS, &count));
    for (size_t i = 0; status == CLM_OK && i < count && i < IDS; i++)
      if (!clm_tokenizer_spelling(t, ids[i])) __builtin_trap();
    if (status == CLM_OK && count <= IDS) decode(t, ids, count);
  }
  clm_tokenizer_destroy(&t);
  return 0;
}
