#include "core/json_file.h"
#include "core/context.h"
#include "core/file.h"
#include "core/try.h"
#include <stdlib.h>

clm_status json_read(clm_context *ctx, const char *path, size_t limit, json_rules rules, json_t **json, char **text,
                     size_t *bytes) {
  char *read;
  size_t count;
  json_error_t error;
  *json = NULL;
  if (text) *text = NULL, *bytes = 0;
  TRY(file_read(ctx, path, limit, &read, &count));
  *json = json_parse(read, count, rules, &error);
  if (*json && text) *text = read, *bytes = count;
  else free(read);
  if (*json) return CLM_OK;
  if (json_error_code(&error) == json_error_out_of_memory)
    return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  return context_fail(ctx, CLM_BAD_FORMAT, "%s is not valid JSON: line %d: %.100s", path, error.line, error.text);
}

clm_status json_read_object(clm_context *ctx, const char *path, size_t limit, json_rules rules, json_t **object) {
  TRY(json_read(ctx, path, limit, rules, object, NULL, NULL));
  if (json_is_object(*object)) return CLM_OK;
  json_decref(*object);
  *object = NULL;
  return context_fail(ctx, CLM_BAD_FORMAT, "%s is not a JSON object: it holds another kind of value", path);
}
