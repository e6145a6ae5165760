/* JSON as Python writes it. Its json module, with which transformers reads and writes, goes beyond the standard: NaN,
 * Infinity and -Infinity, integers of any length (model_max_length is 10^30 by default), one part of a surrogate pair
 * alone. A value that nobody needs never makes a file unreadable:
 *
 *   1000000000000000000000000000000   becomes a real number
 *   NaN, Infinity, -Infinity, 1e400   become a string of that name: json_to_double reads it
 *   "\ud83d" without its partner      becomes U+FFFD (JSON_PYTHON only)
 *
 * Values are jansson's, the parser is not: jansson's goes on where its buffer cannot grow (lex_save of 2.14), and
 * then ends the process or gives another text than the file's.
 *
 * It knows no context, so that the tools have it as the library does. */
#ifndef CLM_CORE_JSON_H
#define CLM_CORE_JSON_H

#include <jansson.h>
#include <stdbool.h>

typedef enum json_rules {
  JSON_PYTHON, /* of two members of one name the last counts, strings may have \u0000: as in Python */
  JSON_EXACT   /* both are errors: for files whose names and texts are data                         */
} json_rules;

/* As json_loadb, of any kind of value; NULL with `error` filled in: its text begins with the column, its code is
 * json_error_out_of_memory, json_error_duplicate_key or json_error_invalid_syntax. */
json_t *json_parse(const char *text, size_t bytes, json_rules rules, json_error_t *error);

/* A number, the names above as a string, or transformers' {"__float__": "Infinity"}; false for anything else. */
bool json_to_double(const json_t *value, double *number);

#endif
