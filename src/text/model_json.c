/* The model of a tokenizer.json with its vocabulary, the tokens added to it, and those put around a text. */
#include "core/context.h"
#include "core/try.h"
#include "text/pipeline_json.h"
#include <string.h>

static clm_status out_of_memory(const json_reader *r) {
  return context_fail(r->context, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
}

static clm_status add_token(const json_reader *r, vocabulary *v, int64_t token, byte_string spelling) {
  int shown = (int)(spelling.bytes < 60 ? spelling.bytes : 60);
  switch (vocabulary_add(v, token, spelling)) {
  case VOCABULARY_ADDED: return CLM_OK;
  case VOCABULARY_SPELLING_TWICE:
    return context_fail(r->context, CLM_BAD_FORMAT, "%s: the token \"%.*s\" is there twice", r->path, shown,
                        spelling.text);
  case VOCABULARY_TOKEN_TWICE:
    return context_fail(r->context, CLM_BAD_FORMAT, "%s: \"%.*s\" has the number %lld, which another token has",
                        r->path, shown, spelling.text, (long long)token);
  case VOCABULARY_OUT_OF_RANGE:
    return context_fail(r->context, CLM_BAD_FORMAT, "%s: the number of \"%.*s\" is no integer from 0 to %lld",
                        r->path, shown, spelling.text, (long long)VOCABULARY_LIMIT - 1);
  case VOCABULARY_NO_MEMORY: break;
  }
  return out_of_memory(r);
}

/* ---- The model ---- */

static clm_status read_vocabulary(const json_reader *r, json_t *json, vocabulary *v) {
  const char *spelling;
  json_t *value;
  json_object_foreach(json, spelling, value) {
    json_int_t token = json_is_integer(value) ? json_integer_value(value) : -1;
    TRY(add_token(r, v, token, (byte_string){spelling, strlen(spelling)}));
    v->entries[token]->in_model = true;
  }
  return CLM_OK;
}

static bool split_merge(const json_t *json, byte_string *left, byte_string *right) {
  if (json_is_array(json)) {
    *left = json_text(json_array_get(json, 0));
    *right = json_text(json_array_get(json, 1));
    return json_array_size(json) == 2 && json_is_string(json_array_get(json, 0)) &&
           json_is_string(json_array_get(json, 1));
  }
  byte_string text = json_text(json);
  const char *space = memchr(text.text, ' ', text.bytes);
  if (!space) return false;
  *left = (byte_string){text.text, (size_t)(space - text.text)};
  *right = (byte_string){space + 1, text.bytes - left->bytes - 1};
  return !memchr(right->text, ' ', right->bytes);
}

static clm_status find_part(const json_reader *r, const vocabulary *v, size_t merge, byte_string part,
                            int32_t *token) {
  *token = vocabulary_find(v, part);
  if (*token >= 0) return CLM_OK;
  return context_fail(r->context, CLM_BAD_FORMAT, "%s: merge %zu needs the token \"%.*s\", which is not there",
                      r->path, merge, (int)(part.bytes < 60 ? part.bytes : 60), part.text);
}

static clm_status read_merge(const json_reader *r, const vocabulary *v, const json_t *json, size_t rank,
                             bpe_model *model, byte_buffer *joined) {
  byte_string left, right;
  int32_t left_token, right_token, token;
  if (!split_merge(json, &left, &right))
    return context_fail(r->context, CLM_BAD_FORMAT, "%s: merge %zu is neither \"left right\" nor [left, right]",
                        r->path, rank);
  joined->bytes = 0;
  if (!bytes_append(joined, left.text, left.bytes) || !bytes_append(joined, right.text, right.bytes))
    return out_of_memory(r);
  TRY(find_part(r, v, rank, left, &left_token));
  TRY(find_part(r, v, rank, right, &right_token));
  TRY(find_part(r, v, rank, bytes_of(joined), &token));
  bpe_add_merge(model, left_token, right_token, (uint32_t)rank, token);
  return CLM_OK;
}

static clm_status read_merges(const json_reader *r, const json_t *merges, pipeline *p) {
  byte_buffer joined = {0};
  clm_status status = CLM_OK;
  size_t rank = 0;
  for (size_t i = 0; i < json_array_size(merges) && !status; i++) {
    const json_t *merge = json_array_get(merges, i);
    byte_string text = json_text(merge);
    if (text.bytes >= 8 && memcmp(text.text, "#version", 8) == 0) continue; /* a line of merges.txt */
    status = read_merge(r, &p->vocabulary, merge, rank++, &p->model, &joined);
  }
  bytes_free(&joined);
  return status;
}

static bool is_set(const json_t *json, const char *key) {
  const json_t *value = json_object_get(json, key);
  return json_string_length(value) > 0 || json_number_value(value) > 0;
}

clm_status model_from_json(const json_reader *r, const json_t *json, pipeline *p) {
  static const char *const refused[] = {"continuing_subword_prefix", "end_of_word_suffix", "dropout"};
  json_t *vocab = json_object_get(json, "vocab"), *merges = json_object_get(json, "merges"),
         *unk = json_object_get(json, "unk_token");
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
    if (is_set(json, refused[i]))
      return context_fail(r->context, CLM_UNSUPPORTED, "%s: a BPE model with \"%s\" is not supported", r->path,
                          refused[i]);
  if (!json_is_object(vocab)) return json_misses(r, "the model", "vocab");
  if (!json_is_array(merges)) return json_misses(r, "the model", "merges");
  if (json_object_size(vocab) == 0)
    return context_fail(r->context, CLM_BAD_FORMAT, "%s: the vocabulary is empty", r->path);
  TRY(read_vocabulary(r, vocab, &p->vocabulary));
  if (!bpe_prepare(&p->model, &p->vocabulary, json_array_size(merges))) return out_of_memory(r);
  p->model.ignore_merges = json_flag(json, "ignore_merges", false);
  p->model.byte_fallback = json_flag(json, "byte_fallback", false);
  p->model.fuse_unk = json_flag(json, "fuse_unk", false);
  p->model.unk = BPE_UNK_NONE;
  if (json_is_string(unk)) {
    int32_t token = vocabulary_find(&p->vocabulary, json_text(unk));
    p->model.unk = token >= 0 ? token : BPE_UNK_MISSING;
  }
  return read_merges(r, merges, p);
}

/* ---- Added tokens ---- */

/* Numbers are given as `tokenizers` gives them, whatever the file has: a token of the model keeps its own, others
 * follow after the model's count of tokens or the largest added number. */
static int64_t number_of(const pipeline *p, byte_string spelling, size_t model_tokens, int64_t largest) {
  int32_t known = vocabulary_find(&p->vocabulary, spelling);
  if (known >= 0) return known;
  return largest >= (int64_t)model_tokens ? largest + 1 : (int64_t)model_tokens;
}

static clm_status add_to_set(const json_reader *r, pipeline *p, pattern_scratch *scratch, byte_string spelling,
                             bool normalized, added_token token) {
  byte_buffer buffers[2] = {{0}, {0}};
  added_set *set = normalized ? &p->as_normalized : &p->as_written;
  clm_status status = CLM_OK;
  if (normalized) status = normalizer_apply(r->context, &p->normalizer, scratch, buffers, &spelling);
  if (!status && token.single_word && !set->word)
    status = pattern_compile(r->context, r->path, PATTERN_PCRE2,
                             (byte_string){ADDED_TOKEN_WORD, strlen(ADDED_TOKEN_WORD)}, &set->word);
  if (!status && normalized && !vocabulary_respell(&p->vocabulary, token.id, spelling)) status = out_of_memory(r);
  if (!status && spelling.bytes && !added_set_add(set, spelling, token)) status = out_of_memory(r);
  bytes_free(&buffers[0]);
  bytes_free(&buffers[1]);
  return status;
}

static clm_status read_added(const json_reader *r, pipeline *p, pattern_scratch *scratch, const json_t *json,
                             size_t model_tokens, int64_t *largest) {
  byte_string spelling = json_text(json_object_get(json, "content"));
  if (!json_is_string(json_object_get(json, "content"))) return json_misses(r, "an added token", "content");
  if (spelling.bytes == 0) return CLM_OK;
  if (spelling.bytes > ADDED_TOKEN_BYTES)
    return context_fail(r->context, CLM_UNSUPPORTED, "%s: an added token of %zu bytes, at most %d are read", r->path,
                        spelling.bytes, ADDED_TOKEN_BYTES);
  int64_t id = number_of(p, spelling, model_tokens, *largest);
  if (!vocabulary_entry(&p->vocabulary, id) || vocabulary_find(&p->vocabulary, spelling) != id)
    TRY(add_token(r, &p->vocabulary, id, spelling));
  token_entry *entry = p->vocabulary.entries[id];
  if (entry->added)
    return context_fail(r->context, CLM_BAD_FORMAT, "%s: the token \"%.60s\" is added twice", r->path, spelling.text);
  const json_t *given = json_object_get(json, "id");
  if (json_is_integer(given) && json_integer_value(given) != id)
    context_log(r->context, CLM_LOG_WARNING, "%s: the added token \"%.60s\" gets the number %lld, not %lld", r->path,
                spelling.text, (long long)id, (long long)json_integer_value(given));
  if (id > *largest) *largest = id;
  entry->added = true;
  entry->special = json_flag(json, "special", false);
  added_token token = {.id = (int32_t)id,
                       .single_word = json_flag(json, "single_word", false),
                       .lstrip = json_flag(json, "lstrip", false),
                       .rstrip = json_flag(json, "rstrip", false),
                       .special = entry->special};
  return add_to_set(r, p, scratch, spelling, json_flag(json, "normalized", true), token);
}

clm_status added_tokens_from_json(const json_reader *r, const json_t *json, pipeline *p) {
  pattern_scratch scratch;
  if (json && !json_is_null(json) && !json_is_array(json)) return json_misses(r, "the tokenizer", "added_tokens");
  size_t model_tokens = HASH_COUNT(p->vocabulary.by_key);
  int64_t largest = -1;
  clm_status status = pattern_scratch_create(&scratch) ? CLM_OK : out_of_memory(r);
  for (size_t i = 0; i < json_array_size(json) && !status; i++)
    status = read_added(r, p, &scratch, json_array_get(json, i), model_tokens, &largest);
  pattern_scratch_free(&scratch);
  return status;
}

/* ---- Around a text ---- */

static clm_status put_around(const json_reader *r, pipeline *p, bool after, const json_t *token) {
  json_int_t id = json_is_integer(token) ? json_integer_value(token) : -1;
  size_t *count = after ? &p->after_count : &p->before_count;
  int32_t *ids = after ? p->after : p->before;
  if (!vocabulary_entry(&p->vocabulary, id)) return json_misses(r, "the post-processor", "ids");
  if (*count == PIPELINE_AROUND)
    return context_fail(r->context, CLM_UNSUPPORTED, "%s: more than %d special tokens around a text", r->path,
                        PIPELINE_AROUND);
  ids[(*count)++] = (int32_t)id;
  return CLM_OK;
}

/* {"SpecialToken": {"id": NAME}}, whose numbers are under NAME in `special_tokens`. */
static clm_status put_special(const json_reader *r, pipeline *p, bool after, const json_t *special_tokens,
                              const json_t *piece) {
  const char *name = json_string_value(json_object_get(json_object_get(piece, "SpecialToken"), "id"));
  const json_t *ids = name ? json_object_get(json_object_get(special_tokens, name), "ids") : NULL, *id;
  if (!json_is_array(ids)) return json_misses(r, "the post-processor", "special_tokens");
  size_t i;
  json_array_foreach(ids, i, id) TRY(put_around(r, p, after, id));
  return CLM_OK;
}

static clm_status take_template(const json_reader *r, const json_t *json, pipeline *p) {
  const json_t *single = json_object_get(json, "single"), *special = json_object_get(json, "special_tokens"), *piece;
  if (!json_is_array(single)) return json_misses(r, "the post-processor", "single");
  if (p->has_template) /* the second would see two texts, and take its template for pairs */
    return context_fail(r->context, CLM_UNSUPPORTED, "%s: more than one TemplateProcessing", r->path);
  p->has_template = true;
  size_t i, texts = 0;
  json_array_foreach(single, i, piece) {
    const char *text = json_string_value(json_object_get(json_object_get(piece, "Sequence"), "id"));
    if (text && (strcmp(text, "A") != 0 || texts++)) return json_misses(r, "the post-processor", "single");
    if (!text) TRY(put_special(r, p, texts > 0, special, piece));
  }
  return texts == 1 ? CLM_OK : json_misses(r, "the post-processor", "single");
}

static clm_status take_processor(const json_reader *r, const json_t *json, void *user) {
  if (strcmp(json_type_name(json), "ByteLevel") == 0) return CLM_OK; /* it changes offsets, no tokens */
  if (strcmp(json_type_name(json), "TemplateProcessing") == 0) return take_template(r, json, user);
  return json_unsupported(r, "a post-processor", json);
}

clm_status post_processor_from_json(const json_reader *r, const json_t *json, pipeline *p) {
  return json_each(r, json, "processors", take_processor, p);
}

/* ---- All of it ---- */

clm_status pipeline_from_json(const json_reader *r, const json_t *json, pipeline *p) {
  pattern_scratch scratch;
  TRY(normalizer_from_json(r, json_object_get(json, "normalizer"), &p->normalizer));
  TRY(pretokenizer_from_json(r, json_object_get(json, "pre_tokenizer"), &p->pretokenizer));
  TRY(model_from_json(r, json_object_get(json, "model"), p));
  TRY(added_tokens_from_json(r, json_object_get(json, "added_tokens"), p));
  TRY(post_processor_from_json(r, json_object_get(json, "post_processor"), p));
  TRY(decoder_from_json(r, json_object_get(json, "decoder"), &p->decoder));
  clm_status status = pattern_scratch_create(&scratch) ? CLM_OK : out_of_memory(r);
  if (!status) status = decoder_prepare(r->context, &p->decoder, &scratch, &p->vocabulary);
  pattern_scratch_free(&scratch);
  return status;
}
