/* A tokenizer from the parts that a GGUF file carries (tokenizer.ggml.*) instead of a tokenizer.json. */
#ifndef CLM_TEXT_FROM_BPE_H
#define CLM_TEXT_FROM_BPE_H

#include <clmamba/tokenizer.h>

typedef struct bpe_string { /* need not be zero-terminated */
  const char *text;
  size_t bytes;
} bpe_string;

/* As tokenizer.ggml.token_type numbers them. */
enum {
  BPE_TOKEN_NORMAL = 1,
  BPE_TOKEN_UNKNOWN = 2,
  BPE_TOKEN_CONTROL = 3,      /* special: matched in the text, skipped by skip_special_tokens */
  BPE_TOKEN_USER_DEFINED = 4, /* matched in the text                                          */
  BPE_TOKEN_UNUSED = 5,
  BPE_TOKEN_BYTE = 6
};

typedef struct bpe_parts {
  const bpe_string *tokens; /* token_count, spelled as byte level spells them */
  int64_t token_count;
  const bpe_string *merges; /* merge_count, "left right", the first merges first */
  int64_t merge_count;
  const int32_t *token_types; /* token_count, or NULL: all normal */
  const char *pre; /* tokenizer.ggml.pre: "gpt-2", "olmo" (GPT-NeoX), "falcon", ...; NULL or "default": GPT-2's */
  int32_t bos, eos, pad, unk; /* -1: none */
  int32_t eot, eom;           /* ends of a turn and of a message, -1: none */
  bool add_bos, add_eos, add_space_prefix;
} bpe_parts;

/* What is borrowed may be freed afterwards. The tokenizer saves as a tokenizer.json does. A `pre` that is not known,
 * a merge of tokens that are missing, a token twice: a message in the context. */
clm_status tokenizer_from_bpe(clm_context *context, const bpe_parts *parts, clm_tokenizer **tokenizer);

#endif
