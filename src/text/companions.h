/* The files next to tokenizer.json from which transformers takes more of a tokenizer: further special and added
 * tokens, and a class, some of which build their parts anew, whatever tokenizer.json has. The order of precedence is
 * that of AutoTokenizer in transformers 5 (docs/tokenizer.md). */
#ifndef CLM_TEXT_COMPANIONS_H
#define CLM_TEXT_COMPANIONS_H

#include "text/json_reader.h"

typedef enum companion {
  COMPANION_CONFIG,                        /* tokenizer_config.json   */
  COMPANION_MAP,                           /* special_tokens_map.json */
  COMPANION_ADDED,                         /* added_tokens.json       */
  COMPANIONS_SAVED,                        /* those before belong to the tokenizer, and are saved with it */
  COMPANION_GENERATION = COMPANIONS_SAVED, /* generation_config.json, the model's        */
  COMPANION_MODEL,                         /* config.json, the model's                   */
  COMPANIONS
} companion;

typedef struct companions {
  json_t *json[COMPANIONS]; /* NULL: not there, or no object                 */
  char *text[COMPANIONS];   /* as it was read                                */
  size_t bytes[COMPANIONS];
  const struct tokenizer_class *kind; /* NULL: one that takes tokenizer.json as it is */
} companions;

extern const char *const companion_names[COMPANIONS];

/* Those that are there. */
clm_status companions_read(clm_context *context, const char *directory, companions *c);
void companions_free(companions *c);

/* Changes a parsed tokenizer.json to what the tokenizer is with its companions: parts that its class builds anew, and
 * all added tokens. */
clm_status companions_apply(clm_context *context, companions *c, json_t *tokenizer);

/* The spelling of a special token ("bos_token", ..) by the files, or by the class; empty: none. */
byte_string companions_named(const companions *c, const char *key);

/* The class that builds parts of the tokenizer anew; NULL: none does. */
const char *companions_class(const companions *c);

#endif
