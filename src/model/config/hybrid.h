/* What the families of hybrids share whose layers are a mixer, or several in parallel, and an MLP: two blocks each.
 */
#ifndef CLM_MODEL_CONFIG_HYBRID_H
#define CLM_MODEL_CONFIG_HYBRID_H

#include "model/config/family.h"

/* What is no member of clm_model_config; holds the class's own values before it is read. */
typedef struct hybrid_sizes {
  int64_t layers;
  int64_t width; /* of the MLPs */
  int64_t mamba_heads;
  bool mlp_bias;
} hybrid_sizes;

/* Members, sizes, head sizes that follow from others, limits and rotary positions. *c holds the class's own values.
 */
clm_status hybrid_read(clm_context *context, const char *path, const json_t *json, hybrid_sizes *sizes,
                       clm_model_config *c);

/* A whole number of at least 1; absent, *value stays. */
clm_status hybrid_read_size(clm_context *context, const char *path, const json_t *json, const char *key,
                            int64_t *value);

/* The block of such an MLP. */
void hybrid_mlp(const hybrid_sizes *sizes, char block[CONFIG_BLOCK]);

/* Whether blocks are, in turns, one of the mixers (up to NULL) and an MLP of one width, and all else is as these
 * families have it. */
bool hybrid_can_write(const clm_model_config *c, const char *const *mixers);

/* NULL: out of memory. */
json_t *hybrid_write(const clm_model_config *c, clm_dtype dtype, const char *architecture, const char *type);

source_naming hybrid_naming(const clm_model_config *c);

#endif
