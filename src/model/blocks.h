/* The blocks of a model. Each is a residual step,
 *
 *   x += residual_scale * f(norm(x))
 *
 * with f one layer, or the sum of several that run in parallel on the same normed input. */
#ifndef CLM_MODEL_BLOCKS_H
#define CLM_MODEL_BLOCKS_H

#include "model/layers/layer.h"

enum { BLOCK_NORM, BLOCK_NORM_BIAS };

enum { BLOCK_PARTS = 4 }; /* max layers in parallel */

typedef struct model_block {
  param_views params;
  model_layer *layers; /* one, or several in parallel */
  int layer_count;
} model_block;

typedef struct model_blocks {
  model_block *items; /* config.n_layer of them                */
  model_layer *layers;
  size_t layer_count; /* of all blocks, in their order    */
  bool branched;      /* there are branches that cannot be added to the residual stream as they are made */
  char *text;         /* config.layers as it is kept, or NULL */
} model_blocks;

/* Blocks that a list has: the words of it. */
int64_t blocks_count(const char *text);

/* What config->layers lists, with every option filled in: config->n_layer blocks, the list repeated as often as it
 * takes. config->layers then is blocks->text, in one spelling; NULL where every block is
 * Mamba-1. The layers refer to `config`, which must stay where it is. */
clm_status blocks_make(clm_context *context, clm_model_config *config, model_blocks *made);
void blocks_free(model_blocks *b);

/* The rows of a block's own parameters. */
void block_params(const clm_model_config *config, param *table);

#endif
