#include "text/companions.h"
#include "core/context.h"
#include "core/file.h"
#include "core/try.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const companion_names[COMPANIONS] = {
    [COMPANION_CONFIG] = "tokenizer_config.json",
    [COMPANION_MAP] = "special_tokens_map.json",
    [COMPANION_ADDED] = "added_tokens.json",
    [COMPANION_GENERATION] = "generation_config.json",
    [COMPANION_MODEL] = "config.json",
};

/* Names that every tokenizer has, in the order in which new ones get their numbers. */
static const char *const named_keys[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                         "pad_token", "cls_token", "mask_token"};
enum { NAMED = sizeof named_keys / sizeof *named_keys };

/* Classes of transformers that take only vocabulary, merges and post-processor from tokenizer.json. */
struct tokenizer_class {
  const char *name;            /* with or without "Fast" after it                */
  const char *special[NAMED];  /* by default; NULL: none                         */
  bool metaspace;              /* pieces with U+2581 for a space, else bytes     */
  bool nfc, no_post_processor; /* NFC before all; nothing is put around a text   */
  const char *model_types;     /* of config.json for which it is the default     */
};

static const struct tokenizer_class classes[] = {
    {.name = "GPTNeoXTokenizer",
     .special = {"<|endoftext|>", "<|endoftext|>", "<|endoftext|>", NULL, "<|padding|>", NULL, NULL},
     .nfc = true,
     .no_post_processor = true,
     .model_types = "mamba mamba2 falcon_mamba"},
    {.name = "GPT2Tokenizer",
     .special = {"<|endoftext|>", "<|endoftext|>", "<|endoftext|>", NULL, NULL, NULL, NULL},
     .model_types = ""},
    {.name = "LlamaTokenizer",
     .special = {"<s>", "</s>", "<unk>", NULL, NULL, NULL, NULL},
     .metaspace = true,
     .model_types = ""},
};

static clm_status out_of_memory(clm_context *ctx) {
  return context_fail(ctx, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
}

/* ---- The files ---- */

static clm_status read_one(clm_context *ctx, const char *directory, companions *c, int which) {
  char *path = file_path(directory, companion_names[which]);
  if (!path) return out_of_memory(ctx);
  clm_status status = access(path, F_OK) == 0 ? json_read(ctx, path, TOKENIZER_FILE_BYTES, JSON_PYTHON,
                                                          &c->json[which], &c->text[which], &c->bytes[which])
                                              : CLM_OK;
  free(path);
  return status;
}

clm_status companions_read(clm_context *ctx, const char *directory, companions *c) {
  clm_status status = CLM_OK;
  *c = (companions){0};
  for (int which = 0; which < COMPANIONS && !status; which++) status = read_one(ctx, directory, c, which);
  if (status) companions_free(c);
  return status;
}

void companions_free(companions *c) {
  for (int which = 0; which < COMPANIONS; which++) {
    json_decref(c->json[which]);
    free(c->text[which]);
  }
  *c = (companions){0};
}

/* ---- Tokens by name ---- */

static const json_t *member(const companions *c, companion which, const char *key) {
  const json_t *value = json_object_get(c->json[which], key);
  return json_is_null(value) ? NULL : value;
}

/* With added_tokens_decoder in tokenizer_config.json the two older files do not count. */
static bool has_decoder(const companions *c) {
  return json_object_get(c->json[COMPANION_CONFIG], "added_tokens_decoder") != NULL;
}

static const json_t *value_of(const companions *c, const char *key) {
  const json_t *value = has_decoder(c) ? NULL : member(c, COMPANION_MAP, key);
  return value ? value : member(c, COMPANION_CONFIG, key);
}

/* A token is its content, or an object with it. What cannot be a C string is none. */
static byte_string content_of(const json_t *token) {
  const byte_string text = json_text(json_is_object(token) ? json_object_get(token, "content") : token);
  return strlen(text.text) == text.bytes ? text : (byte_string){"", 0};
}

byte_string companions_named(const companions *c, const char *key) {
  const byte_string given = content_of(value_of(c, key));
  for (int i = 0; i < NAMED && !given.bytes && c->kind; i++)
    if (c->kind->special[i] && strcmp(key, named_keys[i]) == 0)
      return (byte_string){c->kind->special[i], strlen(c->kind->special[i])};
  return given;
}

const char *companions_class(const companions *c) { return c->kind ? c->kind->name : NULL; }

/* ---- All added tokens, in order ---- */

typedef struct token_list {
  json_t *tokens; /* array, as in tokenizer.json              */
  json_t *places; /* object: content to its place in `tokens` */
  bool failed;    /* out of memory                            */
} token_list;

/* Adds a token, or sets the flags of one that is there. A bare string is a special token; an object is one if it says
 * so, or is `named`. Of an object that says nothing of it special tokens alone are found before normalization. */
static void put_token(token_list *l, const json_t *token, bool named, json_int_t id) {
  const byte_string content = content_of(token);
  if (!content.bytes) return;
  const json_t *place = json_object_get(l->places, content.text);
  const json_t *before = place ? json_array_get(l->tokens, (size_t)json_integer_value(place)) : NULL;
  const bool asked = json_is_string(token) || named || json_flag(token, "special", false);
  json_t *object =
      json_pack("{s:s, s:b, s:b, s:b, s:b, s:b}", "content", content.text, "single_word",
                json_flag(token, "single_word", false), "lstrip", json_flag(token, "lstrip", false), "rstrip",
                json_flag(token, "rstrip", false), "normalized", json_flag(token, "normalized", !asked), "special",
                asked || json_flag(before, "special", false));
  int failed = object ? 0 : -1;
  if (id >= 0) failed |= json_object_set_new(object, "id", json_integer(id));
  if (before) failed |= json_array_set_new(l->tokens, (size_t)json_integer_value(place), object);
  else {
    failed |= json_object_set_new(l->places, content.text, json_integer((json_int_t)json_array_size(l->tokens)));
    failed |= json_array_append_new(l->tokens, object);
  }
  l->failed = l->failed || failed;
}

/* Where it is not there yet. */
static void put_new(token_list *l, const json_t *token, bool named) {
  if (!json_object_get(l->places, content_of(token).text)) put_token(l, token, named, -1);
}

typedef struct numbered {
  json_int_t id;
  size_t order;
  const json_t *token;  /* an object, or NULL: */
  const char *spelling; /* of added_tokens.json */
} numbered;

static int by_number(const void *a, const void *b) {
  const numbered *x = a, *y = b;
  if (x->id != y->id) return x->id < y->id ? -1 : 1;
  return x->order < y->order ? -1 : x->order > y->order;
}

static bool is_named(const companions *c, const char *spelling) {
  for (int i = 0; i < NAMED; i++)
    if (strcmp(companions_named(c, named_keys[i]).text, spelling) == 0) return true;
  const json_t *extra = value_of(c, "extra_special_tokens"), *each;
  size_t i;
  json_array_foreach(extra, i, each) if (strcmp(content_of(each).text, spelling) == 0) return true;
  return false;
}

/* The tokens that come with a number, sorted by it; of two with one number the later. */
static void put_numbered(token_list *l, const companions *c, const json_t *file_tokens) {
  const json_t *decoder = member(c, COMPANION_CONFIG, "added_tokens_decoder"), *token;
  const json_t *older = has_decoder(c) ? NULL : c->json[COMPANION_ADDED];
  size_t count = 0, i;
  if (has_decoder(c) || !c->kind) file_tokens = NULL; /* else they are in the list already */
  numbered *all =
      calloc(json_object_size(decoder) + json_object_size(older) + json_array_size(file_tokens) + 1, sizeof *all);
  if (!all) {
    l->failed = true;
    return;
  }
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)decoder, key, value) if (json_is_object(value)) all[count] =
      (numbered){strtoll(key, NULL, 10), count, value, NULL},
                                                                                           count++;
  json_object_foreach((json_t *)(uintptr_t)older, key, value) if (json_is_integer(value)) all[count] =
      (numbered){json_integer_value(value), count, NULL, key},
                                                                                          count++;
  json_array_foreach(file_tokens, i, token) {
    all[count] = (numbered){json_integer_value(json_object_get(token, "id")), count, token, NULL};
    count++;
  }
  qsort(all, count, sizeof *all, by_number);
  for (i = 0; i < count && !l->failed; i++) {
    if (i + 1 < count && all[i + 1].id == all[i].id) continue;
    if (all[i].token) {
      put_token(l, all[i].token, false, all[i].id);
      continue;
    }
    const bool special = is_named(c, all[i].spelling);
    json_t *object = json_pack("{s:s, s:b}", "content", all[i].spelling, "special", special);
    if (object) put_token(l, object, false, all[i].id);
    else l->failed = true;
    json_decref(object);
  }
  free(all);
}

static bool is_standard(const char *key) {
  for (int i = 0; i < NAMED; i++)
    if (strcmp(key, named_keys[i]) == 0) return true;
  return false;
}

/* "think_token": "<think>", and the members of extra_special_tokens where that is an object. */
static void put_own_names(token_list *l, const companions *c, companion which) {
  static const char suffix[] = "_token";
  const char *key;
  json_t *value;
  json_object_foreach(c->json[which], key, value) {
    const size_t length = strlen(key);
    if (length >= sizeof suffix && strcmp(key + length - (sizeof suffix - 1), suffix) == 0 && !is_standard(key) &&
        (json_is_string(value) || json_is_object(value)))
      put_new(l, value, true);
  }
  json_t *extra = json_object_get(c->json[which], "extra_special_tokens");
  if (json_is_object(extra)) json_object_foreach(extra, key, value) put_new(l, value, true);
}

static void put_all(token_list *l, const json_t *tokens, bool named) {
  size_t i;
  const json_t *each;
  json_array_foreach(tokens, i, each) put_new(l, each, named);
}

/* extra_special_tokens of both files; additional_special_tokens, their old name, where there are none. */
static void put_extra(token_list *l, const companions *c) {
  const json_t *extra = member(c, COMPANION_CONFIG, "extra_special_tokens"),
               *more = has_decoder(c) ? NULL : member(c, COMPANION_MAP, "extra_special_tokens");
  const bool any = json_array_size(extra) || json_object_size(extra);
  put_all(l, any ? extra : member(c, COMPANION_CONFIG, "additional_special_tokens"), false);
  put_all(l, more, true);
  if (!any && !more && !member(c, COMPANION_CONFIG, "additional_special_tokens") && !has_decoder(c))
    put_all(l, member(c, COMPANION_MAP, "additional_special_tokens"), false);
}

static clm_status merge_tokens(clm_context *ctx, const companions *c, json_t *tokenizer) {
  const json_t *file_tokens = json_object_get(tokenizer, "added_tokens"), *each;
  token_list l = {.tokens = json_array(), .places = json_object()};
  size_t i;
  l.failed = !l.tokens || !l.places;
  if (!c->kind) json_array_foreach(file_tokens, i, each) {
      const byte_string content = content_of(each);
      l.failed |= json_object_set_new(l.places, content.text, json_integer((json_int_t)i)) ||
                  json_array_append_new(l.tokens, json_deep_copy(each));
    }
  put_numbered(&l, c, file_tokens);
  for (i = 0; i < NAMED; i++) {
    const json_t *value = value_of(c, named_keys[i]);
    const byte_string content = companions_named(c, named_keys[i]);
    json_t *standard = value ? NULL : json_string(content.text);
    put_new(&l, value ? value : standard, true);
    json_decref(standard);
  }
  if (!has_decoder(c)) put_own_names(&l, c, COMPANION_MAP);
  put_own_names(&l, c, COMPANION_CONFIG);
  put_extra(&l, c);
  l.failed = l.failed || json_object_set(tokenizer, "added_tokens", l.tokens);
  json_decref(l.tokens);
  json_decref(l.places);
  return l.failed ? out_of_memory(ctx) : CLM_OK;
}

/* ---- Parts that a class builds anew ---- */

static bool has_byte_level(const json_t *pretokenizer) {
  const json_t *parts = json_object_get(pretokenizer, "pretokenizers"), *each;
  size_t i;
  if (strcmp(json_type_name(pretokenizer), "ByteLevel") == 0) return true;
  json_array_foreach(parts, i, each) if (has_byte_level(each)) return true;
  return false;
}

static bool is_class(const struct tokenizer_class *k, const char *name) {
  const size_t length = strlen(k->name);
  return strncmp(name, k->name, length) == 0 && (!name[length] || strcmp(name + length, "Fast") == 0);
}

/* By tokenizer_class, or the model's; else by the kind of model, if tokenizer.json has the form of that class. A
 * LlamaTokenizer whose file is byte-level is none, as in transformers. */
static const struct tokenizer_class *find_class(const companions *c, const json_t *tokenizer) {
  const json_t *pretokenizer = json_object_get(tokenizer, "pre_tokenizer"),
               *model = json_object_get(tokenizer, "model");
  const char *name = json_string_value(member(c, COMPANION_CONFIG, "tokenizer_class")),
             *type = json_string_value(member(c, COMPANION_MODEL, "model_type"));
  const bool byte_level = has_byte_level(pretokenizer);
  if (!name) name = json_string_value(member(c, COMPANION_MODEL, "tokenizer_class"));
  if (!json_is_object(json_object_get(model, "vocab")) || !json_array_size(json_object_get(model, "merges")))
    return NULL;
  for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
    const struct tokenizer_class *k = &classes[i];
    if (name && is_class(k, name)) return k->metaspace && byte_level ? NULL : k;
    if (name || !type || strcmp(json_type_name(pretokenizer), "ByteLevel") != 0) continue;
    if (is_listed(k->model_types, type)) return k;
  }
  return NULL;
}

static json_t *metaspace_decoder(bool prefix) {
  json_t *steps = json_pack("[{s:s, s:{s:s}, s:s}, {s:s}, {s:s}]", "type", "Replace", "pattern", "String",
                            "\xe2\x96\x81", "content", " ", "type", "ByteFallback", "type", "Fuse");
  if (prefix)
    json_array_append_new(steps,
                          json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
  return json_pack("{s:s, s:o}", "type", "Sequence", "decoders", steps);
}

static json_t *byte_level(bool prefix) {
  return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", prefix, "trim_offsets", 1,
                   "use_regex", 1);
}

static clm_status rebuild(clm_context *ctx, const companions *c, json_t *tokenizer) {
  const struct tokenizer_class *k = c->kind;
  const json_t *config = c->json[COMPANION_CONFIG];
  const bool prefix = json_flag(config, "add_prefix_space", k->metaspace),
             legacy = json_flag(config, "legacy", false);
  const char *scheme = !prefix ? "never" : legacy ? "always" : "first";
  json_t *splitter = k->metaspace ? json_pack("{s:s, s:s, s:s, s:b}", "type", "Metaspace", "replacement",
                                              "\xe2\x96\x81", "prepend_scheme", scheme, "split", 0)
                                  : byte_level(prefix);
  json_t *model = json_object_get(tokenizer, "model");
  int failed = json_object_set_new(tokenizer, "normalizer", k->nfc ? json_pack("{s:s}", "type", "NFC") : json_null());
  failed |= json_object_set_new(tokenizer, "pre_tokenizer", splitter);
  failed |= json_object_set_new(tokenizer, "decoder", k->metaspace ? metaspace_decoder(prefix) : byte_level(true));
  if (k->no_post_processor) failed |= json_object_set_new(tokenizer, "post_processor", json_null());
  failed |= json_object_set_new(model, "fuse_unk", json_boolean(k->metaspace));
  failed |= json_object_set_new(model, "byte_fallback", json_boolean(k->metaspace));
  static const char *const unset[] = {"ignore_merges", "dropout", "unk_token", "continuing_subword_prefix",
                                      "end_of_word_suffix"};
  for (size_t i = 0; i < sizeof unset / sizeof *unset; i++)
    failed |= json_object_set_new(model, unset[i], json_null());
  return failed ? out_of_memory(ctx) : CLM_OK;
}

clm_status companions_apply(clm_context *ctx, companions *c, json_t *tokenizer) {
  const json_t *tokens = json_object_get(tokenizer, "added_tokens");
  if (!json_is_object(tokenizer) || (tokens && !json_is_array(tokens) && !json_is_null(tokens)))
    return CLM_OK; /* its reader says what is wrong */
  c->kind = find_class(c, tokenizer);
  if (c->kind) TRY(rebuild(ctx, c, tokenizer));
  return merge_tokens(ctx, c, tokenizer);
}
