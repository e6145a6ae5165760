/* Which tokens begin and end a text, pad, and stand for the unknown. transformers keeps that beside tokenizer.json:
 * first what its tokenizer's own files say counts, then the model's, then what a file leaves open. */
#include "core/context.h"
#include "core/file.h"
#include "core/try.h"
#include "text/tokenizer.h"
#include <stdlib.h>
#include <unistd.h>

static const struct {
  const char *file;
  bool by_spelling; /* "bos_token": a spelling, or an object with its "content"; else "bos_token_id": a number, or the
                       first of several */
} sources[] = {
    {"tokenizer_config.json", true},
    {"special_tokens_map.json", true},
    {"generation_config.json", false},
    {"config.json", false},
};

static const char *const keys[][2] = {
    [CLM_TOKEN_BOS] = {"bos_token", "bos_token_id"},
    [CLM_TOKEN_EOS] = {"eos_token", "eos_token_id"},
    [CLM_TOKEN_PAD] = {"pad_token", "pad_token_id"},
    [CLM_TOKEN_UNK] = {"unk_token", "unk_token_id"},
};

static int32_t named(const clm_tokenizer *t, const json_t *value, bool by_spelling) {
  if (by_spelling) {
    if (json_is_object(value)) value = json_object_get(value, "content");
    byte_string spelling = json_text(value);
    return spelling.bytes ? clm_tokenizer_find(t, spelling.text, spelling.bytes) : -1;
  }
  if (json_is_array(value)) value = json_array_get(value, 0);
  json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
  return id >= 0 && id < clm_tokenizer_vocab_size(t) && clm_tokenizer_spelling(t, (int32_t)id) ? (int32_t)id : -1;
}

clm_status tokenizer_read_specials(clm_tokenizer *t, const char *directory) {
  for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
    json_t *json;
    char *text, *path = file_path(directory, sources[i].file);
    size_t bytes;
    if (!path) return context_fail(t->context, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
    const bool here = access(path, F_OK) == 0;
    clm_status status =
        here ? json_read(t->context, path, TOKENIZER_FILE_BYTES, JSON_PYTHON, &json, &text, &bytes) : CLM_OK;
    free(path);
    if (!here) continue;
    TRY(status);
    for (int which = 0; which < TOKENIZER_SPECIALS; which++)
      if (t->special[which] < 0)
        t->special[which] =
            named(t, json_object_get(json, keys[which][!sources[i].by_spelling]), sources[i].by_spelling);
    json_decref(json);
    if (i == 0) t->config = text, t->config_bytes = bytes;
    else free(text);
  }
  if (t->special[CLM_TOKEN_UNK] < 0 && t->pipeline && t->pipeline->model.unk >= 0)
    t->special[CLM_TOKEN_UNK] = t->pipeline->model.unk;
  return CLM_OK;
}
