/* tokenizer.json in the form that Hugging Face's `tokenizers` reads.
 *
 * Characters: a WordLevel model over single characters, a pre-tokenizer that splits before every one, a decoder that
 * fuses them. Bytes: a BPE model without merges over the printable stand-ins that ByteLevel gives to bytes. */
#include "core/context.h"
#include "core/file.h"
#include "core/try.h"
#include "text/tokenizer.h"
#include "text/utf8.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENIZER_BYTES ((size_t)64 << 20)

/* The character that ByteLevel writes for a byte: itself if it is printable, else the next one from U+0100 on. */
static uint32_t stand_in(uint32_t byte) {
  uint32_t next = 0x100;
  for (uint32_t b = 0; b <= byte; b++) {
    bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    if (b == byte) return printable ? b : next;
    next += !printable;
  }
  return 0;
}

static json_t *vocabulary_json(const clm_tokenizer *t) {
  json_t *vocabulary = json_object();
  int failed = vocabulary ? 0 : -1;
  for (int64_t i = 0; i < t->size && !failed; i++) {
    char text[UTF8_MAX + 1] = "";
    utf8_encode(t->kind == CLM_VOCABULARY_BYTE ? stand_in(t->codes[i]) : t->codes[i], text);
    failed = json_object_set_new(vocabulary, text, json_integer(i));
  }
  if (!failed) return vocabulary;
  json_decref(vocabulary);
  return NULL;
}

static json_t *tokenizer_json(const clm_tokenizer *t) {
  json_t *vocabulary = vocabulary_json(t), *model, *splitter, *decoder;
  if (!vocabulary) return NULL;
  if (t->kind == CLM_VOCABULARY_BYTE) {
    model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:o, s:[]}", "type", "BPE", "dropout", "unk_token",
                      "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0, "vocab",
                      vocabulary, "merges");
    splitter = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1,
                         "use_regex", 0);
    decoder = json_copy(splitter);
  } else {
    model = json_pack("{s:s, s:o, s:s}", "type", "WordLevel", "vocab", vocabulary, "unk_token", "<unk>");
    splitter = json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex", "[\\s\\S]", "behavior",
                         "Isolated", "invert", 0);
    decoder = json_pack("{s:s}", "type", "Fuse");
  }
  return json_pack("{s:s, s:n, s:n, s:[], s:n, s:o, s:n, s:o, s:o}", "version", "1.0", "truncation", "padding",
                   "added_tokens", "normalizer", "pre_tokenizer", splitter, "post_processor", "decoder", decoder,
                   "model", model);
}

/* Writes one JSON object, which is released, as `name` in `directory`. */
static clm_status save_json(clm_context *ctx, const char *directory, const char *name, json_t *json) {
  char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL, *path = file_path(directory, name);
  clm_status status = text && path ? file_replace(ctx, path, (file_part[]){{text, strlen(text)}, {"\n", 1}}, 2)
                                   : context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  free(path);
  free(text);
  json_decref(json);
  return status;
}

/* Beside tokenizer.json stands tokenizer_config.json: without it transformers takes the tokenizer of its Mamba
 * models, which splits words, whatever tokenizer.json says. */
clm_status clm_tokenizer_save(const clm_tokenizer *t, const char *directory) {
  clm_status status = save_json(t->context, directory, "tokenizer.json", tokenizer_json(t));
  if (status) return status;
  return save_json(
      t->context, directory, "tokenizer_config.json",
      json_pack("{s:s, s:b}", "tokenizer_class", "PreTrainedTokenizerFast", "clean_up_tokenization_spaces", 0));
}

/* The code of a vocabulary entry; false if it is not a single character (or byte). */
static bool entry_code(clm_vocabulary kind, const char *text, uint32_t *code) {
  size_t bytes = strlen(text);
  if (bytes == 0 || utf8_decode(text, bytes, code) != bytes) return false;
  if (kind == CLM_VOCABULARY_CHAR) return true;
  for (uint32_t byte = 0; byte < 256; byte++)
    if (stand_in(byte) == *code) {
      *code = byte;
      return true;
    }
  return false;
}

/* codes[token] from {"text": token, ...}; tokens must be 0 .. size - 1. */
static clm_status read_vocabulary(clm_context *ctx, const char *path, clm_vocabulary kind, json_t *vocabulary,
                                  uint32_t *codes, char *filled) {
  json_int_t size = (json_int_t)json_object_size(vocabulary);
  const char *text;
  json_t *value;
  json_object_foreach(vocabulary, text, value) {
    json_int_t token = json_is_integer(value) ? json_integer_value(value) : -1;
    if (token < 0 || token >= size || filled[token])
      return context_fail(ctx, CLM_BAD_FORMAT, "%s: the tokens of the vocabulary are not numbered 0 to %lld", path,
                          (long long)size - 1);
    if (!entry_code(kind, text, &codes[token]))
      return context_fail(ctx, CLM_UNSUPPORTED,
                          "%s: a tokenizer of whole words or word pieces; only character and byte vocabularies are "
                          "supported",
                          path);
    filled[token] = 1;
  }
  return CLM_OK;
}

static const char *type_of(const json_t *json, const char *key) {
  const char *type = json_string_value(json_object_get(json_object_get(json, key), "type"));
  return type ? type : "absent";
}

static clm_status read_json(clm_context *ctx, const char *path, const json_t *json, clm_tokenizer **tokenizer) {
  const json_t *model = json_object_get(json, "model");
  json_t *vocabulary = json_object_get(model, "vocab");
  const char *type = type_of(json, "model"), *splitter = type_of(json, "pre_tokenizer");
  bool bytes = strcmp(type, "BPE") == 0 && strcmp(splitter, "ByteLevel") == 0 &&
               json_array_size(json_object_get(model, "merges")) == 0;
  bool chars = strcmp(type, "WordLevel") == 0 && strcmp(splitter, "Split") == 0;
  if (!bytes && !chars)
    return context_fail(ctx, CLM_UNSUPPORTED,
                        "%s: model \"%.40s\" with pre-tokenizer \"%.40s\"; only character and byte vocabularies are "
                        "supported",
                        path, type, splitter);
  size_t size = json_object_size(vocabulary);
  if (size == 0) return context_fail(ctx, CLM_BAD_FORMAT, "%s: the vocabulary is empty", path);
  clm_vocabulary kind = bytes ? CLM_VOCABULARY_BYTE : CLM_VOCABULARY_CHAR;
  uint32_t *codes = calloc(size, sizeof *codes);
  char *filled = calloc(size, 1);
  clm_status status = codes && filled ? read_vocabulary(ctx, path, kind, vocabulary, codes, filled)
                                      : context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  free(filled);
  if (status) {
    free(codes);
    return status;
  }
  return tokenizer_new(ctx, kind, codes, (int64_t)size, tokenizer);
}

static clm_status load(clm_context *ctx, const char *path, clm_tokenizer **tokenizer) {
  if (!path) return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
  char *text;
  size_t bytes;
  TRY(file_read(ctx, path, MAX_TOKENIZER_BYTES, &text, &bytes));
  json_error_t error;
  json_t *json = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
  free(text);
  clm_status status =
      json ? read_json(ctx, path, json, tokenizer)
           : context_fail(ctx, CLM_BAD_FORMAT, "%s is not valid JSON: line %d: %.100s", path, error.line, error.text);
  json_decref(json);
  return status;
}

clm_status clm_tokenizer_load(clm_context *ctx, const char *directory, clm_tokenizer **tokenizer) {
  *tokenizer = NULL;
  char *path = file_path(directory, "tokenizer.json");
  clm_status status = load(ctx, path, tokenizer);
  free(path);
  return status;
}
