/* What a model makes of a text: nats of every prediction, in windows or with the state carried; and of the choices
 * that may continue one. */
#include "core/arith.h"
#include "core/context.h"
#include "core/try.h"
#include "model/model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SCORE_ROWS    4096 /* predictions that run at once                */
#define CHOICES_BATCH 64   /* choices that run at once                    */

/* Rows of predictions: what they read, what they are to predict, what it costs. */
typedef struct predictions {
  int64_t batch, length;
  clm_buffer *buffer;
  clm_tensor ids, targets, losses;
  int32_t *host_ids, *host_targets;
  float *host_losses;
} predictions;

static clm_status predictions_make(clm_context *ctx, int64_t batch, int64_t length, predictions *p) {
  *p = (predictions){.batch = batch, .length = length};
  size_t rows = (size_t)(batch * length), bytes = rows * sizeof(int32_t);
  p->host_ids = calloc(3 * rows, sizeof(int32_t));
  if (!p->host_ids) return context_fail(ctx, CLM_OUT_OF_MEMORY, "model_score: out of host memory");
  p->host_targets = p->host_ids + rows;
  p->host_losses = (float *)(void *)(p->host_targets + rows);
  TRY(clm_buffer_create(ctx, 3 * bytes, &p->buffer));
  int64_t shape[2] = {batch, length};
  p->ids = clm_tensor_of(p->buffer, 0, CLM_I32, 2, shape);
  p->targets = clm_tensor_of(p->buffer, bytes, CLM_I32, 2, shape);
  p->losses = clm_tensor_of(p->buffer, 2 * bytes, CLM_F32, 2, shape);
  return CLM_OK;
}

static void predictions_free(predictions *p) {
  clm_buffer_destroy(&p->buffer);
  free(p->host_ids);
}

static clm_status predictions_run(clm_model *m, predictions *p, const int64_t *lengths, clm_model_state *state) {
  size_t bytes = (size_t)(p->batch * p->length) * sizeof(int32_t);
  TRY(clm_tensor_write(p->ids, p->host_ids, bytes));
  TRY(clm_tensor_write(p->targets, p->host_targets, bytes));
  TRY(clm_model_run(
      m, &(clm_model_run_args){
             .ids = p->ids, .lengths = lengths, .state = state, .targets = p->targets, .losses = p->losses}));
  return clm_tensor_read(p->losses, p->host_losses, bytes);
}

/* ---- A text ---- */

typedef struct scoring {
  clm_model *model;
  const int32_t *ids;
  int64_t count; /* predictions: of ids[1] to ids[count] */
  int64_t window, stride;
  float *losses; /* optional */
  double sum;
  int64_t not_finite; /* the first prediction whose nats are not a finite number, -1: none */
  const clm_score_options *options;
} scoring;

/* Row `row` has the predictions from `begin` on; those before `counted` are only context. */
static void fill_row(const scoring *s, predictions *p, int64_t row, int64_t begin, int64_t counted) {
  for (int64_t i = 0; i < p->length; i++) {
    int64_t at = begin + i;
    p->host_ids[row * p->length + i] = at < s->count ? s->ids[at] : 0;
    p->host_targets[row * p->length + i] = at >= counted && at < s->count ? s->ids[at + 1] : -1;
  }
}

static void take_row(scoring *s, const predictions *p, int64_t row, int64_t begin, int64_t counted) {
  for (int64_t i = counted - begin; i < p->length && begin + i < s->count; i++) {
    float loss = p->host_losses[row * p->length + i];
    s->sum += (double)loss;
    if (!isfinite(loss) && s->not_finite < 0) s->not_finite = begin + i;
    if (s->losses) s->losses[begin + i] = loss;
  }
}

/* After `done` predictions: whether all are numbers, and whether to continue. */
static clm_status report(const scoring *s, int64_t done) {
  clm_context *ctx = s->model->context;
  if (s->not_finite >= 0)
    return context_fail(ctx, CLM_BAD_FORMAT,
                        "model_score: prediction %lld has no finite number of nats: the model overflows, or its "
                        "weights are damaged",
                        (long long)s->not_finite);
  if (done > s->count) done = s->count;
  return !s->options->progress || s->options->progress(s->options->user, done, s->count)
             ? CLM_OK
             : context_fail(ctx, CLM_INTERRUPTED, "the score was stopped after %lld of %lld predictions",
                            (long long)done, (long long)s->count);
}

static int64_t counted_from(const scoring *s, int64_t window) {
  return window == 0 ? 0 : (window - 1) * s->stride + s->window;
}

/* Windows of which each begins `stride` after the one before and counts what that one did not reach. */
static clm_status score_windows(scoring *s, predictions *p) {
  int64_t windows = s->count <= s->window ? 1 : (s->count - s->window - 1) / s->stride + 2;
  for (int64_t first = 0; first < windows; first += p->batch) {
    for (int64_t row = 0; row < p->batch; row++)
      fill_row(s, p, row, (first + row) * s->stride, counted_from(s, first + row));
    TRY(predictions_run(s->model, p, NULL, NULL));
    for (int64_t row = 0; row < p->batch && first + row < windows; row++)
      take_row(s, p, row, (first + row) * s->stride, counted_from(s, first + row));
    TRY(report(s, counted_from(s, first + p->batch)));
  }
  return CLM_OK;
}

static clm_status score_carried(scoring *s, predictions *p, clm_model_state *state) {
  for (int64_t begin = 0; begin < s->count; begin += p->length) {
    fill_row(s, p, 0, begin, begin);
    TRY(predictions_run(s->model, p, NULL, state));
    take_row(s, p, 0, begin, begin);
    TRY(report(s, begin + p->length));
  }
  return CLM_OK;
}

static clm_status score(scoring *s, bool carry) {
  clm_context *ctx = s->model->context;
  int64_t length = carry ? SCORE_ROWS : s->window;
  if (length > s->count) length = s->count;
  if (!carry) s->window = length;
  int64_t windows = s->count <= length ? 1 : (s->count - length - 1) / s->stride + 2, batch = SCORE_ROWS / length;
  if (batch > windows) batch = windows;
  if (carry || batch < 1) batch = 1;
  predictions p;
  clm_model_state *state = NULL;
  clm_status status = predictions_make(ctx, batch, length, &p);
  if (status == CLM_OK && carry) status = clm_model_state_create(s->model, 1, &state);
  if (status == CLM_OK) status = carry ? score_carried(s, &p, state) : score_windows(s, &p);
  clm_model_state_destroy(&state);
  predictions_free(&p);
  return status;
}

clm_status clm_model_score(clm_model *m, const int32_t *ids, size_t count, const clm_score_options *options,
                           double *loss) {
  TRY(HANDLE_NEED(m, "model_score", ids, loss));
  clm_score_options o = options ? *options : (clm_score_options){0};
  if (count < 2)
    return context_fail(m->context, CLM_INVALID_ARGUMENT,
                        "model_score: the text has %zu tokens, at least 2 are needed", count);
  if (o.carry && (o.window || o.stride))
    return context_fail(m->context, CLM_INVALID_ARGUMENT, "model_score: a carried state has no windows");
  if (o.window < 0)
    return context_fail(m->context, CLM_INVALID_ARGUMENT, "model_score: window is %lld, at least 1 is expected",
                        (long long)o.window);
  if (!o.window) o.window = o.stride > CLM_SCORE_WINDOW ? o.stride : CLM_SCORE_WINDOW;
  if (!o.stride) o.stride = o.window;
  if (o.stride < 1 || o.stride > o.window)
    return context_fail(m->context, CLM_INVALID_ARGUMENT,
                        "model_score: stride is %lld, expected 1 to the window, %lld", (long long)o.stride,
                        (long long)o.window);
  scoring s = {.model = m,
               .ids = ids,
               .count = (int64_t)count - 1,
               .window = o.window,
               .stride = o.stride,
               .losses = o.losses,
               .not_finite = -1,
               .options = &o};
  clm_status status = score(&s, o.carry);
  if (status == CLM_OK) *loss = s.sum / (double)s.count;
  return status;
}

/* ---- Choices ---- */

typedef struct choosing {
  clm_model *model;
  const clm_choice *choices; /* of this batch */
  int64_t count;
  double *log_likelihoods;
  float *logits; /* after the context, on the host */
} choosing;

double model_log_sum(const float *logits, int64_t count) {
  double largest = -INFINITY, sum = 0;
  for (int64_t i = 0; i < count; i++) largest = fmax(largest, (double)logits[i]);
  for (int64_t i = 0; i < count; i++) sum += exp((double)logits[i] - largest);
  return largest + log(sum);
}

/* The first token of each is predicted by the context, the others by the choice itself. */
static clm_status choose_batch(choosing *c, const clm_model_state *context) {
  clm_model *m = c->model;
  int64_t longest = 1, lengths[CHOICES_BATCH];
  double log_sum = model_log_sum(c->logits, m->config.vocab_size);
  for (int64_t i = 0; i < c->count; i++) {
    c->log_likelihoods[i] = (double)c->logits[c->choices[i].ids[0]] - log_sum;
    lengths[i] = (int64_t)c->choices[i].count - 1;
    if (lengths[i] > longest) longest = lengths[i];
  }
  predictions p;
  clm_model_state *state = NULL;
  clm_status status = predictions_make(m->context, c->count, longest, &p);
  for (int64_t i = 0; status == CLM_OK && i < c->count; i++) {
    size_t bytes = (size_t)lengths[i] * sizeof(int32_t);
    memcpy(p.host_ids + i * longest, c->choices[i].ids, bytes);
    memcpy(p.host_targets + i * longest, c->choices[i].ids + 1, bytes);
  }
  if (status == CLM_OK) status = clm_model_state_fork(context, NULL, c->count, &state);
  if (status == CLM_OK) status = predictions_run(m, &p, lengths, state);
  for (int64_t i = 0; status == CLM_OK && i < c->count; i++)
    for (int64_t k = 0; k < lengths[i]; k++) c->log_likelihoods[i] -= (double)p.host_losses[i * longest + k];
  for (int64_t i = 0; status == CLM_OK && i < c->count; i++)
    if (!isfinite(c->log_likelihoods[i]))
      status = context_fail(m->context, CLM_BAD_FORMAT,
                            "model_choices: a log-likelihood is not a finite number: the model overflows, or its "
                            "weights are damaged");
  clm_model_state_destroy(&state);
  predictions_free(&p);
  return status;
}

static clm_status run_context(clm_model *m, const int32_t *ids, size_t count, clm_model_state *state, float *host) {
  clm_buffer *buffer = NULL;
  size_t ids_bytes = round_up_line(count * sizeof *ids), logits_bytes = (size_t)m->config.vocab_size * sizeof *host;
  TRY(clm_buffer_create(m->context, ids_bytes + logits_bytes, &buffer));
  clm_tensor all = clm_tensor_of(buffer, 0, CLM_I32, 2, (int64_t[]){1, (int64_t)count}),
             logits = clm_tensor_of(buffer, ids_bytes, CLM_F32, 2, (int64_t[]){1, m->config.vocab_size});
  clm_status status = clm_tensor_write(all, ids, count * sizeof *ids);
  if (status == CLM_OK) status = clm_model_prefill(m, state, all, NULL, logits);
  if (status == CLM_OK) status = clm_tensor_read(logits, host, logits_bytes);
  clm_buffer_destroy(&buffer);
  return status;
}

static clm_status check_tokens(clm_model *m, const char *what, size_t which, const int32_t *ids, size_t count) {
  if (count == 0 || !ids)
    return context_fail(m->context, CLM_INVALID_ARGUMENT, "model_choices: %s %zu has no tokens", what, which);
  for (size_t i = 0; i < count; i++)
    if (ids[i] < 0 || ids[i] >= m->config.vocab_size)
      return context_fail(m->context, CLM_INVALID_ARGUMENT,
                          "model_choices: %s %zu has the token %d, expected 0 to %lld", what, which, (int)ids[i],
                          (long long)m->config.vocab_size - 1);
  return CLM_OK;
}

clm_status clm_model_choices(clm_model *m, const int32_t *context, size_t context_count, const clm_choice *choices,
                             size_t count, double *log_likelihoods) {
  TRY(HANDLE_NEED(m, "model_choices", context, choices, log_likelihoods));
  TRY(check_tokens(m, "context", 0, context, context_count));
  for (size_t i = 0; i < count; i++) TRY(check_tokens(m, "choice", i, choices[i].ids, choices[i].count));
  float *logits = malloc((size_t)m->config.vocab_size * sizeof *logits);
  if (!logits) return context_fail(m->context, CLM_OUT_OF_MEMORY, "model_choices: out of host memory");
  clm_model_state *state = NULL;
  clm_status status = clm_model_state_create(m, 1, &state);
  if (status == CLM_OK) status = run_context(m, context, context_count, state, logits);
  for (size_t at = 0; status == CLM_OK && at < count; at += CHOICES_BATCH) {
    choosing c = {m, choices + at, (int64_t)(count - at < CHOICES_BATCH ? count - at : CHOICES_BATCH),
                  log_likelihoods + at, logits};
    status = choose_batch(&c, state);
  }
  clm_model_state_destroy(&state);
  free(logits);
  return status;
}
