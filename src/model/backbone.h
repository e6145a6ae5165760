/* The inside of a backbone, for src/model and src/train: a model of frames (ends.h) and what surrounds it. */
#ifndef CLM_MODEL_BACKBONE_H
#define CLM_MODEL_BACKBONE_H

#include "model/model.h"
#include <clmamba/backbone.h>

struct clm_backbone {
  clm_context *context;
  clm_backbone_config config;
  clm_model *model;                /* blocks, parameters, activations                                  */
  char **names;                    /* of the outputs, or NULL                                          */
  clm_buffer *scratch;             /* of the current pass: backbone_pass.c                             */
  int64_t last_batch, last_length; /* of the pass whose rows of last frames are at its front; 0: none */
};

struct clm_backbone_state {
  clm_backbone *backbone;
  clm_model_state *blocks;
  int64_t batch, seen; /* frames so far                                                       */
  clm_buffer *buffer;  /* with a window                                                       */
  clm_tensor ring;     /* (batch, 2 window, embed_dim): frame i in places i and i + window (modulo 2 window), so that
                          the last `window` frames are contiguous                             */
};

/* Defaults of zeroed members, then ranges; and the blocks' part of it. */
clm_status backbone_config_complete(clm_context *context, clm_backbone_config *config, clm_model_config *blocks);

/* config.json. Names are NULL, or output_size of them (to be freed by backbone_names_free); config->layers is memory
 * of its own: backbone_config_free. */
clm_status backbone_config_read(clm_context *context, const char *path, clm_backbone_config *config,
                                clm_model_config *blocks, char ***names);
clm_status backbone_config_write(clm_context *context, const char *path, const clm_backbone_config *config,
                                 char *const *names);

void backbone_config_free(clm_backbone_config *config);

int64_t backbone_config_output_size(const clm_backbone_config *config);
void backbone_names_free(char **names, int64_t count);

/* One batch to learn from, checked by the caller. */
typedef struct backbone_batch {
  clm_tensor frames;  /* (batch, length, embed_dim) f32, contiguous                                          */
  clm_tensor rows;    /* i32: of each output the row of (batch * length) that it is taken at, -1: of none.
                         (batch) of CLM_OUTPUT_LAST; of CLM_OUTPUT_EVERY (batch * length), absent if all count */
  clm_tensor targets; /* f32 (outputs, output_size), or i32 (outputs)                                          */
  clm_tensor loss;    /* (1) f32: the mean, written                                                            */
  int64_t counted;    /* rows that are not -1                                                                  */
  bool gradient;
  blocks_dropout dropout;
  float loss_scale;     /* 0 means 1: of the gradients, where they are those of targets                            */
  clm_tensor out, dout; /* (outputs, output_size) f32: the outputs, written; their gradient, in place of targets and
                           loss. Each may be absent */
} backbone_batch;

clm_status backbone_loss(clm_backbone *backbone, const backbone_batch *batch);

/* A sequence of a clm_sequences, or a part of one. */
typedef struct backbone_sequence {
  int64_t begin, length; /* frames */
  int64_t target;        /* the first of its targets; it has one, or one for each frame */
} backbone_sequence;

/* clm_backbone_evaluate on some of the sequences. */
clm_status backbone_evaluate(clm_backbone *backbone, const clm_sequences *sequences, const backbone_sequence *list,
                             int64_t count, clm_backbone_score *score);

/* Every sequence of a clm_sequences, checked: present, finite, classes that the backbone has. *list is to be freed.
 */
clm_status backbone_sequences(clm_backbone *backbone, const char *call, const clm_sequences *sequences,
                              backbone_sequence **list);

/* Rows of a batch whose sequences end after lengths[b] frames; returns how many are not -1. */
int64_t backbone_rows(clm_backbone_output output, int64_t batch, int64_t length, const int64_t *lengths,
                      int32_t *rows);

#endif
