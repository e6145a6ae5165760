/* Sequences and their targets in host memory: their checks, and the loss of a backbone over them. */
#include "core/arith.h"
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

/* ---- Evaluation ---- */

typedef struct evaluation {
  clm_backbone *backbone;
  const clm_sequences *sequences;
  const backbone_sequence *list;
  int64_t count, size; /* sequences; outputs of a row */
  double *means;       /* of the targets, regression  */
  double loss, deviation, correct;
  int64_t counted;
} evaluation;

static int64_t targets_of(const evaluation *e, const backbone_sequence *s) {
  return e->backbone->config.output == CLM_OUTPUT_EVERY ? s->length : 1;
}

static void find_means(evaluation *e) {
  double rows = 0;
  for (int64_t i = 0; i < e->count; i++) {
    const float *target = e->sequences->targets + e->list[i].target * e->size;
    int64_t n = targets_of(e, &e->list[i]);
    for (int64_t k = 0; k < n * e->size; k++) e->means[k % e->size] += (double)target[k];
    rows += (double)n;
  }
  for (int64_t k = 0; k < e->size; k++) e->means[k] /= rows;
}

static void add_numbers(evaluation *e, const float *out, const float *target) {
  for (int64_t k = 0; k < e->size; k++) {
    double error = (double)out[k] - (double)target[k], deviation = (double)target[k] - e->means[k];
    e->loss += error * error;
    e->deviation += deviation * deviation;
  }
  e->counted += e->size;
}

static void add_class(evaluation *e, const float *logits, int32_t target) {
  if (target < 0) return;
  int64_t best = 0;
  double sum = 0;
  for (int64_t k = 1; k < e->size; k++)
    if (logits[k] > logits[best]) best = k;
  for (int64_t k = 0; k < e->size; k++) sum += exp((double)logits[k] - (double)logits[best]);
  e->loss += log(sum) + (double)logits[best] - (double)logits[target];
  e->correct += best == target;
  e->counted++;
}

static void add_sequence(evaluation *e, const backbone_sequence *s, const float *out) {
  for (int64_t row = 0; row < targets_of(e, s); row++, out += e->size)
    if (e->backbone->config.task == CLM_TASK_REGRESSION)
      add_numbers(e, out, e->sequences->targets + (s->target + row) * e->size);
    else add_class(e, out, e->sequences->classes[s->target + row]);
}

/* Frames of `batch` sequences of one length through the backbone, outputs to `host`. */
static clm_status run_batch(evaluation *e, const backbone_sequence *s, int64_t batch, clm_buffer *buffer,
                            float *host) {
  clm_backbone *b = e->backbone;
  int64_t width = b->config.embed_dim, frames[] = {batch, s->length, width}, outputs[] = {batch, s->length, e->size};
  bool every = b->config.output == CLM_OUTPUT_EVERY;
  if (!every) outputs[1] = e->size;
  size_t frame_bytes = (size_t)(batch * s->length * width) * sizeof(float);
  clm_tensor in = clm_tensor_of(buffer, 0, CLM_F32, 3, frames),
             out = clm_tensor_of(buffer, round_up_line(frame_bytes), CLM_F32, every ? 3 : 2, outputs);
  for (int64_t i = 0; i < batch; i++) /* parts of longer sequences are not contiguous */
    TRY(clm_buffer_write(buffer, (size_t)(i * s->length * width) * sizeof(float),
                         (size_t)(s->length * width) * sizeof(float), e->sequences->frames + s[i].begin * width));
  TRY(clm_backbone_forward(b, in, out));
  return clm_tensor_read(out, host, (size_t)clm_tensor_count(out) * sizeof *host);
}

static int64_t batch_at(const evaluation *e, int64_t first) {
  int64_t length = e->list[first].length, max = FRAMES_AT_ONCE / length, n = 1;
  while (n < max && first + n < e->count && e->list[first + n].length == length) n++;
  return n;
}

/* Numbers in the largest batch's frames and outputs. */
static void largest(const evaluation *e, int64_t *frames, int64_t *outputs) {
  *frames = *outputs = 0;
  for (int64_t i = 0, n; i < e->count; i += n) {
    n = batch_at(e, i);
    int64_t in = n * e->list[i].length * e->backbone->config.embed_dim,
            out = n * targets_of(e, &e->list[i]) * e->size;
    if (in > *frames) *frames = in;
    if (out > *outputs) *outputs = out;
  }
}

static clm_status run_all(evaluation *e, clm_buffer *buffer, float *host) {
  if (e->backbone->config.task == CLM_TASK_REGRESSION) find_means(e);
  for (int64_t i = 0, n; i < e->count; i += n) {
    n = batch_at(e, i);
    TRY(run_batch(e, &e->list[i], n, buffer, host));
    int64_t outputs = targets_of(e, &e->list[i]) * e->size;
    for (int64_t k = 0; k < n; k++) add_sequence(e, &e->list[i + k], host + k * outputs);
  }
  return CLM_OK;
}

clm_status backbone_evaluate(clm_backbone *b, const clm_sequences *sequences, const backbone_sequence *list,
                             int64_t count, clm_backbone_score *score) {
  evaluation e = {
      .backbone = b, .sequences = sequences, .list = list, .count = count, .size = clm_backbone_output_size(b)};
  int64_t frames, outputs;
  clm_buffer *buffer = NULL;
  largest(&e, &frames, &outputs);
  float *host = malloc((size_t)outputs * sizeof *host);
  e.means = calloc((size_t)e.size, sizeof *e.means);
  clm_status status = host && e.means
                          ? clm_buffer_create(b->context, (size_t)(frames + outputs + 16) * sizeof(float), &buffer)
                          : context_fail(b->context, CLM_OUT_OF_MEMORY, "backbone_evaluate: out of host memory");
  if (status == CLM_OK) status = run_all(&e, buffer, host);
  clm_buffer_destroy(&buffer);
  free(e.means);
  free(host);
  if (status) return status;
  bool regression = b->config.task == CLM_TASK_REGRESSION;
  double counted = (double)e.counted;
  *score = (clm_backbone_score){.count = e.counted, .loss = e.loss / counted};
  score->quality = !regression ? e.correct / counted : e.deviation > 0 ? 1 - e.loss / e.deviation : (double)NAN;
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
