/* Sequences and their targets in host memory: checked, and judged by the outputs. */
#include "core/context.h"
#include "core/try.h"
#include "model/backbone.h"
#include <math.h>
#include <stdlib.h>

#define FRAMES_AT_ONCE 4096 /* of sequences of one length that run together; one sequence runs whole */

static clm_status fail(const clm_backbone *b, const char *call, const char *what) {
  return context_fail(b->context, CLM_INVALID_ARGUMENT, "%s: %s", call, what);
}

static clm_status check_numbers(const clm_backbone *b, const char *call, const char *what, const float *values,
                                int64_t rows, int64_t width) {
  for (int64_t i = 0; i < rows * width; i++)
    if (!isfinite(values[i]))
      return context_fail(b->context, CLM_INVALID_ARGUMENT, "%s: number %lld of %s %lld is not finite", call,
                          (long long)(i % width), what, (long long)(i / width));
  return CLM_OK;
}

static clm_status check_targets(const clm_backbone *b, const char *call, const clm_sequences *s, int64_t rows) {
  if (b->config.task == CLM_TASK_REGRESSION) {
    if (!s->targets) return fail(b, call, "targets are absent");
    return check_numbers(b, call, "target", s->targets, rows, clm_backbone_output_size(b));
  }
  if (!s->classes) return fail(b, call, "classes are absent");
  for (int64_t i = 0; i < rows; i++)
    if (s->classes[i] < -1 || s->classes[i] >= b->config.n_outputs)
      return context_fail(b->context, CLM_INVALID_ARGUMENT, "%s: class %lld is %d, the backbone has %lld", call,
                          (long long)i, (int)s->classes[i], (long long)b->config.n_outputs);
  return CLM_OK;
}

static clm_status fill_list(const clm_backbone *b, const char *call, const clm_sequences *s,
                            backbone_sequence *list) {
  const bool every = b->config.output == CLM_OUTPUT_EVERY;
  int64_t frames = 0;
  for (int64_t i = 0; i < s->count; i++) {
    int64_t length = s->lengths ? s->lengths[i] : s->length;
    if (length < 1 || length > INT32_MAX)
      return context_fail(b->context, CLM_INVALID_ARGUMENT,
                          "%s: sequence %lld has %lld frames, at least 1 is expected", call, (long long)i,
                          (long long)length);
    list[i] = (backbone_sequence){.begin = frames, .length = length, .target = every ? frames : i};
    frames += length;
  }
  TRY(check_numbers(b, call, "frame", s->frames, frames, b->config.embed_dim));
  return check_targets(b, call, s, every ? frames : s->count);
}

clm_status backbone_sequences(clm_backbone *b, const char *call, const clm_sequences *s, backbone_sequence **list) {
  *list = NULL;
  if (s->count < 1 || s->count > INT32_MAX || !s->frames) return fail(b, call, "there are no sequences");
  *list = malloc((size_t)s->count * sizeof **list);
  if (!*list) return context_fail(b->context, CLM_OUT_OF_MEMORY, "%s: out of host memory", call);
  clm_status status = fill_list(b, call, s, *list);
  if (status) {
    free(*list);
    *list = NULL;
  }
  return status;
}

/* ---- Judging ---- */

typedef struct judge {
  clm_backbone *backbone;
  const clm_sequences *sequences;
  const backbone_sequence *list;
  int64_t count, size; /* sequences; outputs of a row */
  double *means;       /* of the targets, regression  */
  double loss, deviation, right;
  int64_t judged;
} judge;

static int64_t targets_of(const judge *j, const backbone_sequence *s) {
  return j->backbone->config.output == CLM_OUTPUT_EVERY ? s->length : 1;
}

static void find_means(judge *j) {
  double rows = 0;
  for (int64_t i = 0; i < j->count; i++) {
    const float *target = j->sequences->targets + j->list[i].target * j->size;
    int64_t n = targets_of(j, &j->list[i]);
    for (int64_t k = 0; k < n * j->size; k++) j->means[k % j->size] += (double)target[k];
    rows += (double)n;
  }
  for (int64_t k = 0; k < j->size; k++) j->means[k] /= rows;
}

static void judge_numbers(judge *j, const float *out, const float *target) {
  for (int64_t k = 0; k < j->size; k++) {
    double error = (double)out[k] - (double)target[k], deviation = (double)target[k] - j->means[k];
    j->loss += error * error;
    j->deviation += deviation * deviation;
  }
  j->judged += j->size;
}

static void judge_class(judge *j, const float *logits, int32_t target) {
  if (target < 0) return;
  int64_t best = 0;
  double sum = 0;
  for (int64_t k = 1; k < j->size; k++)
    if (logits[k] > logits[best]) best = k;
  for (int64_t k = 0; k < j->size; k++) sum += exp((double)logits[k] - (double)logits[best]);
  j->loss += log(sum) + (double)logits[best] - (double)logits[target];
  j->right += best == target;
  j->judged++;
}

static void judge_sequence(judge *j, const backbone_sequence *s, const float *out) {
  for (int64_t row = 0; row < targets_of(j, s); row++, out += j->size)
    if (j->backbone->config.task == CLM_TASK_REGRESSION)
      judge_numbers(j, out, j->sequences->targets + (s->target + row) * j->size);
    else judge_class(j, out, j->sequences->classes[s->target + row]);
}

/* Frames of `batch` sequences of one length through the backbone, outputs to `host` (which holds both). */
static clm_status run_batch(judge *j, const backbone_sequence *s, int64_t batch, clm_buffer *buffer, float *host) {
  clm_backbone *b = j->backbone;
  int64_t width = b->config.embed_dim, frames[] = {batch, s->length, width}, outputs[] = {batch, s->length, j->size};
  bool every = b->config.output == CLM_OUTPUT_EVERY;
  if (!every) outputs[1] = j->size;
  size_t frame_bytes = (size_t)(batch * s->length * width) * sizeof(float);
  clm_tensor in = clm_tensor_of(buffer, 0, CLM_F32, 3, frames),
             out = clm_tensor_of(buffer, (frame_bytes + 63) / 64 * 64, CLM_F32, every ? 3 : 2, outputs);
  for (int64_t i = 0; i < batch; i++) /* they may lie apart: parts of longer ones */
    TRY(clm_buffer_write(buffer, (size_t)(i * s->length * width) * sizeof(float),
                         (size_t)(s->length * width) * sizeof(float), j->sequences->frames + s[i].begin * width));
  TRY(clm_backbone_forward(b, in, out));
  return clm_tensor_read(out, host, (size_t)clm_tensor_count(out) * sizeof *host);
}

static int64_t batch_at(const judge *j, int64_t first) {
  int64_t length = j->list[first].length, most = FRAMES_AT_ONCE / length, n = 1;
  while (n < most && first + n < j->count && j->list[first + n].length == length) n++;
  return n;
}

/* Numbers in the largest batch's frames and outputs. */
static void largest(const judge *j, int64_t *frames, int64_t *outputs) {
  *frames = *outputs = 0;
  for (int64_t i = 0, n; i < j->count; i += n) {
    n = batch_at(j, i);
    int64_t in = n * j->list[i].length * j->backbone->config.embed_dim,
            out = n * targets_of(j, &j->list[i]) * j->size;
    if (in > *frames) *frames = in;
    if (out > *outputs) *outputs = out;
  }
}

static clm_status run_all(judge *j, clm_buffer *buffer, float *host) {
  if (j->backbone->config.task == CLM_TASK_REGRESSION) find_means(j);
  for (int64_t i = 0, n; i < j->count; i += n) {
    n = batch_at(j, i);
    TRY(run_batch(j, &j->list[i], n, buffer, host));
    int64_t outputs = targets_of(j, &j->list[i]) * j->size;
    for (int64_t k = 0; k < n; k++) judge_sequence(j, &j->list[i + k], host + k * outputs);
  }
  return CLM_OK;
}

clm_status backbone_evaluate(clm_backbone *b, const clm_sequences *sequences, const backbone_sequence *list,
                             int64_t count, clm_backbone_score *score) {
  judge j = {
      .backbone = b, .sequences = sequences, .list = list, .count = count, .size = clm_backbone_output_size(b)};
  int64_t frames, outputs;
  clm_buffer *buffer = NULL;
  largest(&j, &frames, &outputs);
  float *host = malloc((size_t)outputs * sizeof *host);
  j.means = calloc((size_t)j.size, sizeof *j.means);
  clm_status status = host && j.means
                          ? clm_buffer_create(b->context, (size_t)(frames + outputs + 16) * sizeof(float), &buffer)
                          : context_fail(b->context, CLM_OUT_OF_MEMORY, "backbone_evaluate: out of host memory");
  if (status == CLM_OK) status = run_all(&j, buffer, host);
  clm_buffer_destroy(&buffer);
  free(j.means);
  free(host);
  if (status) return status;
  bool regression = b->config.task == CLM_TASK_REGRESSION;
  double judged = (double)j.judged;
  *score = (clm_backbone_score){.count = j.judged, .loss = j.loss / judged};
  score->quality = !regression ? j.right / judged : j.deviation > 0 ? 1 - j.loss / j.deviation : (double)NAN;
  return CLM_OK;
}

clm_status clm_backbone_evaluate(clm_backbone *b, const clm_sequences *sequences, clm_backbone_score *score) {
  TRY(HANDLE_NEED(b, "backbone_evaluate", sequences, score));
  backbone_sequence *list;
  TRY(backbone_sequences(b, "backbone_evaluate", sequences, &list));
  clm_status status = backbone_evaluate(b, sequences, list, sequences->count, score);
  free(list);
  return status;
}
