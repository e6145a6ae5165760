/* Text generation: sampling from logits, and the loop around it. docs/generation.md says what each step does. */
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
  uint64_t stream; /* another one draws other numbers from the same seed: a number for each sequence of a batch */
} clm_sampler_options;

typedef struct clm_sampler clm_sampler;

CLM_API clm_status clm_sampler_create(clm_context *context, const clm_sampler_options *options, int64_t vocab_size,
                                      clm_sampler **sampler);
CLM_API void clm_sampler_destroy(clm_sampler **sampler);

/* Marks a token as seen, for the repetition penalty; clm_sampler_sample does so itself for what it returns. */
CLM_API void clm_sampler_accept(clm_sampler *sampler, int32_t id);

/* The next token for `logits` (vocab_size floats of the host, changed by the call). The same seed and logits give the
 * same token. Returns -1 where the logits give no probabilities: one is NaN or +infinity, or all are -infinity. */
CLM_API int32_t clm_sampler_sample(clm_sampler *sampler, float *logits);

/* ln p of a token by the model itself: before penalty, temperature and cuts. */
typedef struct clm_token_logprob {
  int32_t id;
  float logprob;
} clm_token_logprob;

/* From `logits` (vocab_size floats of the host): chosen->logprob for chosen->id, and the `count` most likely tokens,
 * most likely first, equal ones by number. Either may be absent (NULL, 0); `count` is at most vocab_size. Sums are in
 * double. */
CLM_API void clm_token_logprobs(const float *logits, int64_t vocab_size, clm_token_logprob *chosen,
                                clm_token_logprob *top, int64_t count);

typedef enum clm_generate_end {
  CLM_GENERATE_GOES_ON,
  CLM_GENERATE_COUNT,       /* as many tokens as were asked for       */
  CLM_GENERATE_STOP_ID,     /* a stop token; its text is not shown    */
  CLM_GENERATE_STOP_STRING, /* a stop string; it is not shown         */
} clm_generate_end;

/* What the callback gets: one call for each token of each sequence, in the order of the sequences. Everything here is
 * borrowed for the call. */
typedef struct clm_generate_piece {
  int64_t sequence;             /* number of the prompt                                                          */
  int32_t id;                   /* the token                                                                     */
  float logprob;                /* of the token, with top_logprobs or logprobs                                   */
  const clm_token_logprob *top; /* the top_logprobs most likely                                                  */
  const char *text;             /* text that is certain now: whole characters, nothing that may become a stop
                                   string; perhaps none. Not zero-terminated                                     */
  size_t bytes;
  clm_generate_end end; /* of this sequence; if it does not go on, this is its last call, with all held-back text */
} clm_generate_piece;

/* False ends the sequence, with no further call. */
typedef bool (*clm_generate_fn)(void *user, const clm_generate_piece *piece);

/* A text, or tokens where `ids` is given. Of no length: from a given state on; without one the beginning-of-text
 * token, else a newline, else token 0. A text is refused for a token that the model does not have, not for a
 * tokenizer that has more tokens than the model. */
typedef struct clm_prompt {
  const char *text; /* UTF-8 */
  size_t bytes;
  const int32_t *ids;
  size_t count;
} clm_prompt;

typedef struct clm_generate_args {
  const clm_prompt *prompts; /* of any lengths; NULL: one of no length                                  */
  int64_t batch;             /* how many; 0 counts as 1                                                 */
  int64_t count;             /* maximum of tokens to generate for each                                  */
  clm_sampler_options sampler;
  const uint64_t *seeds; /* optional, `batch`: one for each sequence. Else sequence i has sampler.seed and the stream
                            sampler.stream + i. Either way a sequence draws the same numbers in any batch          */
  const char *const *stop_strings; /* optional: zero-terminated, of UTF-8, found wherever tokens begin and end, also
                                      in the spelling of special tokens, which are not shown */
  size_t stop_string_count;
  const int32_t *stop_ids; /* NULL: the tokens at which generation ends by the model's files
                              (clm_tokenizer_ends)                                                        */
  size_t stop_id_count;
  bool logprobs;
  int64_t top_logprobs;        /* how many of the most likely tokens come with each piece                 */
  const clm_model_state *from; /* optional: a state of `batch` rows, or of one that all start from        */
  clm_model_state *into;       /* optional, of `batch` rows, written: after prompt and continuation, the token that
                                  ended it included; may be `from`                                        */
  clm_generate_fn emit;        /* optional */
  void *user;
  void (*ready)(void *user);    /* optional: called once, before the model runs, when the arguments and all prompts
                                   have been checked: the moment to show a prompt */
  const int32_t *more_stop_ids; /* optional: tokens that end a sequence besides those of stop_ids */
  size_t more_stop_id_count;
  /* Optional: called with `user` after each part of the prompts has run, with tokens done and in all; false stops
   * with CLM_INTERRUPTED. */
  bool (*progress)(void *user, int64_t done, int64_t total);
} clm_generate_args;

typedef struct clm_generate_stats {
  int64_t prompt_tokens, new_tokens; /* of all sequences together */
  double prefill_seconds, decode_seconds;
} clm_generate_stats;

/* Continues prompts, each to its own end. Logits without probabilities (see clm_sampler_sample) are CLM_BAD_FORMAT.
 * `tokenizer` may be NULL where prompts are tokens and there are no stop strings: pieces have no text then. `stats`
 * may be NULL. */
CLM_API clm_status clm_generate(clm_model *model, const clm_tokenizer *tokenizer, const clm_generate_args *args,
                                clm_generate_stats *stats);

CLM_END_DECLS

#endif
