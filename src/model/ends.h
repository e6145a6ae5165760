/* The parameters before and after the blocks: embedding and head of a language model, projections of a model of
 * frames (clm_backbone), the final norm of both. */
#ifndef CLM_MODEL_ENDS_H
#define CLM_MODEL_ENDS_H

#include "model/params.h"

enum {
  END_EMBEDDING,
  END_NORM,
  END_NORM_BIAS, /* with layer_norm */
  END_LM_HEAD,   /* untied          */
  END_INPUT,     /* of a model of frames */
  END_INPUT_BIAS,
  END_HEAD,
  END_HEAD_BIAS
};

/* Of a model of frames; zeroed: a language model. */
typedef struct model_ends {
  int64_t inputs;  /* numbers in a frame         */
  int64_t outputs; /* of the head; 0: it has none */
} model_ends;

/* Fills a table of PARAMS_MAX cleared rows. */
void ends_params(const clm_model_config *config, model_ends ends, param *table);

#endif
