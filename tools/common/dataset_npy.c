/* X (n, length, embed_dim) and Y: (n, n_outputs) or (n), (n, length, n_outputs), or of whole numbers (n), (n,
 * length). */
#include "common/dataset.h"
#include "common/tool.h"
#include "files/npy.h"
#include <math.h>

typedef struct arrays {
  npy_array x, y;
} arrays;

/* The output that the rank of Y speaks of; -1: none. */
static int output_of(const dataset_request *request, const npy_array *y) {
  bool classes = request->task == CLM_TASK_CLASSIFICATION, every = request->output == CLM_OUTPUT_EVERY;
  if (classes) return y->rank == 1 ? CLM_OUTPUT_LAST : y->rank == 2 ? CLM_OUTPUT_EVERY : -1;
  if (y->rank == 1) return CLM_OUTPUT_LAST;
  if (y->rank == 2) return every ? CLM_OUTPUT_EVERY : CLM_OUTPUT_LAST; /* (n, length): one output */
  return y->rank == 3 ? CLM_OUTPUT_EVERY : -1;
}

static bool check_frames(const dataset_request *request, const npy_array *x, dataset *d) {
  if (x->rank != 3 || x->count == 0)
    return tool_fail("%s has %d dimensions%s, (n, length, embed_dim) are expected", request->data, x->rank,
                     x->count ? "" : " and no numbers"),
           false;
  d->embed_dim = x->shape[2];
  d->sequences.count = x->shape[0];
  d->sequences.length = x->shape[1];
  d->frames = x->shape[0] * x->shape[1];
  return true;
}

static bool check_targets(const dataset_request *request, const arrays *a, dataset *d) {
  const npy_array *x = &a->x, *y = &a->y;
  bool classes = request->task == CLM_TASK_CLASSIFICATION;
  if (classes && !npy_is_whole(y->dtype))
    return tool_fail("%s does not hold whole numbers, but classes are numbered from 0", request->targets), false;
  int output = output_of(request, y);
  if (output < 0 || y->count == 0)
    return tool_fail("%s has %d dimensions%s, %s are expected", request->targets, y->rank,
                     y->count ? "" : " and no numbers",
                     classes ? "(n) or (n, length)" : "(n, n_outputs) or (n, length, n_outputs)"),
           false;
  if (request->output >= 0 && request->output != output)
    return tool_fail("--output does not fit %s, which has %d dimensions", request->targets, y->rank), false;
  d->output = (clm_backbone_output)output;
  if (y->shape[0] != x->shape[0])
    return tool_fail("%s has %lld sequences, %s %lld", request->targets, (long long)y->shape[0], request->data,
                     (long long)x->shape[0]),
           false;
  if (output == CLM_OUTPUT_EVERY && y->shape[1] != x->shape[1])
    return tool_fail("%s has %lld frames in a sequence, %s %lld", request->targets, (long long)y->shape[1],
                     request->data, (long long)x->shape[1]),
           false;
  d->n_outputs = (int64_t)y->count / (output == CLM_OUTPUT_EVERY ? d->frames : d->sequences.count);
  return true;
}

/* Numbers that f32 holds; the library would say so too, but not of which file. */
static bool check_finite(const char *path, const float *values, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (!isfinite(values[i])) return tool_fail("%s: number %zu is not finite", path, i), false;
  return true;
}

static bool read_classes(const dataset_request *request, const npy_array *y, dataset *d) {
  char error[NPY_ERROR_BYTES];
  d->n_outputs = 0;
  d->class_memory = dataset_memory(request, (int64_t)y->count, sizeof *d->class_memory);
  if (!d->class_memory) return false;
  if (npy_read_i32(y, request->targets, 0, y->count, d->class_memory, error)) return tool_fail("%s", error), false;
  int64_t count = request->known ? clm_backbone_output_size(request->known) : 0,
          classes = count ? count : DATASET_MAX_CLASSES;
  for (size_t i = 0; i < y->count; i++) {
    if (d->class_memory[i] == -100) d->class_memory[i] = -1; /* the label that PyTorch's losses ignore */
    int32_t class = d->class_memory[i];
    if (class < -1 || class >= classes)
      return tool_fail("%s: class %d, 0 to %lld are expected (-1 and -100: none)", request->targets, (int)class,
                       (long long)classes - 1),
             false;
    if (class >= count) count = class + 1;
  }
  if (count == 0) return tool_fail("%s has no class: all are -1", request->targets), false;
  return dataset_number_classes(request, d, count);
}

static bool read_numbers(const dataset_request *request, const npy_array *y, dataset *d) {
  d->target_memory = dataset_memory(request, (int64_t)y->count, sizeof *d->target_memory);
  if (!d->target_memory) return false;
  npy_read_f32(y, 0, y->count, d->target_memory);
  return check_finite(request->targets, d->target_memory, y->count);
}

static bool read_frames(const dataset_request *request, const npy_array *x, dataset *d) {
  d->frame_memory = dataset_memory(request, (int64_t)x->count, sizeof *d->frame_memory);
  if (!d->frame_memory) return false;
  npy_read_f32(x, 0, x->count, d->frame_memory);
  return check_finite(request->data, d->frame_memory, x->count);
}

/* Shapes first: what does not fit is said before anything large is read. */
static bool read_both(const dataset_request *request, arrays *a, dataset *d) {
  char error[NPY_ERROR_BYTES];
  if (npy_open(request->targets, &a->y, error)) return tool_fail("%s", error), false;
  bool ok =
      check_targets(request, a, d) && read_frames(request, &a->x, d) &&
      (request->task == CLM_TASK_CLASSIFICATION ? read_classes(request, &a->y, d) : read_numbers(request, &a->y, d));
  npy_close(&a->y);
  return ok;
}

bool dataset_read_npy(const dataset_request *request, dataset *d) {
  char error[NPY_ERROR_BYTES];
  arrays a;
  if (request->target || request->features)
    return tool_fail("--target and --features name columns of a CSV table, %s is none", request->data), false;
  if (!request->targets && !request->frames_only) return tool_fail("--targets Y.npy is missing"), false;
  if (npy_open(request->data, &a.x, error)) return tool_fail("%s", error), false;
  bool ok = check_frames(request, &a.x, d) &&
            (request->frames_only ? read_frames(request, &a.x, d) : read_both(request, &a, d));
  npy_close(&a.x);
  return ok;
}
