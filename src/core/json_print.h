/* JSON as text, for files: use this instead of jansson's json_dumps. */
#ifndef CLM_CORE_JSON_PRINT_H
#define CLM_CORE_JSON_PRINT_H

#include <jansson.h>

/* To be freed. NULL when out of memory, or where `json` is NULL. */
char *json_print(const json_t *json, size_t flags);

#endif
