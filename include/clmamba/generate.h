/* Text generation: sampling from logits, and the loop around it. */
#ifndef CLMAMBA_GENERATE_H
#define CLMAMBA_GENERATE_H

#include <clmamba/model.h>
#include <clmamba/tokenizer.h>

CLM_BEGIN_DECLS

/* Applied in this order; zeroed members switch a step off. */
typedef struct clm_sampler_options {
  float
      repetition_penalty; /* logits of tokens seen before: divided if positive, else multiplied (CTRL); 0 or 1: off */
  float temperature;      /* 0: always the most likely token                                    */
  int64_t top_k;          /* keep the k most likely                                             */
  float top_p;            /* keep the smallest set whose probability reaches p; 0 or 1: off     */
  float min_p;            /* keep what has at least min_p times the largest probability         */
  uint64_t seed;
} clm_sampler_options;

typedef struct clm_sampler clm_sampler;

CLM_API clm_status clm_sampler_create(clm_context *context, const clm_sampler_options *options, int64_t vocab_size,
                                      clm_sampler **sampler);
CLM_API void clm_sampler_destroy(clm_sampler **sampler);

/* Marks a token as seen, for the repetition penalty; clm_sampler_sample does so itself for what it returns. */
CLM_API void clm_sampler_accept(clm_sampler *sampler, int32_t id);

/* The next token for `logits` (vocab_size floats of the host, changed by the call). The same seed and logits give the
 * same token. Returns 0 if no logit is a number. */
CLM_API int32_t clm_sampler_sample(clm_sampler *sampler, float *logits);

/* Gets the text piece by piece, as it comes; false ends the generation. */
typedef bool (*clm_generate_fn)(void *user, const char *text, size_t bytes);

typedef struct clm_generate_args {
  const char *prompt; /* UTF-8; NULL or "": a newline, or token 0 where the vocabulary has none */
  size_t prompt_bytes;
  int64_t count; /* tokens to generate                                     */
  clm_sampler_options sampler;
  clm_generate_fn emit;
  void *user;
} clm_generate_args;

typedef struct clm_generate_stats {
  int64_t prompt_tokens, new_tokens;
  double prefill_seconds, decode_seconds;
} clm_generate_stats;

/* Emits the continuation of the prompt, without the prompt. `stats` may be NULL. */
CLM_API clm_status clm_generate(clm_model *model, const clm_tokenizer *tokenizer, const clm_generate_args *args,
                                clm_generate_stats *stats);

CLM_END_DECLS

#endif
