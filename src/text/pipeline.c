#include "text/pipeline.h"
#include "core/context.h"
#include "core/try.h"
#include "text/utf8.h"

/* One call of pipeline_encode. */
typedef struct encoder {
  clm_context *context;
  const pipeline *pipeline;
  const clm_encode_options *options;
  pattern_scratch scratch;
  byte_buffer valid, normalized[2];
  pretokenizer_run words;
  bpe_scratch bpe;
  token_sink *sink;
} encoder;

static clm_status encode_word(void *user, byte_string word) {
  encoder *e = user;
  return bpe_encode(e->context, &e->pipeline->model, &e->bpe, word, e->sink);
}

static added_search search_for(encoder *e, const added_set *set, byte_string text) {
  return (added_search){
      .set = set, .scratch = &e->scratch, .text = text, .plain_special = e->options->plain_special_tokens};
}

/* Between the tokens that were found in the text as it is written. */
static clm_status encode_between(encoder *e, byte_string text, bool at_start) {
  TRY(normalizer_apply(e->context, &e->pipeline->normalizer, &e->scratch, e->normalized, &text));
  added_search search = search_for(e, &e->pipeline->as_normalized, text);
  byte_string piece;
  for (int32_t id; added_next(&search, &piece, &id);)
    if (id >= 0) sink_put(e->sink, id);
    else TRY(pretokenizer_apply(&e->words, piece, at_start && piece.text == text.text));
  return CLM_OK;
}

static clm_status encode(encoder *e, byte_string text) {
  if (!pattern_scratch_create(&e->scratch))
    return context_fail(e->context, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  if (utf8_valid(text.text, text.bytes) < text.bytes) {
    if (!bytes_append_lossy(&e->valid, text.text, text.bytes))
      return context_fail(e->context, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
    text = bytes_of(&e->valid);
  }
  const pipeline *p = e->pipeline;
  for (size_t i = 0; i < p->before_count && e->options->add_special_tokens; i++) sink_put(e->sink, p->before[i]);
  added_search search = search_for(e, &p->as_written, text);
  byte_string piece;
  for (int32_t id; added_next(&search, &piece, &id);)
    if (id >= 0) sink_put(e->sink, id);
    else TRY(encode_between(e, piece, piece.text == text.text));
  for (size_t i = 0; i < p->after_count && e->options->add_special_tokens; i++) sink_put(e->sink, p->after[i]);
  return CLM_OK;
}

clm_status pipeline_encode(clm_context *ctx, const pipeline *p, const clm_encode_options *options, byte_string text,
                           token_sink *sink) {
  encoder e = {.context = ctx, .pipeline = p, .options = options, .sink = sink};
  e.words = (pretokenizer_run){
      .context = ctx, .pretokenizer = &p->pretokenizer, .scratch = &e.scratch, .word = encode_word, .user = &e};
  clm_status status = encode(&e, text);
  pretokenizer_run_free(&e.words);
  pattern_scratch_free(&e.scratch);
  bpe_scratch_free(&e.bpe);
  bytes_free(&e.valid);
  bytes_free(&e.normalized[0]);
  bytes_free(&e.normalized[1]);
  return status;
}

void pipeline_free(pipeline *p) {
  vocabulary_free(&p->vocabulary);
  bpe_free(&p->model);
  added_set_free(&p->as_written);
  added_set_free(&p->as_normalized);
  normalizer_free(&p->normalizer);
  pretokenizer_free(&p->pretokenizer);
  decoder_free(&p->decoder);
}
