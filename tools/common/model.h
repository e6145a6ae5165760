/* The model that mamba-generate and mamba-eval work with. */
#ifndef CLM_TOOLS_MODEL_H
#define CLM_TOOLS_MODEL_H

#include <clmamba/model.h>
#include <popt.h>

/* --model, --weights and --activations: `{NULL, '\0', POPT_ARG_INCLUDE_TABLE, tool_model_options, 0, "Model:",
 * NULL}`. */
extern struct poptOption tool_model_options[];

/* The dtype that activations may have by its name; false: there is none. */
bool tool_activations(const char *name, clm_dtype *dtype);

/* What --model names, NULL if it was not given. */
const char *tool_model_path(void);

/* False, with a message, where --model is missing or --weights or --activations names no type. */
bool tool_model_check(void);

/* Loads it, with a progress bar where that takes a while. False: the message is on stderr. */
bool tool_model_load(clm_context *context, clm_model **model);

#endif
