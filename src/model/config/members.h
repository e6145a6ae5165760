/* The members of a clm_model_config: defaults, ranges, and what each form of config.json calls them. */
#ifndef CLM_MODEL_CONFIG_MEMBERS_H
#define CLM_MODEL_CONFIG_MEMBERS_H

#include <clmamba/model.h>
#include <jansson.h>

#define MAX_DIMENSION ((int64_t)1 << 20) /* sums of products of these stay far from 2^63 */
#define MAX_VOCAB     (16 * MAX_DIMENSION)
#define MAX_EXPAND    64

/* FORM_OWN: the members' own names. */
typedef enum config_form {
  FORM_HUGGINGFACE,
  FORM_ORIGINAL,
  FORM_MAMBA2, /* Hugging Face's */
  FORM_MAMBA2_ORIGINAL,
  FORM_HYBRID,     /* Hugging Face's Bamba and Falcon-H1: what both have */
  FORM_NEMOTRON_H, /* Hugging Face's                                     */
  FORM_OWN
} config_form;

/* Defaults of zeroed members, then ranges. */
clm_status members_complete(clm_context *context, clm_model_config *config);

/* Those that are there; null is not there. */
clm_status members_read(clm_context *context, const char *path, const json_t *json, config_form form,
                        clm_model_config *config);

/* The limits of Mamba-2's step size, [low, high] under `key`; absent, there are none. */
clm_status members_read_limits(clm_context *context, const char *path, const json_t *json, const char *key,
                               clm_model_config *config);
int members_write_limits(const clm_model_config *config, const char *key, json_t *json); /* not 0: out of memory */

/* What Hugging Face calls the storage of weights. */
const char *members_dtype(clm_dtype dtype);

/* All that the form has into `json`; not 0: out of memory. */
int members_write(const clm_model_config *config, config_form form, json_t *json);

/* The value of a key; of one that begins with a dot in "ssm_cfg". NULL: absent or null. */
const json_t *members_find(const json_t *json, const char *key);

clm_status members_bad_key(clm_context *context, const char *path, const char *key, const char *expected);

#endif
