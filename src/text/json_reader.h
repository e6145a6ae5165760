/* Members of a JSON file, with messages that name it. */
#ifndef CLM_TEXT_JSON_READER_H
#define CLM_TEXT_JSON_READER_H

#include "core/json_file.h"
#include "text/bytes.h"

typedef struct json_reader {
  clm_context *context;
  const char *path; /* of the file, for messages */
} json_reader;

enum { TOKENIZER_FILE_BYTES = 64 << 20 }; /* no file of a tokenizer is larger */

/* The member "type" of an object, or "absent". */
const char *json_type_name(const json_t *object);
bool json_flag(const json_t *object, const char *key, bool otherwise);
byte_string json_text(const json_t *string); /* borrowed; empty where it is no string */

/* "PATH: PART of type "X" is not supported". */
clm_status json_unsupported(const json_reader *reader, const char *part, const json_t *object);

/* "PATH: PART has no usable "KEY"". */
clm_status json_misses(const json_reader *reader, const char *part, const char *key);

/* {"type": "Sequence", KEY: [..]} is walked, one part after another, however deep; anything else is one part; null is
 * none. */
typedef clm_status (*json_part_fn)(const json_reader *reader, const json_t *part, void *user);
clm_status json_each(const json_reader *reader, const json_t *part, const char *key, json_part_fn take, void *user);

#endif
