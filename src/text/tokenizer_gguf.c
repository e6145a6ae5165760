/* The tokenizer inside a GGUF file. */
#include "text/tokenizer_gguf.h"
#include "core/context.h"
#include "core/try.h"
#include "files/gguf.h"
#include "text/from_bpe.h"
#include <stdlib.h>
#include <string.h>

#define KEY(name) "tokenizer.ggml." name

/* The texts of an array, borrowed from the file; *count is 0 where there is none. */
static clm_status take_texts(clm_context *ctx, const source *file, const char *key, bpe_string **texts,
                             int64_t *count) {
  const gguf_value *value = gguf_find(file, key);
  *count = 0;
  if (!value) return CLM_OK;
  if (!value->array || value->type != GGUF_STRING)
    return context_fail(ctx, CLM_BAD_FORMAT, "%s: %s is not an array of texts", file->path, key);
  *texts = calloc(value->count + 1, sizeof **texts);
  if (!*texts) return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  const void *at = value->data;
  for (; (size_t)*count < value->count; ++*count) {
    gguf_text text = gguf_next_text(&at);
    (*texts)[*count] = (bpe_string){text.text, text.bytes};
  }
  return CLM_OK;
}

static clm_status take_types(clm_context *ctx, const source *file, int64_t token_count, int32_t **types) {
  const gguf_value *value = gguf_find(file, KEY("token_type"));
  if (!value) return CLM_OK;
  if (!value->array || value->type == GGUF_STRING || (int64_t)value->count != token_count)
    return context_fail(ctx, CLM_BAD_FORMAT, "%s: %s is not an array of %lld numbers, one for each token", file->path,
                        KEY("token_type"), (long long)token_count);
  *types = calloc((size_t)token_count + 1, sizeof **types);
  if (!*types) return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  for (size_t i = 0; i < value->count; i++) {
    double type = gguf_element(value, i);
    (*types)[i] = type >= 0 && type <= BPE_TOKEN_BYTE ? (int32_t)type : 0;
  }
  return CLM_OK;
}

static int32_t number_of(const source *file, const char *key) {
  int64_t number;
  return gguf_integer(file, key, &number) && number >= 0 && number <= INT32_MAX ? (int32_t)number : -1;
}

static bool flag_of(const source *file, const char *key) {
  bool flag = false;
  return gguf_flag(file, key, &flag) && flag;
}

/* A text of the file as a string of its own: "" where it is absent or longer than any that is known. */
enum { WORD_BYTES = 40 };
static void take_word(const source *file, const char *key, char word[WORD_BYTES]) {
  gguf_text text;
  word[0] = '\0';
  if (!gguf_string(file, key, &text) || text.bytes >= WORD_BYTES) return;
  memcpy(word, text.text, text.bytes);
  word[text.bytes] = '\0';
}

typedef struct arrays {
  bpe_string *tokens, *merges;
  int32_t *types;
} arrays;

static clm_status read_parts(clm_context *ctx, const source *file, arrays *a, clm_tokenizer **tokenizer) {
  char model[WORD_BYTES], pre[WORD_BYTES];
  bpe_parts parts = {.bos = number_of(file, KEY("bos_token_id")),
                     .eos = number_of(file, KEY("eos_token_id")),
                     .eot = number_of(file, KEY("eot_token_id")),
                     .eom = number_of(file, KEY("eom_token_id")),
                     .pad = number_of(file, KEY("padding_token_id")),
                     .unk = number_of(file, KEY("unknown_token_id")),
                     .add_bos = flag_of(file, KEY("add_bos_token")),
                     .add_eos = flag_of(file, KEY("add_eos_token")),
                     .add_space_prefix = flag_of(file, KEY("add_space_prefix"))};
  take_word(file, KEY("model"), model);
  take_word(file, KEY("pre"), pre);
  if (!gguf_find(file, KEY("model")) || !gguf_find(file, KEY("tokens")))
    return context_fail(
        ctx, CLM_BAD_FORMAT,
        "%s has no tokenizer (%s, %s): convert the model again with one, or give tokens instead of text", file->path,
        KEY("model"), KEY("tokens"));
  if (strcmp(model, "gpt2") != 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: %s is \"%s\", expected \"gpt2\", byte-level BPE", file->path,
                        KEY("model"), model);
  TRY(take_texts(ctx, file, KEY("tokens"), &a->tokens, &parts.token_count));
  TRY(take_texts(ctx, file, KEY("merges"), &a->merges, &parts.merge_count));
  TRY(take_types(ctx, file, parts.token_count, &a->types));
  parts.tokens = a->tokens;
  parts.merges = a->merges;
  parts.token_types = a->types;
  parts.pre = pre[0] ? pre : NULL;
  return tokenizer_from_bpe(ctx, &parts, tokenizer);
}

clm_status tokenizer_load_gguf(clm_context *ctx, const char *path, clm_tokenizer **tokenizer) {
  source file;
  arrays a = {0};
  TRY(gguf_open(ctx, path, &file));
  clm_status status = read_parts(ctx, &file, &a, tokenizer);
  free(a.tokens);
  free(a.merges);
  free(a.types);
  source_close(&file);
  return status;
}
