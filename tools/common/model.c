#include "common/model.h"
#include "common/interrupt.h"
#include "common/progress.h"
#include "common/tool.h"
#include <string.h>

static struct { const char *path, *weights, *activations; } given = {.weights = "f32", .activations = "f32"};

struct poptOption tool_model_options[] = {
    {"model", 'm', POPT_ARG_STRING, &given.path, 0, "model directory, or GGUF file", "MODEL"},
    {"weights", '\0', POPT_ARG_STRING | POPT_ARGFLAG_SHOW_DEFAULT, &given.weights, 0,
     "how the matrices are held; stored: as the file has them", "f32|f16|bf16|int8|stored"},
    {"dtype", '\0', POPT_ARG_STRING, &given.weights, 0, "the same as --weights", "TYPE"},
    {"activations", '\0', POPT_ARG_STRING | POPT_ARGFLAG_SHOW_DEFAULT, &given.activations, 0,
     "what layers compute in; states and sums are f32", "f32|bf16|f16"},
    POPT_TABLEEND,
};

static const struct {
  const char *name;
  clm_weights_type type;
} types[] = {{"f32", CLM_WEIGHTS_F32},
             {"f16", CLM_WEIGHTS_F16},
             {"bf16", CLM_WEIGHTS_BF16},
             {"int8", CLM_WEIGHTS_INT8},
             {"stored", CLM_WEIGHTS_AS_STORED}};

static bool find_type(clm_weights_type *type) {
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (strcmp(given.weights, types[i].name) == 0) return *type = types[i].type, true;
  return false;
}

bool tool_activations(const char *name, clm_dtype *dtype) {
  static const clm_dtype dtypes[] = {CLM_F32, CLM_BF16, CLM_F16};
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
    if (strcmp(name, clm_dtype_name(dtypes[i])) == 0) return *dtype = dtypes[i], true;
  return false;
}

const char *tool_model_path(void) { return given.path; }

bool tool_model_check(void) {
  clm_weights_type type;
  clm_dtype dtype;
  if (!given.path) return tool_fail("--model MODEL is missing"), false;
  if (!find_type(&type))
    return tool_fail("--weights is \"%s\", expected f32, f16, bf16, int8 or stored", given.weights), false;
  if (!tool_activations(given.activations, &dtype))
    return tool_fail("--activations is \"%s\", expected f32, bf16 or f16", given.activations), false;
  return true;
}

static bool show(void *user, uint64_t done, uint64_t total) {
  progress_bar(user, total ? (double)done / (double)total : 1, "reading the model");
  return !interrupt_came();
}

bool tool_model_load(clm_context *context, clm_model **model) {
  progress bar = progress_start();
  clm_model_load_options options = {.progress = show, .user = &bar};
  *model = NULL;
  find_type(&options.weights);
  tool_activations(given.activations, &options.activations);
  progress_wait(&bar, "reading the model");
  clm_status status = clm_model_load_with(context, given.path, &options, model);
  progress_end(&bar);
  return status == CLM_OK || (tool_fail("%s", clm_context_error(context)), false);
}
