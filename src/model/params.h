/* What is known of a parameter before there is memory for it: a row of a table. Who has parameters (the model itself,
 * a block, a layer) fills a table with one row for each, at the place that its enum gives; a row without a name is a
 * parameter that this configuration does not have. Weights, files, initialisation, the optimizer and checkpoints walk
 * these rows and know nothing else of them. */
#ifndef CLM_MODEL_PARAMS_H
#define CLM_MODEL_PARAMS_H

#include "core/rng.h"
#include <clmamba/model.h>

enum { PARAMS_MAX = 24, PARAM_RANK = 3, PARAM_ALIASES = 2 };

typedef struct param param;

/* Fills all of a parameter's elements, which are 0 before. */
typedef void param_init(const param *p, const clm_model_config *config, rng *r, float *out);

struct param {
  const char *name;                   /* in model.safetensors, after the prefix of its owner (weights.h)           */
  const char *gguf;                   /* after "blk.N." in a block; NULL: GGUF has none                            */
  const char *aliases[PARAM_ALIASES]; /* other whole names that files have for it; the first is the original's     */
  const char *original; /* of an MLP: after "mlp." in the original's files                                         */
  const char *hybrid;   /* of the model's own: the whole name in NAMING_HYBRID                                     */
  int half;             /* the first (1) or second (2) half of that tensor's rows; 0: all. The second half's number
                           is the one before the first's                                                           */
  int rank;
  int64_t shape[PARAM_RANK]; /* as the operations take it                                                          */
  param_init *init;          /* NULL: zero                                                                         */
  uint32_t number;           /* in its block: place in the flat buffer and random sequence, so that a seed keeps its
                                weights when kinds and parameters are added. 0 to 2 and 15 to 19 are the model's own,
                                3 and 20 the block's, 4 to 14 and from 21 on a layer's: the latter have no
                                initial values to draw                                                             */
  bool decay;                /* the optimizer lets it decay                                                        */
  bool matrix;               /* may be held in 16 bits or in i8                                                    */
  bool depthwise;            /* stored as (channels, 1, width)                                                     */
  bool is_A;                 /* log(-A) is held, GGUF stores A                                                     */
};

/* Elements of a parameter, and of one of its rows (its inputs, for a matrix). */
size_t param_count(const param *p);
size_t param_fan_in(const param *p);

param_init param_ones;
param_init param_embedding;      /* normal, config.embedding_range                                */
param_init param_uniform_fan_in; /* uniform within 1/sqrt(inputs)                                 */
param_init param_uniform_out;    /* the same / sqrt(n_layer): the last matrix of a residual branch */

param_init param_dt_bias;   /* the inverse softplus of a log-uniform step                      */
param_init param_conv_bias; /* uniform within 1/sqrt(d_conv)                                   */

/* Uniform within `bound`: for kinds' own initialisers. */
void param_fill_uniform(const param *p, double bound, rng *r, float *out);

/* The tensors of an owner's parameters, by the places of its table: absent ones are zeroed. */
typedef struct param_views {
  clm_tensor value[PARAMS_MAX];
  clm_tensor scale[PARAMS_MAX];    /* of the rows of those held in i8 */
  clm_tensor gradient[PARAMS_MAX]; /* once there are gradients        */
} param_views;

#endif
