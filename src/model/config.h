/* config.json as Hugging Face's MambaConfig and FalconMambaConfig write it, and that of the original state-spaces
 * checkpoints; what a GGUF file says instead. */
#ifndef CLM_MODEL_CONFIG_H
#define CLM_MODEL_CONFIG_H

#include "files/gguf.h"
#include <clmamba/model.h>
#include <jansson.h>

/* Fills in the defaults of zeroed members, then checks every range. */
clm_status config_complete(clm_context *context, clm_model_config *config);

clm_status config_read(clm_context *context, const char *path, clm_model_config *config);
clm_status config_read_gguf(clm_context *context, const source *file, clm_model_config *config);

/* config_complete for what a file says: its sentence names the file. d_inner goes before expand. */
clm_status config_check(clm_context *context, const char *path, clm_model_config *config);

/* Hugging Face's form, or the original's for what that does not have (layer_norm). `dtype`: of the matrices. `ids`:
 * members of that form besides (bos_token_id and its like); may be NULL. */
clm_status config_write(clm_context *context, const char *path, const clm_model_config *config, clm_dtype dtype,
                        json_t *ids);

#endif
