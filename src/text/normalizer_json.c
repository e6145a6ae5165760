#include "core/context.h"
#include "core/try.h"
#include "text/pipeline_json.h"
#include <string.h>

clm_status pattern_from_json(const json_reader *r, const json_t *json, const char *part, pcre2_code **pattern) {
  const json_t *regex = json_object_get(json, "Regex"), *literal = json_object_get(json, "String");
  if (!json_is_string(regex) && !json_is_string(literal)) return json_misses(r, part, "pattern");
  return regex ? pattern_compile(r->context, r->path, PATTERN_REGEX, json_text(regex), pattern)
               : pattern_compile(r->context, r->path, PATTERN_LITERAL, json_text(literal), pattern);
}

static const struct {
  const char *type;
  normalizer_kind kind;
} kinds[] = {
    {"NFC", NORMALIZER_NFC},
    {"NFD", NORMALIZER_NFD},
    {"NFKC", NORMALIZER_NFKC},
    {"NFKD", NORMALIZER_NFKD},
    {"Lowercase", NORMALIZER_LOWERCASE},
    {"Prepend", NORMALIZER_PREPEND},
    {"Replace", NORMALIZER_REPLACE},
    {"ByteLevel", NORMALIZER_BYTE_LEVEL},
};

static clm_status take_content(const json_reader *r, const json_t *json, const char *key, byte_buffer *content) {
  byte_string text = json_text(json_object_get(json, key));
  if (!json_is_string(json_object_get(json, key))) return json_misses(r, "a normalizer", key);
  return bytes_append(content, text.text, text.bytes)
             ? CLM_OK
             : context_fail(r->context, CLM_OUT_OF_MEMORY, "tokenizer: out of host memory");
}

static clm_status take_step(const json_reader *r, const json_t *json, void *user) {
  normalizer *n = user;
  size_t kind = 0;
  while (kind < sizeof kinds / sizeof *kinds && strcmp(kinds[kind].type, json_type_name(json)) != 0) kind++;
  if (kind == sizeof kinds / sizeof *kinds) return json_unsupported(r, "a normalizer", json);
  if (n->count == NORMALIZER_STEPS)
    return context_fail(r->context, CLM_UNSUPPORTED, "%s: more than %d normalizers", r->path, NORMALIZER_STEPS);
  normalizer_step *step = &n->steps[n->count++];
  *step = (normalizer_step){.kind = kinds[kind].kind};
  if (step->kind == NORMALIZER_PREPEND) return take_content(r, json, "prepend", &step->content);
  if (step->kind != NORMALIZER_REPLACE) return CLM_OK;
  TRY(take_content(r, json, "content", &step->content));
  return pattern_from_json(r, json_object_get(json, "pattern"), "a Replace", &step->pattern);
}

clm_status normalizer_from_json(const json_reader *r, const json_t *json, normalizer *n) {
  return json_each(r, json, "normalizers", take_step, n);
}
