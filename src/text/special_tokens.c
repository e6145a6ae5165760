/* Which tokens begin and end a text, pad, and stand for the unknown; and where generation begins and ends. */
#include "core/context.h"
#include "core/try.h"
#include "text/tokenizer.h"
#include <stdlib.h>

static const char *const keys[][2] = {
    [CLM_TOKEN_BOS] = {"bos_token", "bos_token_id"},
    [CLM_TOKEN_EOS] = {"eos_token", "eos_token_id"},
    [CLM_TOKEN_PAD] = {"pad_token", "pad_token_id"},
    [CLM_TOKEN_UNK] = {"unk_token", "unk_token_id"},
};

/* The model's files that have numbers, the first one that has them counts. */
static const companion numbered[] = {COMPANION_GENERATION, COMPANION_MODEL};
enum { NUMBERED = sizeof numbered / sizeof *numbered };

/* A number, or the first of several. */
static json_int_t first_number(const json_t *value) {
  if (json_is_array(value)) value = json_array_get(value, 0);
  return json_is_integer(value) ? json_integer_value(value) : -1;
}

static int32_t token_numbered(const clm_tokenizer *t, const json_t *value) {
  json_int_t id = first_number(value);
  return id >= 0 && id < clm_tokenizer_vocab_size(t) && clm_tokenizer_spelling(t, (int32_t)id) ? (int32_t)id : -1;
}

bool tokenizer_set_ends(clm_tokenizer *t, const int32_t *ids, size_t count) {
  t->ends = calloc(count + 1, sizeof *t->ends);
  for (size_t i = 0; t->ends && i < count; i++)
    if (ids[i] >= 0) t->ends[t->end_count++] = ids[i];
  return t->ends != NULL;
}

/* A number or a list of them; it need not be one of the tokenizer's. */
static bool take_ends(clm_tokenizer *t, const json_t *value) {
  const size_t count = json_is_array(value) ? json_array_size(value) : 1;
  int32_t *ids = calloc(count + 1, sizeof *ids);
  for (size_t i = 0; ids && i < count; i++) {
    const json_t *each = json_is_array(value) ? json_array_get(value, i) : value;
    const json_int_t id = json_is_integer(each) ? json_integer_value(each) : -1;
    ids[i] = id >= 0 && id <= INT32_MAX ? (int32_t)id : -1;
  }
  const bool ok = ids && tokenizer_set_ends(t, ids, count);
  free(ids);
  return ok;
}

static const json_t *first_value(const companions *c, const char *key) {
  for (size_t i = 0; i < NUMBERED; i++) {
    const json_t *value = json_object_get(c->json[numbered[i]], key);
    if (json_is_integer(value) || json_is_array(value)) return value;
  }
  return NULL;
}

clm_status tokenizer_take_specials(clm_tokenizer *t, const companions *c) {
  for (int which = 0; which < TOKENIZER_SPECIALS; which++) {
    const byte_string spelling = companions_named(c, keys[which][0]);
    t->special[which] = spelling.bytes ? clm_tokenizer_find(t, spelling.text, spelling.bytes) : -1;
    for (size_t i = 0; i < NUMBERED && t->special[which] < 0; i++)
      t->special[which] = token_numbered(t, json_object_get(c->json[numbered[i]], keys[which][1]));
  }
  if (t->special[CLM_TOKEN_UNK] < 0 && t->pipeline && t->pipeline->model.unk >= 0)
    t->special[CLM_TOKEN_UNK] = t->pipeline->model.unk;
  const json_t *begin = first_value(c, keys[CLM_TOKEN_BOS][1]), *ends = first_value(c, keys[CLM_TOKEN_EOS][1]);
  const json_int_t id = first_number(begin);
  t->begin = id >= 0 && id <= INT32_MAX ? (int32_t)id : t->special[CLM_TOKEN_BOS];
  const bool ok = ends ? take_ends(t, ends) : tokenizer_set_ends(t, &t->special[CLM_TOKEN_EOS], 1);
  return ok ? CLM_OK : context_fail(t->context, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
}
