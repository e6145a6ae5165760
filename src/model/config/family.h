/* A family of config.json: who can read what. A new one is a file with a table, and a line in config.c. */
#ifndef CLM_MODEL_CONFIG_FAMILY_H
#define CLM_MODEL_CONFIG_FAMILY_H

#include "files/source.h"
#include <clmamba/model.h>
#include <jansson.h>

typedef struct config_family {
  bool (*is)(const json_t *json);
  clm_status (*read)(clm_context *context, const char *path, const json_t *json, clm_model_config *config);
  bool (*can_write)(const clm_model_config *config);
  json_t *(*write)(const clm_model_config *config, clm_dtype dtype); /* NULL: out of memory                 */
  bool has_ids; /* its config.json has the ids of special tokens too: bos_token_id and so on */
  source_naming (*naming)(const clm_model_config *config); /* of its tensors; NULL: Hugging Face's         */
  /* What rows of its tensors are multiplied by as they are read: the family's multipliers. NULL: it has none. */
  clm_status (*scales)(clm_context *context, const char *path, const json_t *json, const clm_model_config *config,
                       source_scales *scales);
} config_family;

extern const config_family config_huggingface; /* MambaConfig and FalconMambaConfig of transformers   */
extern const config_family config_mamba2;      /* Mamba2Config of transformers                         */
extern const config_family config_bamba;       /* BambaConfig of transformers                         */
extern const config_family config_granite;     /* GraniteMoeHybridConfig of transformers              */
extern const config_family config_jamba;       /* JambaConfig of transformers                         */
extern const config_family config_falcon_h1;   /* FalconH1Config of transformers                      */
extern const config_family config_nemotron_h;  /* NemotronHConfig of transformers                     */
extern const config_family config_original;    /* of the state-spaces checkpoints                     */
extern const config_family config_own;         /* clmamba's own, which can describe every model       */

/* Whether every block is one layer of this kind. */
bool config_is_all(const clm_model_config *config, const char *kind);

/* config->layers as memory of its own: every block is one layer of this kind. */
clm_status config_set_layers(clm_context *context, const char *path, const char *kind, clm_model_config *config);

/* A block of the list as it is written: "mlp(width=512)". */
enum { CONFIG_BLOCK = 480 };
void config_block(const clm_model_config *config, int64_t number, char block[CONFIG_BLOCK]);

/* The list of such blocks, one after another, as config->layers; its count is config->n_layer. */
clm_status config_list_blocks(clm_context *context, const char *path, const char (*blocks)[CONFIG_BLOCK],
                              int64_t count, clm_model_config *config);

/* "model_type", or NULL. */
const char *config_type(const json_t *json);

#endif
