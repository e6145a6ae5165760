#include "text/decoder.h"
#include "core/context.h"
#include "core/try.h"
#include "text/byte_level.h"
#include "text/utf8.h"
#include <string.h>

#define MAX_TEXTS_BYTES (1 << 28)

/* ---- Each token, once ---- */

static bool begins_with(byte_string text, const byte_buffer *character) {
  return text.bytes >= character->bytes && memcmp(text.text, character->data, character->bytes) == 0;
}

static byte_string strip(byte_string text, const decoder_step *step) {
  size_t bytes = step->stripped.bytes;
  for (size_t i = 0; i < step->start && begins_with(text, &step->stripped); i++)
    text.text += bytes, text.bytes -= bytes;
  for (size_t i = 0; i < step->stop && text.bytes >= bytes; i++) {
    if (!begins_with((byte_string){text.text + text.bytes - bytes, bytes}, &step->stripped)) break;
    text.bytes -= bytes;
  }
  return text;
}

static int hex(char c) {
  return c >= '0' && c <= '9'   ? c - '0'
         : c >= 'A' && c <= 'F' ? c - 'A' + 10
         : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                : -1;
}

/* The byte of <0x0A>, -1 for any other token. */
static int fallback_byte(byte_string t) {
  if (t.bytes != 6 || memcmp(t.text, "<0x", 3) != 0 || t.text[5] != '>') return -1;
  int high = hex(t.text[3]), low = hex(t.text[4]);
  return high < 0 || low < 0 ? -1 : 16 * high + low;
}

static bool metaspace_append(byte_buffer *to, byte_string text, const decoder_step *step, bool first) {
  bool ok = true;
  while (text.bytes && ok) {
    const bool space = begins_with(text, &step->stripped);
    const size_t bytes = space ? step->stripped.bytes : 1;
    if (!space) ok = bytes_append(to, text.text, 1);
    else if (!first || !step->first_drops) ok = bytes_append(to, " ", 1);
    text.text += bytes, text.bytes -= bytes;
  }
  return ok;
}

/* As a token of a text, or as its `first` one. */
static clm_status decode_token(clm_context *ctx, const decoder *d, pattern_scratch *scratch, vocabulary *v,
                               token_entry *entry, bool first, byte_buffer buffer[2]) {
  byte_string text = vocabulary_spelling(entry);
  byte_buffer *to = &buffer[0];
  for (size_t i = 0; i < d->count && !entry->is_byte; i++) {
    const decoder_step *step = &d->steps[i];
    int byte = step->kind == DECODER_BYTE_FALLBACK ? fallback_byte(text) : -1;
    if (step->kind == DECODER_STRIP) text = strip(text, step);
    else if (step->kind != DECODER_BYTE_FALLBACK || byte >= 0) {
      bool ok = true;
      to->bytes = 0;
      if (step->kind == DECODER_REPLACE) TRY(normalizer_step_apply(ctx, &step->replace, scratch, text, to));
      else if (step->kind == DECODER_BYTE_LEVEL) ok = byte_level_append_bytes(to, text);
      else if (step->kind == DECODER_METASPACE) ok = metaspace_append(to, text, step, first);
      else ok = bytes_append(to, &(char){(char)byte}, 1);
      if (!ok) return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
      entry->is_byte = byte >= 0;
      text = bytes_of(to);
      to = to == &buffer[0] ? &buffer[1] : &buffer[0];
    }
  }
  if (text.bytes > MAX_TEXTS_BYTES || v->texts.bytes > MAX_TEXTS_BYTES - text.bytes)
    return context_fail(ctx, CLM_UNSUPPORTED, "tokenizer: the tokens decode to more than %d bytes in all",
                        MAX_TEXTS_BYTES);
  *(first ? &entry->first : &entry->text) = v->texts.bytes;
  *(first ? &entry->first_bytes : &entry->text_bytes) = (uint32_t)text.bytes;
  entry->has_first = first;
  return bytes_append(&v->texts, text.text, text.bytes) && bytes_append(&v->texts, "", 1)
             ? CLM_OK
             : context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
}

clm_status decoder_prepare(clm_context *ctx, const decoder *d, pattern_scratch *scratch, vocabulary *v) {
  byte_buffer buffers[2] = {{0}, {0}};
  clm_status status = CLM_OK;
  bool first_differs = false;
  for (size_t i = 0; i < d->count; i++) first_differs = first_differs || d->steps[i].first_drops;
  for (int64_t token = 0; token < v->size && !status; token++) {
    token_entry *entry = v->entries[token];
    if (!entry) continue;
    status = decode_token(ctx, d, scratch, v, entry, false, buffers);
    if (first_differs && !entry->is_byte && !status) status = decode_token(ctx, d, scratch, v, entry, true, buffers);
  }
  bytes_free(&buffers[0]);
  bytes_free(&buffers[1]);
  return status;
}

void decoder_free(decoder *d) {
  for (size_t i = 0; i < d->count; i++) {
    bytes_free(&d->steps[i].replace.content);
    pcre2_code_free(d->steps[i].replace.pattern);
    bytes_free(&d->steps[i].stripped);
  }
  bytes_free(&d->stripped);
  d->count = 0;
}

/* ---- The tokens of a text ---- */

/* Text that is complete. */
static bool give(decoder_stream *s, const char *text, size_t bytes) {
  byte_string rest = {text, bytes};
  while (!s->strip_done && rest.bytes) {
    s->strip_done = s->stripped == s->decoder->start || !begins_with(rest, &s->decoder->stripped);
    if (s->strip_done) break;
    rest.text += s->decoder->stripped.bytes, rest.bytes -= s->decoder->stripped.bytes;
    s->stripped++;
  }
  return bytes_append(&s->text, rest.text, rest.bytes);
}

/* Gives what is complete of the bytes held, all of it at the end, and keeps the rest. */
static bool give_bytes(decoder_stream *s, bool end) {
  size_t at = 0;
  bool ok = true;
  while (at < s->held.bytes && ok) {
    const char *rest = s->held.data + at;
    size_t bytes = s->held.bytes - at, valid = utf8_valid(rest, bytes);
    ok = give(s, rest, valid);
    at += valid;
    if (at == s->held.bytes || !ok) break;
    bool open;
    size_t bad = utf8_ill_formed(s->held.data + at, s->held.bytes - at, &open);
    if (open && !end) break;
    ok = give(s, UTF8_REPLACEMENT, strlen(UTF8_REPLACEMENT));
    at += bad;
  }
  if (at) memmove(s->held.data, s->held.data + at, s->held.bytes - at);
  s->held.bytes -= at;
  return ok;
}

/* A run of byte tokens is text as a whole or not at all: then every byte of it is U+FFFD. */
static bool give_run(decoder_stream *s) {
  bool ok = true, valid = utf8_valid(s->held.data, s->held.bytes) == s->held.bytes;
  if (valid) ok = give(s, s->held.data, s->held.bytes);
  else
    for (size_t i = 0; i < s->held.bytes && ok; i++) ok = give(s, UTF8_REPLACEMENT, strlen(UTF8_REPLACEMENT));
  s->held.bytes = 0;
  return ok;
}

bool decoder_push(decoder_stream *s, byte_string token, bool is_byte) {
  bool began = s->began;
  s->began = true;
  if (s->decoder->kind == DECODER_BYTES)
    return bytes_append(&s->held, token.text, token.bytes) && give_bytes(s, false);
  if (is_byte) return bytes_append(&s->held, token.text, token.bytes);
  if (s->held.bytes && !give_run(s)) return false;
  if (s->decoder->kind == DECODER_SPACED && began && !give(s, " ", 1)) return false;
  return give(s, token.text, token.bytes);
}

bool decoder_finish(decoder_stream *s) {
  bool ok = s->decoder->kind == DECODER_BYTES ? give_bytes(s, true) : s->held.bytes == 0 || give_run(s);
  s->held.bytes = s->stripped = 0;
  s->began = s->strip_done = false;
  return ok;
}

void decoder_stream_free(decoder_stream *s) {
  bytes_free(&s->held);
  bytes_free(&s->text);
}
