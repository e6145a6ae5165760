/* Sequences of frames and their targets, from npy arrays or one CSV table; messages go to stderr. */
#ifndef CLM_TOOLS_DATASET_H
#define CLM_TOOLS_DATASET_H

#include <clmamba/backbone.h>

typedef struct dataset_request {
  const char *data, *targets;    /* files; targets only with a data.npy                              */
  const char *target, *features; /* columns of a CSV table, separated by commas; features NULL: all others */
  clm_backbone_task task;
  int output;                /* clm_backbone_output, -1: as the targets are                      */
  const clm_backbone *known; /* a model whose classes the data must have; NULL: they are counted */
  bool frames_only;          /* no targets: `known` is run without a score; without `target` and `targets`   */
} dataset_request;

typedef struct dataset {
  clm_sequences sequences;
  int64_t embed_dim, n_outputs, frames;
  clm_backbone_output output;
  char **names;         /* (n_outputs) classes, or columns; NULL: nameless */
  int64_t *name_counts; /* (n_outputs) targets of each class; regression: NULL */
  char note[400];       /* what was left out of a table, "": nothing      */
  /* Owned memory of `sequences` */
  float *frame_memory, *target_memory;
  int32_t *class_memory;
  int64_t *length_memory;
} dataset;

bool dataset_read(const dataset_request *request, dataset *d);
void dataset_free(dataset *d);

/* For the readers: memory, or NULL and the message. */
void *dataset_memory(const dataset_request *request, int64_t count, size_t size);

bool dataset_read_npy(const dataset_request *request, dataset *d);
bool dataset_read_csv(const dataset_request *request, dataset *d);

/* Names 0 to count - 1. */
bool dataset_number_classes(const dataset_request *request, dataset *d, int64_t count);

#define DATASET_MAX_CLASSES 65536

#endif
