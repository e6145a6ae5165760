/* The models of the lm operations. */
#ifndef CLM_BENCH_LM_MODEL_H
#define CLM_BENCH_LM_MODEL_H

#include "bench/bench.h"

clm_status lm_model_create(clm_context *context, const char *name, clm_weights_type type, clm_model **model);

/* A model directory in a temporary folder, its matrices stored as `type`; remove it whatever create returned. */
typedef struct model_folder {
  char path[512]; /* "": none */
} model_folder;

clm_status model_folder_create(clm_context *context, const char *name, clm_weights_type type, model_folder *folder);
char *model_folder_file(const model_folder *folder, const char *name); /* its path, the caller's; NULL: no memory */
void model_folder_remove(model_folder *folder);

#endif
