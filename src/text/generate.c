#include "core/context.h"
#include "core/try.h"
#include <clmamba/generate.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct session {
  clm_model *model;
  const clm_tokenizer *tokenizer;
  const clm_generate_args *args;
  int64_t vocab;
  int32_t *prompt;
  size_t prompt_tokens;
  float *logits; /* on the host */
  clm_sampler *sampler;
  clm_model_state *state;
  clm_buffer *buffer; /* prompt, one token, logits */
  clm_tensor prompt_ids, next_id, device_logits;
} session;

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static clm_status encode_prompt(session *s) {
  const char *text = s->args->prompt;
  size_t bytes = text ? s->args->prompt_bytes : 0;
  s->prompt = calloc(bytes + 1, sizeof *s->prompt);
  if (!s->prompt) return context_fail(clm_model_context(s->model), CLM_OUT_OF_MEMORY, "generate: out of host memory");
  if (bytes) return clm_tokenizer_encode(s->tokenizer, text, bytes, s->prompt, bytes, &s->prompt_tokens);
  /* Nothing given: as after the end of a line. A vocabulary without newlines begins with its token 0. */
  if (clm_tokenizer_encode(s->tokenizer, "\n", 1, s->prompt, 1, &s->prompt_tokens)) s->prompt[0] = 0;
  s->prompt_tokens = 1;
  return CLM_OK;
}

static clm_status prepare(session *s) {
  clm_context *ctx = clm_model_context(s->model);
  if (clm_tokenizer_vocab_size(s->tokenizer) > s->vocab)
    return context_fail(ctx, CLM_BAD_FORMAT, "the tokenizer has %lld tokens, the model only %lld",
                        (long long)clm_tokenizer_vocab_size(s->tokenizer), (long long)s->vocab);
  if (s->args->count < 0)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "generate: count is %lld, at least 0 is expected",
                        (long long)s->args->count);
  TRY(encode_prompt(s));
  TRY(clm_sampler_create(ctx, &s->args->sampler, clm_tokenizer_vocab_size(s->tokenizer), &s->sampler));
  TRY(clm_model_state_create(s->model, 1, &s->state));
  s->logits = malloc((size_t)s->vocab * sizeof *s->logits);
  if (!s->logits) return context_fail(ctx, CLM_OUT_OF_MEMORY, "generate: out of host memory");
  size_t ids = (s->prompt_tokens * sizeof *s->prompt + 63) / 64 * 64;
  TRY(clm_buffer_create(ctx, ids + 64 + (size_t)s->vocab * sizeof *s->logits, &s->buffer));
  s->prompt_ids = clm_tensor_of(s->buffer, 0, CLM_I32, 2, (int64_t[]){1, (int64_t)s->prompt_tokens});
  s->next_id = clm_tensor_of(s->buffer, ids, CLM_I32, 1, (int64_t[]){1});
  s->device_logits = clm_tensor_of(s->buffer, ids + 64, CLM_F32, 2, (int64_t[]){1, s->vocab});
  return CLM_OK;
}

static clm_status read_logits(session *s) {
  return clm_tensor_read(s->device_logits, s->logits, (size_t)s->vocab * sizeof *s->logits);
}

static clm_status run(session *s, clm_generate_stats *stats) {
  double begin = seconds();
  TRY(clm_tensor_write(s->prompt_ids, s->prompt, s->prompt_tokens * sizeof *s->prompt));
  TRY(clm_model_prefill(s->model, s->state, s->prompt_ids, NULL, s->device_logits));
  TRY(read_logits(s));
  for (size_t i = 0; i < s->prompt_tokens; i++) clm_sampler_accept(s->sampler, s->prompt[i]);
  stats->prompt_tokens = (int64_t)s->prompt_tokens;
  stats->prefill_seconds = seconds() - begin;
  begin = seconds();
  for (int64_t i = 0; i < s->args->count; i++) {
    int32_t id = clm_sampler_sample(s->sampler, s->logits);
    size_t bytes;
    const char *text = clm_tokenizer_token(s->tokenizer, id, &bytes);
    stats->new_tokens++;
    if (s->args->emit && !s->args->emit(s->args->user, text, bytes)) break;
    if (i + 1 == s->args->count) break;
    TRY(clm_tensor_write(s->next_id, &id, sizeof id));
    TRY(clm_model_decode(s->model, s->state, s->next_id, s->device_logits));
    TRY(read_logits(s));
  }
  stats->decode_seconds = seconds() - begin;
  return CLM_OK;
}

clm_status clm_generate(clm_model *model, const clm_tokenizer *tokenizer, const clm_generate_args *args,
                        clm_generate_stats *stats) {
  session s = {.model = model, .tokenizer = tokenizer, .args = args};
  clm_generate_stats measured = {0};
  s.vocab = clm_model_configuration(model)->vocab_size;
  clm_status status = prepare(&s);
  if (status == CLM_OK) status = run(&s, &measured);
  clm_model_state_destroy(&s.state);
  clm_sampler_destroy(&s.sampler);
  clm_buffer_destroy(&s.buffer);
  free(s.logits);
  free(s.prompt);
  if (stats) *stats = measured;
  return status;
}
