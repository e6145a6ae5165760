/* JSON files. */
#ifndef CLM_CORE_JSON_FILE_H
#define CLM_CORE_JSON_FILE_H

#include "core/json.h"
#include <clmamba/context.h>

/* The JSON in a file of at most `limit` bytes, to be released by json_decref. `text`, unless NULL, gets the file as
 * it is (to be freed), and `bytes` its length. On failure nothing is given. */
clm_status json_read(clm_context *context, const char *path, size_t limit, json_rules rules, json_t **json,
                     char **text, size_t *bytes);

/* The same of an object alone. */
clm_status json_read_object(clm_context *context, const char *path, size_t limit, json_rules rules, json_t **object);

#endif
