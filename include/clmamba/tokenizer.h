/* Text to token numbers and back, by the tokenizer.json of a model directory.
 *
 * Two kinds: bytes (256 tokens, token = byte) and characters (the Unicode code points of a text, sorted). Both are
 * written so that Hugging Face's `tokenizers` loads them.
 *
 * Thread safety: encode and decode only read; sentences of failures go to the context. */
#ifndef CLMAMBA_TOKENIZER_H
#define CLMAMBA_TOKENIZER_H

#include <clmamba/context.h>

CLM_BEGIN_DECLS

typedef enum clm_vocabulary { CLM_VOCABULARY_BYTE, CLM_VOCABULARY_CHAR } clm_vocabulary;

typedef struct clm_tokenizer clm_tokenizer;

/* The vocabulary of `text`; characters need UTF-8 without zero bytes. */
CLM_API clm_status clm_tokenizer_create(clm_context *context, clm_vocabulary kind, const char *text, size_t bytes,
                                        clm_tokenizer **tokenizer);

/* Reads tokenizer.json of `directory`; writes it there (beside, then renamed), with the tokenizer_config.json that
 * makes transformers take it as it is. */
CLM_API clm_status clm_tokenizer_load(clm_context *context, const char *directory, clm_tokenizer **tokenizer);
CLM_API clm_status clm_tokenizer_save(const clm_tokenizer *tokenizer, const char *directory);
CLM_API void clm_tokenizer_destroy(clm_tokenizer **tokenizer);

CLM_API int64_t clm_tokenizer_vocab_size(const clm_tokenizer *tokenizer);
CLM_API clm_vocabulary clm_tokenizer_kind(const clm_tokenizer *tokenizer);

/* Writes at most `capacity` tokens; *count is how many there are (never more than `bytes`). A character outside the
 * vocabulary is an error that names it and its place. */
CLM_API clm_status clm_tokenizer_encode(const clm_tokenizer *tokenizer, const char *text, size_t bytes, int32_t *ids,
                                        size_t capacity, size_t *count);

/* The bytes of one token, borrowed; NULL and *bytes 0 for a number outside the vocabulary. A byte-level token may be
 * a part of a character. */
CLM_API const char *clm_tokenizer_token(const clm_tokenizer *tokenizer, int32_t id, size_t *bytes);

CLM_END_DECLS

#endif
