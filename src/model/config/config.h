/* What a model is: config.json of every family that is read, and what a GGUF file has instead. All give one
 * clm_model_config. */
#ifndef CLM_MODEL_CONFIG_CONFIG_H
#define CLM_MODEL_CONFIG_CONFIG_H

#include "files/gguf.h"
#include <clmamba/model.h>
#include <jansson.h>

/* Fills in the defaults of zeroed members, then checks every range. */
clm_status config_complete(clm_context *context, clm_model_config *config);

/* config.json; the scales are for the source of its tensors. config->layers may be memory of its own: config_free. */
clm_status config_read(clm_context *context, const char *path, clm_model_config *config, source_scales *scales);
clm_status config_read_gguf(clm_context *context, const source *file, clm_model_config *config);
void config_free(clm_model_config *config);

/* config_complete for members read from a file: its message names the file. d_inner takes precedence over expand. */
clm_status config_check(clm_context *context, const char *path, clm_model_config *config);

/* What the tensors are called that belong to the form that config_write takes. */
source_naming config_naming(const clm_model_config *config, const json_t *ids);

/* In the form of the first family that has all of its members and `ids`, which are more members (bos_token_id and its
 * like); may be NULL. `dtype`: of the matrices. */
clm_status config_write(clm_context *context, const char *path, const clm_model_config *config, clm_dtype dtype,
                        json_t *ids);

#endif
