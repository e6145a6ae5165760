#include "core/context.h"
#include "core/try.h"
#include "text/pipeline_json.h"
#include <string.h>

/* A decoder's steps work on every token until Fuse or ByteLevel makes one text of them all; that one can still lose
 * characters at its beginning. ByteFallback makes one of every run of bytes, so nothing but these may follow it. */
typedef struct building {
  decoder *decoder;
  bool fused, runs;
} building;

static clm_status out_of_order(const json_reader *r, const json_t *json) {
  return context_fail(r->context, CLM_UNSUPPORTED, "%s: a decoder of type \"%.40s\" after one that joins tokens",
                      r->path, json_type_name(json));
}

static clm_status read_strip(const json_reader *r, const json_t *json, byte_buffer *character, size_t *start,
                             size_t *stop) {
  byte_string content = json_text(json_object_get(json, "content"));
  json_int_t first = json_integer_value(json_object_get(json, "start")),
             last = json_integer_value(json_object_get(json, "stop"));
  if (content.bytes == 0 || first < 0 || last < 0) return json_misses(r, "a Strip", "content, start and stop");
  *start = (size_t)first, *stop = (size_t)last;
  return bytes_append(character, content.text, content.bytes)
             ? CLM_OK
             : context_fail(r->context, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
}

static clm_status read_replace(const json_reader *r, const json_t *json, normalizer_step *step) {
  byte_string content = json_text(json_object_get(json, "content"));
  step->kind = NORMALIZER_REPLACE;
  if (!json_is_string(json_object_get(json, "content"))) return json_misses(r, "a Replace", "content");
  if (!bytes_append(&step->content, content.text, content.bytes))
    return context_fail(r->context, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  return pattern_from_json(r, json_object_get(json, "pattern"), "a Replace", &step->pattern);
}

static clm_status read_metaspace(const json_reader *r, const json_t *json, decoder_step *step) {
  metaspace m;
  TRY(metaspace_from_json(r, json, &m));
  step->first_drops = m.prepend != METASPACE_NEVER;
  return bytes_append(&step->stripped, m.replacement, strlen(m.replacement))
             ? CLM_OK
             : context_fail(r->context, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
}

static clm_status strip_whole_text(const json_reader *r, const json_t *json, decoder *d) {
  size_t stop;
  if (d->stripped.bytes) return out_of_order(r, json);
  TRY(read_strip(r, json, &d->stripped, &d->start, &stop));
  return stop == 0 ? CLM_OK
                   : context_fail(r->context, CLM_UNSUPPORTED, "%s: a Strip at the end of a whole text", r->path);
}

static clm_status take_step(const json_reader *r, const json_t *json, void *user) {
  static const char *const types[] = {[DECODER_REPLACE] = "Replace",
                                      [DECODER_STRIP] = "Strip",
                                      [DECODER_BYTE_FALLBACK] = "ByteFallback",
                                      [DECODER_BYTE_LEVEL] = "ByteLevel",
                                      [DECODER_METASPACE] = "Metaspace"};
  building *b = user;
  decoder *d = b->decoder;
  const char *type = json_type_name(json);
  if (strcmp(type, "Fuse") == 0) {
    b->fused = true;
    return CLM_OK;
  }
  size_t kind = 0;
  while (kind < sizeof types / sizeof *types && strcmp(types[kind], type) != 0) kind++;
  if (kind == sizeof types / sizeof *types) return json_unsupported(r, "a decoder", json);
  if (b->fused && kind == DECODER_STRIP) return strip_whole_text(r, json, d);
  if (b->fused || b->runs) return out_of_order(r, json);
  if (d->count == DECODER_STEPS)
    return context_fail(r->context, CLM_UNSUPPORTED, "%s: more than %d decoders", r->path, DECODER_STEPS);
  decoder_step *step = &d->steps[d->count++];
  *step = (decoder_step){.kind = (decoder_step_kind)kind};
  if (kind == DECODER_BYTE_LEVEL) d->kind = DECODER_BYTES;
  b->fused = kind == DECODER_BYTE_LEVEL;
  b->runs = kind == DECODER_BYTE_FALLBACK;
  if (kind == DECODER_METASPACE) return read_metaspace(r, json, step);
  return kind == DECODER_STRIP     ? read_strip(r, json, &step->stripped, &step->start, &step->stop)
         : kind == DECODER_REPLACE ? read_replace(r, json, &step->replace)
                                   : CLM_OK;
}

clm_status decoder_from_json(const json_reader *r, const json_t *json, decoder *d) {
  d->kind = json && !json_is_null(json) ? DECODER_TEXT : DECODER_SPACED;
  return json_each(r, json, "decoders", take_step, &(building){.decoder = d});
}
