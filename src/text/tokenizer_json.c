/* tokenizer.json in the form that Hugging Face's `tokenizers` reads.
 *
 * What clmamba makes itself: for characters a WordLevel model over single characters, a pre-tokenizer that splits
 * before every one, a decoder that fuses them; for bytes a BPE model without merges over the printable stand-ins that
 * ByteLevel gives to bytes. These two are recognised when they are read; any other BPE model is a pipeline. */
#include "core/context.h"
#include "core/file.h"
#include "core/json_print.h"
#include "core/try.h"
#include "files/gguf.h"
#include "text/pipeline_json.h"
#include "text/tokenizer.h"
#include "text/tokenizer_gguf.h"
#include "text/utf8.h"
#include <stdlib.h>
#include <string.h>

/* ---- Writing ---- */

static json_t *vocabulary_json(const clm_tokenizer *t) {
  json_t *vocab = json_object();
  int failed = vocab ? 0 : -1;
  for (int64_t i = 0; i < t->codes.size && !failed; i++)
    failed = json_object_set_new(vocab, t->codes.spellings[i], json_integer(i));
  if (!failed) return vocab;
  json_decref(vocab);
  return NULL;
}

static json_t *codes_json(const clm_tokenizer *t) {
  json_t *vocab = vocabulary_json(t), *model, *splitter, *decode;
  if (!vocab) return NULL;
  if (t->kind == CLM_VOCABULARY_BYTE) {
    model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:o, s:[]}", "type", "BPE", "dropout", "unk_token",
                      "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0, "vocab",
                      vocab, "merges");
    splitter = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1,
                         "use_regex", 0);
    decode = json_incref(splitter);
  } else {
    model = json_pack("{s:s, s:o, s:s}", "type", "WordLevel", "vocab", vocab, "unk_token", "<unk>");
    splitter = json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", "[\\s\\S]", "behavior",
                         "Isolated", "invert", 0);
    decode = json_pack("{s:s}", "type", "Fuse");
  }
  return json_pack("{s:s, s:n, s:n, s:[], s:n, s:o, s:n, s:o, s:o}", "version", "1.0", "truncation", "padding",
                   "added_tokens", "normalizer", "pre_tokenizer", splitter, "post_processor", "decoder", decode,
                   "model", model);
}

/* No byte or character is a special token, though the model's files may name one by its number: transformers would
 * leave it out of a text.
 *
 * Without a tokenizer_config.json transformers takes the tokenizer of its Mamba models, which splits words, whatever
 * tokenizer.json says. */
static json_t *config_json(const clm_tokenizer *t) {
  static const char *const keys[TOKENIZER_SPECIALS] = {"bos_token", "eos_token", "pad_token", "unk_token"};
  json_t *json = json_pack("{s:s, s:b}", "tokenizer_class", t->class_name ? t->class_name : "PreTrainedTokenizerFast",
                           "clean_up_tokenization_spaces", 0);
  int failed = json ? 0 : -1;
  for (int which = 0; which < TOKENIZER_SPECIALS; which++)
    if (t->pipeline && t->special[which] >= 0)
      failed |= json_object_set_new(json, keys[which], json_string(clm_tokenizer_spelling(t, t->special[which])));
  if (!failed) return json;
  json_decref(json);
  return NULL;
}

static clm_status save_text(clm_context *ctx, const char *directory, const char *name, const char *text,
                            size_t bytes) {
  char *path = file_path(directory, name);
  clm_status status = path && text ? file_replace(ctx, path, (file_part[]){{text, bytes}}, 1)
                                   : context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  free(path);
  return status;
}

/* The text as it was read, or else the JSON, which is released. */
static clm_status save(clm_context *ctx, const char *directory, const char *name, const char *text, size_t bytes,
                       json_t *json) {
  if (text) return save_text(ctx, directory, name, text, bytes);
  char *made = json ? json_print(json, JSON_INDENT(2)) : NULL;
  byte_buffer line = {0};
  if (!made || !bytes_append(&line, made, strlen(made)) || !bytes_append(&line, "\n", 1)) line.bytes = 0;
  clm_status status = save_text(ctx, directory, name, line.bytes ? line.data : NULL, line.bytes);
  bytes_free(&line);
  free(made);
  json_decref(json);
  return status;
}

clm_status clm_tokenizer_save(const clm_tokenizer *t, const char *directory) {
  TRY(HANDLE_NEED(t, "tokenizer_save", directory));
  TRY(save(t->context, directory, "tokenizer.json", t->json, t->json_bytes, t->json ? NULL : codes_json(t)));
  for (int which = 0; which < COMPANIONS_SAVED; which++) {
    const bool made = which == COMPANION_CONFIG && !t->saved[which];
    if (t->saved[which] || made)
      TRY(save(t->context, directory, companion_names[which], t->saved[which], t->saved_bytes[which],
               made ? config_json(t) : NULL));
  }
  return CLM_OK;
}

/* ---- Reading ---- */

/* The code of a vocabulary entry; false if it is not a single character (or byte). */
static bool entry_code(clm_vocabulary kind, const char *text, uint32_t *code) {
  size_t bytes = strlen(text);
  if (bytes == 0 || utf8_decode(text, bytes, code) != bytes) return false;
  if (kind == CLM_VOCABULARY_CHAR) return true;
  int byte = byte_level_byte(*code);
  *code = (uint32_t)byte;
  return byte >= 0;
}

/* codes[token] from {"text": token, ...}; tokens must be 0 .. size - 1. */
static clm_status read_codes(const json_reader *r, clm_vocabulary kind, json_t *vocab, uint32_t *codes,
                             char *filled) {
  json_int_t size = (json_int_t)json_object_size(vocab);
  const char *text;
  json_t *value;
  json_object_foreach(vocab, text, value) {
    json_int_t token = json_is_integer(value) ? json_integer_value(value) : -1;
    if (token < 0 || token >= size || filled[token])
      return context_fail(r->context, CLM_BAD_FORMAT, "%s: the tokens of the vocabulary are not numbered 0 to %lld",
                          r->path, (long long)size - 1);
    if (!entry_code(kind, text, &codes[token]))
      return context_fail(r->context, CLM_UNSUPPORTED,
                          "%s: a vocabulary of whole words; only BPE, bytes and single characters are supported",
                          r->path);
    filled[token] = 1;
  }
  return CLM_OK;
}

static clm_status read_code_vocabulary(const json_reader *r, const json_t *json, clm_tokenizer *t) {
  json_t *vocab = json_object_get(json_object_get(json, "model"), "vocab");
  size_t size = json_object_size(vocab);
  if (size == 0) return context_fail(r->context, CLM_BAD_FORMAT, "%s: the vocabulary is empty", r->path);
  uint32_t *codes = calloc(size, sizeof *codes);
  char *filled = calloc(size, 1);
  clm_status status = codes && filled ? read_codes(r, t->kind, vocab, codes, filled)
                                      : context_fail(r->context, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  free(filled);
  if (!status) return code_vocabulary_create(r->context, t->kind, codes, (int64_t)size, &t->codes);
  free(codes);
  return status;
}

/* Bytes and nothing else: no merges, no added tokens, words that are not split. */
static bool is_byte_vocabulary(const json_t *json) {
  const json_t *model = json_object_get(json, "model"), *splitter = json_object_get(json, "pre_tokenizer");
  json_t *vocab = json_object_get(model, "vocab"), *value;
  const char *text, *normal = json_type_name(json_object_get(json, "normalizer"));
  if (json_array_size(json_object_get(model, "merges")) || json_array_size(json_object_get(json, "added_tokens")) ||
      strcmp(json_type_name(splitter), "ByteLevel") != 0 || json_flag(splitter, "add_prefix_space", true) ||
      strcmp(json_type_name(json_object_get(json, "decoder")), "ByteLevel") != 0 || strcmp(normal, "absent") != 0)
    return false;
  json_object_foreach(vocab, text, value) {
    uint32_t code;
    if (!entry_code(CLM_VOCABULARY_BYTE, text, &code)) return false;
  }
  return json_object_size(vocab) > 0;
}

static clm_status find_kind(const json_reader *r, const json_t *json, clm_vocabulary *kind) {
  const json_t *model = json_object_get(json, "model");
  const char *type = json_type_name(model), *splitter = json_type_name(json_object_get(json, "pre_tokenizer"));
  bool untyped = json_is_object(model) && !json_object_get(model, "type") && json_object_get(model, "merges");
  bool bpe = strcmp(type, "BPE") == 0 || untyped; /* files before `tokenizers` 0.9 have no type */
  *kind = bpe ? (is_byte_vocabulary(json) ? CLM_VOCABULARY_BYTE : CLM_VOCABULARY_BPE) : CLM_VOCABULARY_CHAR;
  if (bpe || (strcmp(type, "WordLevel") == 0 && strcmp(splitter, "Split") == 0)) return CLM_OK;
  return context_fail(r->context, CLM_UNSUPPORTED,
                      "%s: model \"%.40s\" with pre-tokenizer \"%.40s\"; only BPE, bytes and single characters are "
                      "supported",
                      r->path, type, splitter);
}

clm_status tokenizer_from_json(const json_reader *r, const json_t *json, char *text, size_t bytes,
                               clm_tokenizer **tokenizer) {
  clm_vocabulary kind;
  *tokenizer = NULL;
  clm_status status = find_kind(r, json, &kind);
  if (!status) status = tokenizer_new(r->context, kind, tokenizer);
  if (status) {
    free(text);
    return status;
  }
  clm_tokenizer *t = *tokenizer;
  t->json = text, t->json_bytes = bytes;
  status = kind == CLM_VOCABULARY_BPE ? pipeline_from_json(r, json, t->pipeline) : read_code_vocabulary(r, json, t);
  if (status) clm_tokenizer_destroy(tokenizer);
  return status;
}

/* With the files next to it, which become the tokenizer's where they belong to it. */
static clm_status load_with(clm_context *ctx, const char *path, companions *c, clm_tokenizer **tokenizer) {
  json_t *json;
  char *text;
  size_t bytes;
  TRY(json_read(ctx, path, TOKENIZER_FILE_BYTES, JSON_EXACT, &json, &text, &bytes));
  clm_status status = companions_apply(ctx, c, json);
  if (status) free(text);
  else status = tokenizer_from_json(&(json_reader){ctx, path}, json, text, bytes, tokenizer);
  json_decref(json);
  TRY(status);
  for (int which = 0; which < COMPANIONS_SAVED; which++) {
    (*tokenizer)->saved[which] = c->text[which];
    (*tokenizer)->saved_bytes[which] = c->bytes[which];
    c->text[which] = NULL;
  }
  (*tokenizer)->class_name = companions_class(c);
  return tokenizer_take_specials(*tokenizer, c);
}

static clm_status load(clm_context *ctx, const char *path, const char *directory, clm_tokenizer **tokenizer) {
  companions c;
  if (!path) return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  TRY(companions_read(ctx, directory, &c));
  clm_status status = load_with(ctx, path, &c, tokenizer);
  companions_free(&c);
  if (status) clm_tokenizer_destroy(tokenizer);
  return status;
}

clm_status clm_tokenizer_load(clm_context *ctx, const char *directory, clm_tokenizer **tokenizer) {
  if (tokenizer) *tokenizer = NULL;
  TRY(CONTEXT_NEED(ctx, "tokenizer_load", directory, tokenizer));
  if (gguf_is(directory)) return tokenizer_load_gguf(ctx, directory, tokenizer);
  TRY(source_check_directory(ctx, directory));
  char *path = file_path(directory, "tokenizer.json");
  clm_status status = load(ctx, path, directory, tokenizer);
  free(path);
  return status;
}
