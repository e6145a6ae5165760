/* The parts become a tokenizer.json in memory, and that is read as any other. */
#include "text/from_bpe.h"
#include "core/context.h"
#include "core/json_print.h"
#include "core/try.h"
#include "text/tokenizer.h"
#include "text/utf8.h"
#include <stdlib.h>
#include <string.h>

#define SOURCE "the embedded tokenizer"

#define LLAMA3(digits)                                                                                               \
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits                                               \
  "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* The pre-tokenizers by the names that llama.cpp's converter gives them; each line is one that it runs alike. */
static const struct {
  const char *names;   /* with spaces between them                           */
  bool nfc;            /* its tokenizer.json normalizes                      */
  bool falcon;         /* punctuation, digits, groups of three               */
  bool digits;         /* one by one, before all else                        */
  bool ignore_merges;  /* a word that is a token is that token               */
  const char *pattern; /* NULL: GPT-2's, which ByteLevel brings along        */
} kinds[] = {
    {.names = "default gpt-neox mpt olmo", .nfc = true},
    {.names = "gpt-2 phi-2 jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum modern-bert jina-es jina-de "
              "jina-v2-es jina-v2-de"},
    {.names = "falcon", .falcon = true},
    {.names = "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2", .digits = true},
    {.names = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     .ignore_merges = true,
     .pattern = LLAMA3("\\p{N}{1,3}")},
    {.names = "dbrx smaug-bpe glm4 chatglm-bpe", .pattern = LLAMA3("\\p{N}{1,3}")},
    {.names = "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez", .nfc = true, .pattern = LLAMA3("\\p{N}")},
    {.names = "stablelm2 hunyuan solar-open grok-2", .pattern = LLAMA3("\\p{N}")},
};

static json_t *split_json(const char *pattern) {
  return json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", pattern, "behavior", "Isolated",
                   "invert", 0);
}

static json_t *pretokenizer_json(size_t kind, bool prefix) {
  json_t *bytes = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", prefix, "trim_offsets",
                            1, "use_regex", !kinds[kind].pattern);
  if (kinds[kind].falcon)
    return json_pack("{s:s, s:[{s:s, s:s}, o, {s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type",
                     "Punctuation", "behavior", "Contiguous", bytes, "type", "Digits", "individual_digits", 0,
                     split_json("[0-9][0-9][0-9]"));
  if (kinds[kind].digits)
    return json_pack("{s:s, s:[{s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type", "Digits",
                     "individual_digits", 1, bytes);
  if (!kinds[kind].pattern) return bytes;
  return json_pack("{s:s, s:[o, o]}", "type", "Sequence", "pretokenizers", split_json(kinds[kind].pattern), bytes);
}

/* A token of a GGUF file, which may hold anything. */
static clm_status check_text(clm_context *ctx, const char *what, int64_t number, const bpe_string *s) {
  if (s->bytes == 0 || (!memchr(s->text, 0, s->bytes) && utf8_valid(s->text, s->bytes) == s->bytes)) return CLM_OK;
  return context_fail(ctx, CLM_BAD_FORMAT, SOURCE ": %s %lld is not UTF-8 without zero bytes", what,
                      (long long)number);
}

static clm_status vocabulary_json(clm_context *ctx, const bpe_parts *p, json_t *vocab, json_t *added,
                                  byte_buffer *key) {
  for (int64_t i = 0; i < p->token_count; i++) {
    const bpe_string *token = &p->tokens[i];
    int32_t type = p->token_types ? p->token_types[i] : BPE_TOKEN_NORMAL;
    TRY(check_text(ctx, "token", i, token));
    key->bytes = 0;
    if (!bytes_append(key, token->text, token->bytes) || !bytes_append(key, "", 1))
      return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
    if (json_object_get(vocab, key->data))
      return context_fail(ctx, CLM_BAD_FORMAT, SOURCE ": the token \"%.60s\" is there twice", key->data);
    bool special = type == BPE_TOKEN_CONTROL;
    json_t *entry = special || type == BPE_TOKEN_USER_DEFINED
                        ? json_pack("{s:I, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i, "content", key->data,
                                    "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", special)
                        : NULL;
    if (json_object_set_new(vocab, key->data, json_integer(i)) || (entry && json_array_append_new(added, entry)))
      return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  }
  return CLM_OK;
}

static clm_status merges_json(clm_context *ctx, const bpe_parts *p, json_t *merges) {
  for (int64_t i = 0; i < p->merge_count; i++) {
    TRY(check_text(ctx, "merge", i, &p->merges[i]));
    if (json_array_append_new(merges, json_stringn(p->merges[i].text, p->merges[i].bytes)))
      return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  }
  return CLM_OK;
}

/* What add_bos and add_eos put around a text. */
static json_t *template_json(const bpe_parts *p) {
  json_t *single = json_array(), *special = json_object();
  int failed = 0;
  for (int which = 0; which < 3; which++) {
    const char *name = which == 0 ? "bos" : which == 2 ? "eos" : NULL;
    int32_t id = which == 0 ? p->bos : p->eos;
    if (!name)
      failed |= json_array_append_new(single, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
    else if ((which == 0 ? p->add_bos : p->add_eos) && id >= 0 && id < p->token_count) {
      const bpe_string *token = &p->tokens[id];
      failed |= json_array_append_new(single, json_pack("{s:{s:s, s:i}}", "SpecialToken", "id", name, "type_id", 0));
      failed |= json_object_set_new(
          special, name,
          json_pack("{s:s, s:[i], s:[s%]}", "id", name, "ids", (int)id, "tokens", token->text, token->bytes));
    }
  }
  if (failed) {
    json_decref(single);
    json_decref(special);
    return NULL;
  }
  return json_pack("{s:s, s:o, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}], s:o}", "type", "TemplateProcessing", "single",
                   single, "pair", "Sequence", "id", "A", "type_id", 0, "Sequence", "id", "B", "type_id", 1,
                   "special_tokens", special);
}

static json_t *parts_json(const bpe_parts *p, size_t kind, json_t *vocab, json_t *added, json_t *merges) {
  json_t *normal = kinds[kind].nfc ? json_pack("{s:s}", "type", "NFC") : json_null();
  json_t *model =
      json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:O, s:O}", "type", "BPE", "dropout", "unk_token",
                "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0, "ignore_merges",
                kinds[kind].ignore_merges, "vocab", vocab, "merges", merges);
  json_t *decode = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1,
                             "use_regex", 1);
  return json_pack("{s:s, s:n, s:n, s:O, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation", "padding",
                   "added_tokens", added, "normalizer", normal, "pre_tokenizer",
                   pretokenizer_json(kind, p->add_space_prefix), "post_processor", template_json(p), "decoder",
                   decode, "model", model);
}

static clm_status build(clm_context *ctx, const bpe_parts *p, size_t kind, clm_tokenizer **tokenizer) {
  json_t *vocab = json_object(), *added = json_array(), *merges = json_array(), *json = NULL;
  byte_buffer key = {0};
  clm_status status = vocab && added && merges
                          ? vocabulary_json(ctx, p, vocab, added, &key)
                          : context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  bytes_free(&key);
  if (!status) status = merges_json(ctx, p, merges);
  if (!status) json = parts_json(p, kind, vocab, added, merges);
  char *text = json ? json_print(json, JSON_INDENT(2)) : NULL;
  if (!status && !text) status = context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  if (!status) status = tokenizer_from_json(&(json_reader){ctx, SOURCE}, json, text, strlen(text), tokenizer);
  json_decref(json);
  json_decref(vocab);
  json_decref(added);
  json_decref(merges);
  return status;
}

clm_status tokenizer_from_bpe(clm_context *ctx, const bpe_parts *p, clm_tokenizer **tokenizer) {
  *tokenizer = NULL;
  const char *pre = p->pre && *p->pre ? p->pre : "default";
  size_t kind = 0, count = sizeof kinds / sizeof *kinds;
  while (kind < count && !is_listed(kinds[kind].names, pre)) kind++;
  if (kind == count)
    return context_fail(ctx, CLM_UNSUPPORTED, SOURCE ": the pre-tokenizer \"%.40s\" is not known", pre);
  TRY(build(ctx, p, kind, tokenizer));
  const int32_t given[TOKENIZER_SPECIALS] = {p->bos, p->eos, p->pad, p->unk};
  for (int which = 0; which < TOKENIZER_SPECIALS; which++)
    (*tokenizer)->special[which] = clm_tokenizer_spelling(*tokenizer, given[which]) ? given[which] : -1;
  (*tokenizer)->begin = (*tokenizer)->special[CLM_TOKEN_BOS];
  const int32_t ends[] = {p->eos, p->eot, p->eom};
  if (tokenizer_set_ends(*tokenizer, ends, sizeof ends / sizeof *ends)) return CLM_OK;
  clm_tokenizer_destroy(tokenizer);
  return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
}
