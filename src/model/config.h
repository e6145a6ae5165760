/* config.json as Hugging Face's MambaConfig writes it, and the form of the original state-spaces checkpoints. */
#ifndef CLM_MODEL_CONFIG_H
#define CLM_MODEL_CONFIG_H

#include <clmamba/model.h>

/* Fills in the defaults of zeroed members, then checks every range. */
clm_status config_complete(clm_context *context, clm_model_config *config);

clm_status config_read(clm_context *context, const char *path, clm_model_config *config);
clm_status config_write(clm_context *context, const char *path, const clm_model_config *config);

#endif
