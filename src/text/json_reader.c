#include "text/json_reader.h"
#include "core/context.h"
#include "core/try.h"
#include <string.h>

const char *json_type_name(const json_t *object) {
  const char *type = json_string_value(json_object_get(object, "type"));
  return type ? type : "absent";
}

bool json_flag(const json_t *object, const char *key, bool otherwise) {
  const json_t *value = json_object_get(object, key);
  return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

byte_string json_text(const json_t *string) {
  return json_is_string(string) ? (byte_string){json_string_value(string), json_string_length(string)}
                                : (byte_string){"", 0};
}

clm_status json_unsupported(const json_reader *r, const char *part, const json_t *object) {
  return context_fail(r->context, CLM_UNSUPPORTED, "%s: %s of type \"%.40s\" is not supported", r->path, part,
                      json_type_name(object));
}

clm_status json_misses(const json_reader *r, const char *part, const char *key) {
  return context_fail(r->context, CLM_BAD_FORMAT, "%s: %s has no usable \"%s\"", r->path, part, key);
}

clm_status json_each(const json_reader *r, const json_t *part, const char *key, json_part_fn take, void *user) {
  if (!part || json_is_null(part)) return CLM_OK;
  if (strcmp(json_type_name(part), "Sequence") != 0) return take(r, part, user);
  const json_t *parts = json_object_get(part, key), *each;
  if (!json_is_array(parts)) return json_misses(r, "a Sequence", key);
  size_t i;
  json_array_foreach(parts, i, each) TRY(json_each(r, each, key, take, user));
  return CLM_OK;
}
