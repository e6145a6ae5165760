/* The loop of generation: prompts of a batch in one run, then a token for each sequence that has not ended. Sequences
 * that end leave the batch, so that a step is never longer than it need be. */
#include "core/arith.h"
#include "core/clock.h"
#include "core/context.h"
#include "core/try.h"
#include "text/stops.h"
#include "text/tokenizer.h"
#include <clmamba/generate.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct sequence {
  int32_t *prompt;
  int64_t prompt_tokens;
  clm_sampler *sampler;
  clm_text_stream *shown, *searched; /* without and with special tokens; `searched` only for stop strings */
  stops stops;
  int64_t made; /* tokens */
  int32_t next; /* the token that was chosen last */
  bool ended;
} sequence;

typedef struct session {
  clm_model *model;
  const clm_tokenizer *tokenizer;
  const clm_generate_args *args;
  clm_context *context;
  int64_t vocab, batch;
  sequence *sequences;
  int64_t *active, count; /* the sequences in the rows of `state` */
  int64_t *staying;       /* rows of those that continue         */
  clm_model_state *state;
  clm_buffer *buffer; /* the prompts or a step's tokens, then logits */
  size_t logits_offset;
  float *logits;  /* (count, vocab) on the host        */
  float *scratch; /* (vocab)                           */
  int32_t *ids;
  clm_token_logprob *top;
  clm_generate_stats stats;
} session;

static clm_status no_memory(const session *s) {
  return context_fail(s->context, CLM_OUT_OF_MEMORY, "generate: out of host memory");
}

/* ---- Arguments ---- */

static clm_status check_states(const session *s) {
  const clm_generate_args *a = s->args;
  if (a->from && clm_model_state_batch(a->from) != s->batch && clm_model_state_batch(a->from) != 1)
    return context_fail(s->context, CLM_INVALID_ARGUMENT,
                        "generate: `from` has %lld sequences, expected 1 or as many as prompts, %lld",
                        (long long)clm_model_state_batch(a->from), (long long)s->batch);
  if (a->into && clm_model_state_batch(a->into) != s->batch)
    return context_fail(s->context, CLM_INVALID_ARGUMENT,
                        "generate: `into` has %lld sequences, expected as many as prompts, %lld",
                        (long long)clm_model_state_batch(a->into), (long long)s->batch);
  return CLM_OK;
}

static clm_status check(const session *s) {
  const clm_generate_args *a = s->args;
  if (a->count < 0)
    return context_fail(s->context, CLM_INVALID_ARGUMENT, "generate: count is %lld, at least 0 is expected",
                        (long long)a->count);
  if (a->top_logprobs < 0 || a->top_logprobs > s->vocab)
    return context_fail(s->context, CLM_INVALID_ARGUMENT, "generate: top_logprobs is %lld, expected 0 to %lld",
                        (long long)a->top_logprobs, (long long)s->vocab);
  if (a->stop_string_count && !s->tokenizer)
    return context_fail(s->context, CLM_INVALID_ARGUMENT, "generate: stop strings need a tokenizer");
  for (size_t i = 0; i < a->stop_string_count; i++)
    if (!a->stop_strings || !a->stop_strings[i] || !a->stop_strings[i][0])
      return context_fail(s->context, CLM_INVALID_ARGUMENT, "generate: stop string %zu is missing or empty", i);
  return check_states(s);
}

/* ---- Prompts ---- */

static clm_status take_ids(session *s, int64_t i, const int32_t *ids, size_t count) {
  sequence *q = &s->sequences[i];
  q->prompt = malloc((count ? count : 1) * sizeof *ids);
  if (!q->prompt) return no_memory(s);
  for (size_t k = 0; k < count; k++) {
    if (ids[k] < 0 || ids[k] >= s->vocab)
      return context_fail(s->context, CLM_INVALID_ARGUMENT,
                          "generate: token %zu of prompt %lld is %d, expected 0 to %lld", k, (long long)i,
                          (int)ids[k], (long long)s->vocab - 1);
    q->prompt[k] = ids[k];
  }
  q->prompt_tokens = (int64_t)count;
  return CLM_OK;
}

/* A state that has seen text continues without the tokens that begin one. */
static bool has_begun(const session *s, int64_t i) {
  const clm_model_state *from = s->args->from;
  return from && clm_model_state_tokens(from, i % clm_model_state_batch(from)) > 0;
}

/* A tokenizer may have more tokens than the model: what counts is which of them a text has. */
static clm_status check_tokens(const session *s, int64_t i) {
  const sequence *q = &s->sequences[i];
  for (int64_t k = 0; k < q->prompt_tokens; k++)
    if (q->prompt[k] >= s->vocab)
      return context_fail(s->context, CLM_INVALID_ARGUMENT,
                          "generate: prompt %lld has the token \"%.60s\", number %d, the model only 0 to %lld: its "
                          "tokenizer has more tokens than it",
                          (long long)i, clm_tokenizer_spelling(s->tokenizer, q->prompt[k]), (int)q->prompt[k],
                          (long long)s->vocab - 1);
  return CLM_OK;
}

static clm_status take_text(session *s, int64_t i, const clm_prompt *p) {
  const clm_encode_options options = {.add_special_tokens = !has_begun(s, i)};
  sequence *q = &s->sequences[i];
  size_t count;
  if (!s->tokenizer) return context_fail(s->context, CLM_INVALID_ARGUMENT, "generate: a text needs a tokenizer");
  TRY(clm_tokenizer_encode_with(s->tokenizer, &options, p->text, p->bytes, NULL, 0, &count));
  q->prompt = malloc((count ? count : 1) * sizeof *q->prompt);
  if (!q->prompt) return no_memory(s);
  q->prompt_tokens = (int64_t)count;
  TRY(clm_tokenizer_encode_with(s->tokenizer, &options, p->text, p->bytes, q->prompt, count, &count));
  return check_tokens(s, i);
}

/* Where nothing is given: the token that begins a text, else as after the end of a line, else token 0. */
static clm_status take_beginning(session *s, int64_t i) {
  int32_t id = s->tokenizer ? s->tokenizer->begin : 0;
  size_t count = 1;
  if (id >= s->vocab) id = -1;
  if (id < 0 && (clm_tokenizer_encode(s->tokenizer, "\n", 1, &id, 1, &count) || count != 1)) id = 0;
  return take_ids(s, i, &id, 1);
}

static clm_status take_prompt(session *s, int64_t i) {
  const clm_prompt none = {0}, *p = s->args->prompts ? &s->args->prompts[i] : &none;
  if (p->ids && p->count) return take_ids(s, i, p->ids, p->count);
  if (p->text && p->bytes) TRY(take_text(s, i, p));
  if (s->sequences[i].prompt_tokens || has_begun(s, i)) return CLM_OK;
  free(s->sequences[i].prompt);
  s->sequences[i].prompt = NULL;
  return take_beginning(s, i);
}

static clm_status begin_sequence(session *s, int64_t i) {
  const clm_generate_args *a = s->args;
  sequence *q = &s->sequences[i];
  clm_sampler_options options = a->sampler;
  if (a->seeds) options.seed = a->seeds[i];
  else options.stream += (uint64_t)i;
  TRY(take_prompt(s, i));
  const int64_t tokens = s->tokenizer ? clm_tokenizer_vocab_size(s->tokenizer) : s->vocab;
  TRY(clm_sampler_create(s->context, &options, tokens < s->vocab ? tokens : s->vocab, &q->sampler));
  for (int64_t k = 0; k < q->prompt_tokens; k++) clm_sampler_accept(q->sampler, q->prompt[k]);
  q->stops = (stops){.strings = a->stop_strings, .count = a->stop_string_count};
  if (s->tokenizer)
    TRY(clm_text_stream_create(s->tokenizer, &(clm_decode_options){.skip_special_tokens = true}, &q->shown));
  if (a->stop_string_count) TRY(clm_text_stream_create(s->tokenizer, NULL, &q->searched));
  s->stats.prompt_tokens += q->prompt_tokens;
  return CLM_OK;
}

/* ---- Steps ---- */

static clm_tensor device_logits(const session *s) {
  return clm_tensor_of(s->buffer, s->logits_offset, CLM_F32, 2, (int64_t[]){s->count, s->vocab});
}

static clm_status read_logits(session *s) {
  return clm_tensor_read(device_logits(s), s->logits, (size_t)(s->count * s->vocab) * sizeof *s->logits);
}

static clm_status prefill(session *s) {
  int64_t longest = 1, *lengths = calloc((size_t)s->batch, sizeof *lengths);
  for (int64_t i = 0; i < s->batch; i++)
    if (s->sequences[i].prompt_tokens > longest) longest = s->sequences[i].prompt_tokens;
  size_t bytes = (size_t)(s->batch * longest) * sizeof *s->ids;
  s->ids = calloc((size_t)(s->batch * longest), sizeof *s->ids);
  s->logits_offset = round_up_line(bytes);
  clm_status status =
      lengths && s->ids
          ? clm_buffer_create(s->context, s->logits_offset + (size_t)(s->batch * s->vocab) * 4, &s->buffer)
          : no_memory(s);
  if (status == CLM_OK) {
    for (int64_t i = 0; i < s->batch; i++) {
      lengths[i] = s->sequences[i].prompt_tokens;
      if (lengths[i]) memcpy(s->ids + i * longest, s->sequences[i].prompt, (size_t)lengths[i] * sizeof *s->ids);
    }
    clm_tensor ids = clm_tensor_of(s->buffer, 0, CLM_I32, 2, (int64_t[]){s->batch, longest});
    status = clm_tensor_write(ids, s->ids, bytes);
    if (status == CLM_OK)
      status = clm_model_run(s->model, &(clm_model_run_args){.ids = ids,
                                                             .lengths = lengths,
                                                             .state = s->state,
                                                             .last_logits = device_logits(s),
                                                             .progress = s->args->progress,
                                                             .user = s->args->user});
  }
  free(lengths);
  return status ? status : read_logits(s);
}

static clm_status decode(session *s) {
  clm_tensor ids = clm_tensor_of(s->buffer, 0, CLM_I32, 1, &s->count);
  for (int64_t row = 0; row < s->count; row++) s->ids[row] = s->sequences[s->active[row]].next;
  TRY(clm_tensor_write(ids, s->ids, (size_t)s->count * sizeof *s->ids));
  TRY(clm_model_decode(s->model, s->state, ids, device_logits(s)));
  return read_logits(s);
}

static bool is_among(int32_t id, const int32_t *ids, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (ids[i] == id) return true;
  return false;
}

static bool is_stop_id(const session *s, int32_t id) {
  const clm_generate_args *a = s->args;
  const int32_t *ids = a->stop_ids;
  size_t count = a->stop_id_count;
  if (!ids) count = s->tokenizer ? clm_tokenizer_ends(s->tokenizer, &ids) : 0;
  return is_among(id, ids, count) || is_among(id, a->more_stop_ids, a->more_stop_id_count);
}

/* One token more in both texts; `id` -1: what the streams still hold. */
static clm_status add_text(const session *s, sequence *q, int32_t id) {
  byte_string texts[2] = {0};
  clm_text_stream *streams[2] = {q->shown, q->searched};
  for (int i = 0; i < 2; i++) {
    byte_string *t = &texts[i];
    if (!streams[i]) *t = texts[0];
    else if (id < 0) TRY(clm_text_stream_finish(streams[i], &t->text, &t->bytes));
    else TRY(clm_text_stream_push(streams[i], id, &t->text, &t->bytes));
  }
  return stops_add(&q->stops, texts[1], texts[0]) ? CLM_OK : no_memory(s);
}

/* The text of the token as far as it is certain; at the end of the sequence all that was held back. */
static clm_status find_text(const session *s, sequence *q, clm_generate_piece *p) {
  bool at_end = p->end != CLM_GENERATE_GOES_ON;
  if (!q->shown) return CLM_OK;
  if (p->end != CLM_GENERATE_STOP_ID) TRY(add_text(s, q, p->id));
  if (at_end) TRY(add_text(s, q, -1));
  stops_found found = stops_look(&q->stops, at_end);
  if (found.stopped) p->end = CLM_GENERATE_STOP_STRING;
  p->text = found.text;
  p->bytes = found.bytes;
  return CLM_OK;
}

static clm_status not_finite(const session *s, const sequence *q, int64_t i) {
  return context_fail(s->context, CLM_BAD_FORMAT,
                      "generate: after %lld tokens of sequence %lld the logits are not finite numbers: the model "
                      "overflows, or its weights are damaged",
                      (long long)(q->prompt_tokens + q->made), (long long)i);
}

/* The sampler changes what it samples from: it gets a copy where the logits are still wanted. */
static clm_status choose(session *s, sequence *q, float *logits, clm_generate_piece *p) {
  const clm_generate_args *a = s->args;
  bool wanted = a->logprobs || a->top_logprobs;
  if (wanted) memcpy(s->scratch, logits, (size_t)s->vocab * sizeof *logits);
  p->id = q->next = clm_sampler_sample(q->sampler, wanted ? s->scratch : logits);
  if (p->id < 0) return not_finite(s, q, p->sequence);
  if (!wanted) return CLM_OK;
  clm_token_logprob chosen = {.id = p->id};
  clm_token_logprobs(logits, s->vocab, &chosen, s->top, a->top_logprobs);
  p->logprob = chosen.logprob;
  p->top = s->top;
  return isfinite(chosen.logprob) ? CLM_OK : not_finite(s, q, p->sequence);
}

static clm_status step_sequence(session *s, int64_t row) {
  const clm_generate_args *a = s->args;
  sequence *q = &s->sequences[s->active[row]];
  clm_generate_piece p = {.sequence = s->active[row]};
  TRY(choose(s, q, s->logits + row * s->vocab, &p));
  q->made++;
  s->stats.new_tokens++;
  if (is_stop_id(s, p.id)) p.end = CLM_GENERATE_STOP_ID;
  else if (q->made == a->count) p.end = CLM_GENERATE_COUNT;
  TRY(find_text(s, q, &p));
  q->ended = p.end != CLM_GENERATE_GOES_ON;
  if (a->emit && !a->emit(a->user, &p)) q->ended = true;
  return CLM_OK;
}

/* Rows of sequences that have ended are removed; with `into`, their states are copied there. */
static clm_status leave_rows(session *s) {
  int64_t count = 0;
  for (int64_t row = 0; row < s->count; row++) {
    int64_t i = s->active[row];
    if (s->sequences[i].ended) {
      if (s->args->into) TRY(clm_model_state_copy(s->args->into, i, s->state, row, 1));
      continue;
    }
    if (count < row)
      memcpy(s->logits + count * s->vocab, s->logits + row * s->vocab, (size_t)s->vocab * sizeof *s->logits);
    s->staying[count] = row;
    s->active[count++] = i;
  }
  if (count > 0 && count < s->count) {
    clm_model_state *fewer;
    TRY(clm_model_state_fork(s->state, s->staying, count, &fewer));
    clm_model_state_destroy(&s->state);
    s->state = fewer;
  }
  s->count = count;
  return CLM_OK;
}

/* The last token of a sequence is only run where its state is wanted. */
static clm_status steps(session *s) {
  bool into = s->args->into != NULL;
  while (s->count > 0) {
    for (int64_t row = 0; row < s->count; row++) TRY(step_sequence(s, row));
    if (!into) TRY(leave_rows(s));
    if (s->count > 0) TRY(decode(s));
    if (into) TRY(leave_rows(s));
  }
  return CLM_OK;
}

/* ---- The whole ---- */

static clm_status begin_state(session *s) {
  const clm_generate_args *a = s->args;
  return a->from ? clm_model_state_fork(a->from, NULL, s->batch, &s->state)
                 : clm_model_state_create(s->model, s->batch, &s->state);
}

static clm_status prepare(session *s) {
  TRY(check(s));
  TRY(begin_state(s)); /* refuses a batch that is too large */
  size_t batch = (size_t)s->batch;
  s->sequences = calloc(batch, sizeof *s->sequences);
  s->active = calloc(batch, sizeof *s->active);
  s->staying = calloc(batch, sizeof *s->staying);
  s->logits = calloc(batch * (size_t)s->vocab, sizeof *s->logits);
  s->scratch = calloc((size_t)s->vocab, sizeof *s->scratch);
  s->top = calloc((size_t)s->args->top_logprobs + 1, sizeof *s->top);
  if (!s->sequences || !s->active || !s->staying || !s->logits || !s->scratch || !s->top) return no_memory(s);
  for (s->count = 0; s->count < s->batch; s->count++) {
    s->active[s->count] = s->count;
    TRY(begin_sequence(s, s->count));
  }
  return CLM_OK;
}

static clm_status run(session *s) {
  TRY(prepare(s));
  if (s->args->ready) s->args->ready(s->args->user);
  double begin = clock_seconds();
  TRY(prefill(s));
  s->stats.prefill_seconds = clock_seconds() - begin;
  if (s->args->count == 0)
    return s->args->into ? clm_model_state_copy(s->args->into, 0, s->state, 0, s->batch) : CLM_OK;
  begin = clock_seconds();
  TRY(steps(s));
  s->stats.decode_seconds = clock_seconds() - begin;
  return CLM_OK;
}

static void free_all(session *s) {
  for (int64_t i = 0; s->sequences && i < s->batch; i++) {
    sequence *q = &s->sequences[i];
    clm_sampler_destroy(&q->sampler);
    clm_text_stream_destroy(&q->shown);
    clm_text_stream_destroy(&q->searched);
    stops_free(&q->stops);
    free(q->prompt);
  }
  clm_model_state_destroy(&s->state);
  clm_buffer_destroy(&s->buffer);
  free(s->sequences);
  free(s->active);
  free(s->staying);
  free(s->logits);
  free(s->scratch);
  free(s->ids);
  free(s->top);
}

clm_status clm_generate(clm_model *model, const clm_tokenizer *tokenizer, const clm_generate_args *args,
                        clm_generate_stats *stats) {
  TRY(CONTEXT_NEED(clm_model_context(model), "generate", args));
  session s = {.model = model,
               .tokenizer = tokenizer,
               .args = args,
               .context = clm_model_context(model),
               .vocab = clm_model_configuration(model)->vocab_size,
               .batch = args->batch ? args->batch : 1};
  clm_status status = run(&s);
  if (status == CLM_OK && stats) *stats = s.stats;
  free_all(&s);
  return status;
}
