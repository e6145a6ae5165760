/* Text to token numbers and back, by the tokenizer.json of a model directory.
 *
 * Three kinds: byte-level BPE as the checkpoints of Hugging Face carry it (GPT-NeoX, falcon-mamba and their family),
 * bytes (256 tokens, token = byte) and characters (the Unicode code points of a text, sorted). What clmamba writes,
 * Hugging Face's `tokenizers` loads; what it reads, it encodes and decodes as that library does. docs/tokenizer.md
 * says which parts of tokenizer.json there are, and by which version of Unicode.
 *
 * Thread safety: encode and decode only read; messages of failures go to the context. */
#ifndef CLMAMBA_TOKENIZER_H
#define CLMAMBA_TOKENIZER_H

#include <clmamba/context.h>

CLM_BEGIN_DECLS

typedef enum clm_vocabulary { CLM_VOCABULARY_BYTE, CLM_VOCABULARY_CHAR, CLM_VOCABULARY_BPE } clm_vocabulary;

typedef struct clm_tokenizer clm_tokenizer;

/* The vocabulary of `text`, bytes or characters; characters need UTF-8 without zero bytes. */
CLM_API clm_status clm_tokenizer_create(clm_context *context, clm_vocabulary kind, const char *text, size_t bytes,
                                        clm_tokenizer **tokenizer);

/* Reads the tokenizer inside a GGUF file (byte-level BPE, which it calls "gpt2"), or of a directory tokenizer.json,
 * with what transformers takes from tokenizer_config.json, special_tokens_map.json, added_tokens.json,
 * generation_config.json and config.json where they are: further added and special tokens, and, of the classes
 * GPTNeoXTokenizer, GPT2Tokenizer and LlamaTokenizer, the parts that these build themselves (docs/tokenizer.md).
 * Saving writes tokenizer.json and the files that belong to it, as they were read, to the byte; there is always a
 * tokenizer_config.json, with which transformers takes the tokenizer as it is. */
CLM_API clm_status clm_tokenizer_load(clm_context *context, const char *directory, clm_tokenizer **tokenizer);
CLM_API clm_status clm_tokenizer_save(const clm_tokenizer *tokenizer, const char *directory);
CLM_API void clm_tokenizer_destroy(clm_tokenizer **tokenizer);

/* One more than the largest token, added tokens included. Numbers between may be without a token. */
CLM_API int64_t clm_tokenizer_vocab_size(const clm_tokenizer *tokenizer);
CLM_API clm_vocabulary clm_tokenizer_kind(const clm_tokenizer *tokenizer);

/* A zeroed member is the plain case. */
typedef struct clm_encode_options {
  bool add_special_tokens;   /* puts around the text what the model expects there, as `tokenizers` does by default */
  bool plain_special_tokens; /* special tokens that stand in the text are text like any other (what a user typed)  */
} clm_encode_options;

/* Writes at most `capacity` tokens; *count is how many there are, so that a call with capacity 0 measures. There are
 * seldom more than `bytes` of them, but a normalizer or special tokens may add some. `options` may be NULL.
 *
 * In a BPE vocabulary text that is not UTF-8 is read as Python's errors="replace" reads it: each ill-formed
 * subsequence (Unicode, section 3.9, table 3-8) is U+FFFD. A byte vocabulary takes any bytes. In a character
 * vocabulary what is not UTF-8, or not in the vocabulary, is an error that names it and its place. */
CLM_API clm_status clm_tokenizer_encode_with(const clm_tokenizer *tokenizer, const clm_encode_options *options,
                                             const char *text, size_t bytes, int32_t *ids, size_t capacity,
                                             size_t *count);

/* The same without options. */
CLM_API clm_status clm_tokenizer_encode(const clm_tokenizer *tokenizer, const char *text, size_t bytes, int32_t *ids,
                                        size_t capacity, size_t *count);

typedef struct clm_decode_options {
  bool skip_special_tokens;
} clm_decode_options;

/* The text of `count` tokens, always UTF-8: bytes that are none become U+FFFD, numbers without a token nothing.
 * Writes at most `capacity` bytes and no zero byte after them; *bytes is how many there are. `options` may be NULL.
 */
CLM_API clm_status clm_tokenizer_decode(const clm_tokenizer *tokenizer, const clm_decode_options *options,
                                        const int32_t *ids, size_t count, char *text, size_t capacity, size_t *bytes);

/* Decodes one token at a time, for text that is shown as it comes: all pieces together are what
 * clm_tokenizer_decode gives for all tokens together, and each piece is whole characters. What a later token could
 * still complete is held back. One thread at a time; destroy it before its tokenizer. */
typedef struct clm_text_stream clm_text_stream;
CLM_API clm_status clm_text_stream_create(const clm_tokenizer *tokenizer, const clm_decode_options *options,
                                          clm_text_stream **stream);
CLM_API void clm_text_stream_destroy(clm_text_stream **stream);

/* The text that this token completes, perhaps none; borrowed until the next call. */
CLM_API clm_status clm_text_stream_push(clm_text_stream *stream, int32_t id, const char **text, size_t *bytes);

/* What is still held back; the stream is then as new. */
CLM_API clm_status clm_text_stream_finish(clm_text_stream *stream, const char **text, size_t *bytes);

/* The bytes of one token, borrowed; NULL and *bytes 0 for a number outside the vocabulary. A byte-level token may be
 * a part of a character. */
CLM_API const char *clm_tokenizer_token(const clm_tokenizer *tokenizer, int32_t id, size_t *bytes);

/* The token as the vocabulary spells it ("\xc4\xa0the" for " the" at byte level), borrowed, zero-terminated; NULL for
 * a number without a token. And the other way: -1 where there is no such token. */
CLM_API const char *clm_tokenizer_spelling(const clm_tokenizer *tokenizer, int32_t id);
CLM_API int32_t clm_tokenizer_find(const clm_tokenizer *tokenizer, const char *spelling, size_t bytes);

/* What the model's files call by these names; -1 where they name none. */
typedef enum clm_special_token {
  CLM_TOKEN_BOS, /* begins a text         */
  CLM_TOKEN_EOS, /* ends it               */
  CLM_TOKEN_PAD, /* fills a batch         */
  CLM_TOKEN_UNK, /* what nothing else fits */
} clm_special_token;
CLM_API int32_t clm_tokenizer_special(const clm_tokenizer *tokenizer, clm_special_token which);

/* The tokens at which generation ends, borrowed; how many there are. eos_token_id of generation_config.json, a number
 * or a list; without that of config.json; without that the tokenizer's own CLM_TOKEN_EOS. Of a GGUF file its end of
 * text, of a turn and of a message. They need not be tokens of the tokenizer. */
CLM_API size_t clm_tokenizer_ends(const clm_tokenizer *tokenizer, const int32_t **ids);

/* Whether decoding with skip_special_tokens leaves this token out. */
CLM_API bool clm_tokenizer_is_special(const clm_tokenizer *tokenizer, int32_t id);

CLM_END_DECLS

#endif
