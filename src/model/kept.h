/* What the files of a model have about text: bos_token_id, eos_token_id and pad_token_id of config.json, and
 * generation_config.json. No block needs it; it is kept so that a saved model has it too. */
#ifndef CLM_MODEL_KEPT_H
#define CLM_MODEL_KEPT_H

#include "files/source.h"
#include <jansson.h>

typedef struct kept {
  json_t *ids;      /* object of the three, as in config.json; NULL: none */
  char *generation; /* generation_config.json as it was read; NULL: none             */
  size_t generation_bytes;
} kept;

clm_status kept_read(clm_context *context, const char *directory, kept *k);

/* Of a GGUF file tokenizer.ggml.bos_token_id and its like. */
clm_status kept_read_gguf(clm_context *context, const source *file, kept *k);

/* generation_config.json; the ids are written with config.json. */
clm_status kept_write(clm_context *context, const char *directory, const kept *k);

void kept_free(kept *k);

#endif
