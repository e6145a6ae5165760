#include "text/tokenizer.h"
#include "core/context.h"
#include "core/try.h"
#include "text/utf8.h"
#include <stdlib.h>
#include <string.h>

static clm_status out_of_memory(clm_context *ctx) {
  return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
}

/* ---- Life ---- */

clm_status tokenizer_new(clm_context *ctx, clm_vocabulary kind, clm_tokenizer **tokenizer) {
  clm_tokenizer *t = calloc(1, sizeof *t);
  *tokenizer = t;
  if (!t) return out_of_memory(ctx);
  *t = (clm_tokenizer){.context = ctx, .kind = kind, .special = {-1, -1, -1, -1}, .begin = -1};
  t->codes_decoder.kind = kind == CLM_VOCABULARY_BYTE ? DECODER_BYTES : DECODER_TEXT;
  if (kind == CLM_VOCABULARY_BPE && !(t->pipeline = calloc(1, sizeof *t->pipeline))) {
    clm_tokenizer_destroy(tokenizer);
    return out_of_memory(ctx);
  }
  return CLM_OK;
}

void clm_tokenizer_destroy(clm_tokenizer **tokenizer) {
  if (!tokenizer || !*tokenizer) return;
  clm_tokenizer *t = *tokenizer;
  code_vocabulary_free(&t->codes);
  if (t->pipeline) pipeline_free(t->pipeline);
  free(t->pipeline);
  free(t->ends);
  free(t->json);
  for (int which = 0; which < COMPANIONS_SAVED; which++) free(t->saved[which]);
  free(t);
  *tokenizer = NULL;
}

clm_status clm_tokenizer_create(clm_context *ctx, clm_vocabulary kind, const char *text, size_t bytes,
                                clm_tokenizer **tokenizer) {
  if (tokenizer) *tokenizer = NULL;
  TRY(CONTEXT_NEED(ctx, "tokenizer_create", tokenizer));
  if (bytes) TRY(CONTEXT_NEED(ctx, "tokenizer_create", text));
  if ((unsigned)kind > CLM_VOCABULARY_BPE)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "tokenizer_create: kind is %d, expected a clm_vocabulary",
                        (int)kind);
  if (kind != CLM_VOCABULARY_BYTE && kind != CLM_VOCABULARY_CHAR)
    return context_fail(ctx, CLM_UNSUPPORTED, "tokenizer: only byte and character vocabularies are made of a text");
  TRY(tokenizer_new(ctx, kind, tokenizer));
  clm_status status = code_vocabulary_learn(ctx, kind, (byte_string){text, bytes}, &(*tokenizer)->codes);
  if (status) clm_tokenizer_destroy(tokenizer);
  return status;
}

/* ---- Tokens ---- */

clm_vocabulary clm_tokenizer_kind(const clm_tokenizer *t) { return t ? t->kind : CLM_VOCABULARY_BYTE; }

int64_t clm_tokenizer_vocab_size(const clm_tokenizer *t) {
  if (!t) return 0;
  return t->pipeline ? t->pipeline->vocabulary.size : t->codes.size;
}

const char *clm_tokenizer_token(const clm_tokenizer *t, int32_t id, size_t *bytes) {
  if (bytes) *bytes = 0;
  if (!t || !bytes) return NULL;
  *bytes = 0;
  if (t->pipeline) {
    const token_entry *entry = vocabulary_entry(&t->pipeline->vocabulary, id);
    if (!entry) return NULL;
    byte_string text = vocabulary_text(&t->pipeline->vocabulary, entry);
    *bytes = text.bytes;
    return text.text;
  }
  if (id < 0 || id >= t->codes.size) return NULL;
  *bytes = t->kind == CLM_VOCABULARY_BYTE ? 1 : strlen(t->codes.texts[id]);
  return t->codes.texts[id];
}

const char *clm_tokenizer_spelling(const clm_tokenizer *t, int32_t id) {
  if (!t) return NULL;
  if (!t->pipeline) return id < 0 || id >= t->codes.size ? NULL : t->codes.spellings[id];
  const token_entry *entry = vocabulary_entry(&t->pipeline->vocabulary, id);
  return entry ? vocabulary_spelling(entry).text : NULL;
}

int32_t clm_tokenizer_find(const clm_tokenizer *t, const char *spelling, size_t bytes) {
  if (!t || !spelling) return -1;
  if (t->pipeline) return vocabulary_find(&t->pipeline->vocabulary, (byte_string){spelling, bytes});
  uint32_t code;
  if (bytes == 0 || utf8_decode(spelling, bytes, &code) != bytes) return -1;
  int byte = t->kind == CLM_VOCABULARY_BYTE ? byte_level_byte(code) : (int)code;
  return byte < 0 ? -1 : code_vocabulary_find(&t->codes, (uint32_t)byte);
}

int32_t clm_tokenizer_special(const clm_tokenizer *t, clm_special_token which) {
  return t && (unsigned)which < TOKENIZER_SPECIALS ? t->special[which] : -1;
}

size_t clm_tokenizer_ends(const clm_tokenizer *t, const int32_t **ids) {
  if (ids) *ids = t ? t->ends : NULL;
  return t ? t->end_count : 0;
}

bool clm_tokenizer_is_special(const clm_tokenizer *t, int32_t id) {
  const token_entry *entry = t && t->pipeline ? vocabulary_entry(&t->pipeline->vocabulary, id) : NULL;
  return entry && entry->special;
}

/* ---- Encoding ---- */

clm_status clm_tokenizer_encode_with(const clm_tokenizer *t, const clm_encode_options *options, const char *text,
                                     size_t bytes, int32_t *ids, size_t capacity, size_t *count) {
  TRY(HANDLE_NEED(t, "tokenizer_encode", count));
  token_sink sink = {ids, ids ? capacity : 0, 0};
  byte_string given = {text ? text : "", text ? bytes : 0};
  clm_status status = t->pipeline ? pipeline_encode(t->context, t->pipeline,
                                                    options ? options : &(clm_encode_options){0}, given, &sink)
                                  : code_vocabulary_encode(t->context, t->kind, &t->codes, given, &sink);
  *count = status ? 0 : sink.count;
  return status;
}

clm_status clm_tokenizer_encode(const clm_tokenizer *t, const char *text, size_t bytes, int32_t *ids, size_t capacity,
                                size_t *count) {
  return clm_tokenizer_encode_with(t, NULL, text, bytes, ids, capacity, count);
}

/* ---- Decoding ---- */

struct clm_text_stream {
  const clm_tokenizer *tokenizer;
  clm_decode_options options;
  decoder_stream decoder;
};

static clm_text_stream stream_for(const clm_tokenizer *t, const clm_decode_options *options) {
  return (clm_text_stream){.tokenizer = t,
                           .options = options ? *options : (clm_decode_options){0},
                           .decoder.decoder = t->pipeline ? &t->pipeline->decoder : &t->codes_decoder};
}

static bool push(clm_text_stream *s, int32_t id) {
  byte_string token;
  const vocabulary *v = s->tokenizer->pipeline ? &s->tokenizer->pipeline->vocabulary : NULL;
  const token_entry *entry = v ? vocabulary_entry(v, id) : NULL;
  token.text = clm_tokenizer_token(s->tokenizer, id, &token.bytes);
  if (entry && !s->decoder.began) token = vocabulary_first_text(v, entry);
  if (!token.text || (s->options.skip_special_tokens && entry && entry->special)) return true;
  return decoder_push(&s->decoder, token, entry && entry->is_byte);
}

/* Moves the text that is complete to where the caller wants it; what is past the capacity is only counted. */
static void hand_over(clm_text_stream *s, char *text, size_t capacity, size_t *bytes) {
  byte_buffer *from = &s->decoder.text;
  size_t room = capacity > *bytes ? capacity - *bytes : 0, part = from->bytes < room ? from->bytes : room;
  if (part) memcpy(text + *bytes, from->data, part);
  *bytes += from->bytes;
  from->bytes = 0;
}

clm_status clm_tokenizer_decode(const clm_tokenizer *t, const clm_decode_options *options, const int32_t *ids,
                                size_t count, char *text, size_t capacity, size_t *bytes) {
  TRY(HANDLE_NEED(t, "tokenizer_decode", bytes));
  if (count) TRY(HANDLE_NEED(t, "tokenizer_decode", ids));
  clm_text_stream s = stream_for(t, options);
  bool ok = true;
  *bytes = 0;
  for (size_t i = 0; i <= count && ok; i++) {
    ok = i < count ? push(&s, ids[i]) : decoder_finish(&s.decoder);
    hand_over(&s, text, text ? capacity : 0, bytes);
  }
  decoder_stream_free(&s.decoder);
  if (!ok) *bytes = 0;
  return ok ? CLM_OK : out_of_memory(t->context);
}

clm_status clm_text_stream_create(const clm_tokenizer *t, const clm_decode_options *options,
                                  clm_text_stream **stream) {
  if (stream) *stream = NULL;
  TRY(HANDLE_NEED(t, "text_stream_create", stream));
  *stream = malloc(sizeof **stream);
  if (!*stream) return out_of_memory(t->context);
  **stream = stream_for(t, options);
  return CLM_OK;
}

void clm_text_stream_destroy(clm_text_stream **stream) {
  if (!stream || !*stream) return;
  decoder_stream_free(&(*stream)->decoder);
  free(*stream);
  *stream = NULL;
}

static clm_status give(clm_text_stream *s, bool ok, const char **text, size_t *bytes) {
  *text = s->decoder.text.data ? s->decoder.text.data : "";
  *bytes = ok ? s->decoder.text.bytes : 0;
  return ok ? CLM_OK : out_of_memory(s->tokenizer->context);
}

clm_status clm_text_stream_push(clm_text_stream *s, int32_t id, const char **text, size_t *bytes) {
  if (!s) return CLM_INVALID_ARGUMENT;
  TRY(CONTEXT_NEED(s->tokenizer->context, "text_stream_push", text, bytes));
  s->decoder.text.bytes = 0;
  bool ok = push(s, id);
  return give(s, ok, text, bytes);
}

clm_status clm_text_stream_finish(clm_text_stream *s, const char **text, size_t *bytes) {
  if (!s) return CLM_INVALID_ARGUMENT;
  TRY(CONTEXT_NEED(s->tokenizer->context, "text_stream_finish", text, bytes));
  s->decoder.text.bytes = 0;
  bool ok = decoder_finish(&s->decoder);
  return give(s, ok, text, bytes);
}
