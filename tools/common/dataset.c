#include "common/dataset.h"
#include "common/tool.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *dataset_memory(const dataset_request *request, int64_t count, size_t size) {
  void *memory = (uint64_t)count <= SIZE_MAX / size ? calloc((size_t)count, size) : NULL;
  if (!memory) tool_fail("out of memory for %s", request->data);
  return memory;
}

bool dataset_number_classes(const dataset_request *request, dataset *d, int64_t count) {
  d->n_outputs = count;
  d->names = dataset_memory(request, count, sizeof *d->names);
  for (int64_t i = 0; d->names && i < count; i++) {
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)i);
    if (!(d->names[i] = strdup(text))) return tool_fail("out of memory for %s", request->data), false;
  }
  return d->names != NULL;
}

static bool count_classes(const dataset_request *request, dataset *d) {
  if (request->task != CLM_TASK_CLASSIFICATION || request->frames_only) return true;
  d->name_counts = dataset_memory(request, d->n_outputs, sizeof *d->name_counts);
  int64_t targets = d->output == CLM_OUTPUT_EVERY ? d->frames : d->sequences.count;
  for (int64_t i = 0; d->name_counts && i < targets; i++)
    if (d->class_memory[i] >= 0) d->name_counts[d->class_memory[i]]++;
  return d->name_counts != NULL;
}

/* A model that is there already says how wide frames and outputs are. */
static bool check_known(const dataset_request *request, const dataset *d) {
  if (!request->known) return true;
  const clm_backbone_config *c = clm_backbone_configuration(request->known);
  if (c->embed_dim != d->embed_dim)
    return tool_fail("%s has frames of %lld numbers, the model takes %lld", request->data, (long long)d->embed_dim,
                     (long long)c->embed_dim),
           false;
  if (request->frames_only) return true;
  if (clm_backbone_output_size(request->known) != d->n_outputs)
    return tool_fail("%s has %lld %s, the model has %lld", request->targets ? request->targets : request->data,
                     (long long)d->n_outputs, d->class_memory ? "classes" : "targets",
                     (long long)clm_backbone_output_size(request->known)),
           false;
  if (c->output != d->output)
    return tool_fail("the targets are of %s, the model has an output for %s",
                     d->output == CLM_OUTPUT_EVERY ? "every frame" : "whole sequences",
                     c->output == CLM_OUTPUT_EVERY ? "every frame" : "whole sequences"),
           false;
  return true;
}

static bool ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && strcmp(text + n - m, end) == 0;
}

bool dataset_read(const dataset_request *request, dataset *d) {
  *d = (dataset){0};
  bool ok = ends_with(request->data, ".npy") ? dataset_read_npy(request, d) : dataset_read_csv(request, d);
  ok = ok && count_classes(request, d) && check_known(request, d);
  d->sequences.frames = d->frame_memory;
  d->sequences.targets = d->target_memory;
  d->sequences.classes = d->class_memory;
  if (!ok) dataset_free(d);
  return ok;
}

void dataset_free(dataset *d) {
  for (int64_t i = 0; d->names && i < d->n_outputs; i++) free(d->names[i]);
  free(d->names);
  free(d->name_counts);
  free(d->frame_memory);
  free(d->target_memory);
  free(d->class_memory);
  free(d->length_memory);
  *d = (dataset){0};
}
