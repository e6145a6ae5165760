/* Runs over sequences of any length: chunk by chunk, with the state carried from one to the next, so that the memory
 * is that of a chunk. Sequences of one length are the batch rows of a chunk; others are packed one after another
 * into one row, with their own states (cu_seqlens of clmamba/selective_scan.h), so that no step is spent on padding.
 */
#include "core/arith.h"
#include "core/context.h"
#include "core/try.h"
#include "model/linear.h"
#include "model/model.h"
#include <clmamba/elementwise.h>
#include <clmamba/language.h>
#include <clmamba/norm.h>
#include <stdio.h>
#include <stdlib.h>

#define CHUNK_STEPS 2048 /* max, of one sequence                 */
#define CHUNK_ROWS  8192 /* max, of all (min: one of each)       */

/* Tokens [begin, begin + count) of a sequence, at `row` and on of the chunk's activations. */
typedef struct span {
  int64_t sequence, begin, count, row;
} span;

typedef struct run {
  clm_model *model;
  const clm_model_run_args *args;
  int64_t batch, length;  /* of ids */
  bool even;              /* every sequence has the same number of tokens: `length` of them */
  clm_model_state *state; /* the caller's, or `own`, or NULL where nothing needs to be kept  */
  clm_model_state *own;
  int64_t *done; /* tokens of each sequence that have been run */
  span *spans;   /* of the current chunk, in the order of its rows */
  int64_t span_count, rows;
  int32_t *ends; /* batch + 1 */
} run;

static int64_t tokens_of(const run *r, int64_t sequence) {
  return r->args->lengths ? r->args->lengths[sequence] : r->length;
}

/* ---- Arguments ---- */

static clm_status check_tensor(clm_model *m, const char *call, const char *name, clm_tensor t, clm_dtype dtype,
                               int rank, const int64_t *shape) {
  bool good = t.buffer && t.dtype == dtype && t.rank == rank;
  int64_t stride = 1;
  char text[CLM_MAX_RANK * 22] = "";
  int at = 0;
  for (int i = rank - 1; good && i >= 0; i--) {
    good = t.shape[i] == shape[i] && (shape[i] == 1 || t.stride[i] == stride);
    stride *= shape[i];
  }
  for (int i = 0; i < rank; i++)
    at += snprintf(text + at, sizeof text - (size_t)at, "%s%lld", i ? ", " : "", (long long)shape[i]);
  return good ? CLM_OK
              : context_fail(m->context, CLM_INVALID_ARGUMENT, "%s: %s must be a contiguous %s tensor of shape (%s)",
                             call, name, clm_dtype_name(dtype), text);
}

static clm_status check_lengths(const run *r, const char *call) {
  clm_context *ctx = r->model->context;
  for (int64_t i = 0; i < r->batch; i++) {
    int64_t tokens = tokens_of(r, i);
    if (tokens < 0 || tokens > r->length)
      return context_fail(ctx, CLM_INVALID_ARGUMENT, "%s: sequence %lld has length %lld, expected 0 to %lld", call,
                          (long long)i, (long long)tokens, (long long)r->length);
    if (tokens == 0 && (r->args->mean_hidden.buffer || !r->args->state || r->args->state->tokens[i] == 0))
      return context_fail(ctx, CLM_INVALID_ARGUMENT, "%s: sequence %lld has no tokens", call, (long long)i);
  }
  return CLM_OK;
}

static clm_status check_state(const run *r, const char *call) {
  const clm_model_state *state = r->args->state;
  if (!state) return CLM_OK;
  if (state->model != r->model)
    return context_fail(r->model->context, CLM_INVALID_ARGUMENT, "%s: the state is another model's", call);
  if (state->batch != r->batch)
    return context_fail(r->model->context, CLM_INVALID_ARGUMENT, "%s: ids has batch %lld, the state %lld", call,
                        (long long)r->batch, (long long)state->batch);
  return model_state_check(state, call);
}

static clm_status check(run *r, const char *call) {
  const clm_model_run_args *a = r->args;
  clm_model *m = r->model;
  int64_t vocab = m->config.vocab_size, d_model = m->config.d_model;
  if (!a->ids.buffer || a->ids.dtype != CLM_I32 || a->ids.rank != 2)
    return context_fail(m->context, CLM_INVALID_ARGUMENT, "%s: ids must be an i32 tensor (batch, length)", call);
  r->batch = a->ids.shape[0];
  r->length = a->ids.shape[1];
  const struct {
    const char *name;
    clm_tensor tensor;
    clm_dtype dtype;
    int rank;
    int64_t shape[4];
  } rows[] = {{"ids", a->ids, CLM_I32, 2, {r->batch, r->length}},
              {"logits", a->logits, CLM_F32, 3, {r->batch, r->length, vocab}},
              {"last_logits", a->last_logits, CLM_F32, 2, {r->batch, vocab}},
              {"hidden", a->hidden, CLM_F32, 4, {m->config.n_layer + 1, r->batch, r->length, d_model}},
              {"last_hidden", a->last_hidden, CLM_F32, 2, {r->batch, d_model}},
              {"mean_hidden", a->mean_hidden, CLM_F32, 2, {r->batch, d_model}},
              {"targets", a->targets, CLM_I32, 2, {r->batch, r->length}},
              {"losses", a->losses, CLM_F32, 2, {r->batch, r->length}}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (rows[i].tensor.buffer)
      TRY(check_tensor(m, call, rows[i].name, rows[i].tensor, rows[i].dtype, rows[i].rank, rows[i].shape));
  if (!a->targets.buffer != !a->losses.buffer)
    return context_fail(m->context, CLM_INVALID_ARGUMENT, "%s: targets and losses must be given together", call);
  TRY(check_state(r, call));
  return check_lengths(r, call);
}

/* ---- Chunks ---- */

/* The next tokens of every sequence that has any left; false after the last. */
static bool next_chunk(run *r) {
  int64_t active = 0;
  for (int64_t i = 0; i < r->batch; i++) active += r->done[i] < tokens_of(r, i);
  if (active == 0) return false;
  int64_t steps = min_of(CHUNK_STEPS, CHUNK_ROWS / active);
  if (steps < 1) steps = 1;
  r->span_count = r->rows = 0;
  for (int64_t i = 0; i < r->batch; i++) {
    int64_t count = min_of(steps, tokens_of(r, i) - r->done[i]);
    r->ends[i] = (int32_t)r->rows;
    if (count == 0) continue;
    r->spans[r->span_count++] = (span){i, r->done[i], count, r->rows};
    r->done[i] += count;
    r->rows += count;
  }
  r->ends[r->batch] = (int32_t)r->rows;
  return true;
}

static bool ends_here(const run *r, const span *s) { return s->begin + s->count == tokens_of(r, s->sequence); }

/* Rows that are contiguous both in the chunk and in tensors of the shape (batch length, ...). */
typedef struct piece {
  int64_t row, place, count;
} piece;

static bool next_piece(const run *r, int64_t *next, piece *p) {
  *p = (piece){0};
  for (; *next < r->span_count; ++*next) {
    const span *s = &r->spans[*next];
    int64_t place = s->sequence * r->length + s->begin;
    if (p->count && place != p->place + p->count) break;
    if (!p->count) *p = (piece){s->row, place, 0};
    p->count += s->count;
  }
  return p->count > 0;
}

static clm_tensor rows_at(clm_tensor t, int64_t begin, int64_t count) {
  return clm_tensor_slice(rows_of(t), 0, begin, count);
}

static clm_tensor numbers_at(clm_tensor t, int64_t begin, int64_t count) {
  return clm_tensor_slice(clm_tensor_reshape(t, 1, (int64_t[]){clm_tensor_count(t)}), 0, begin, count);
}

static clm_status copy(clm_model *m, clm_tensor from, clm_tensor to) {
  return clm_axpby(m->context, &(clm_axpby_args){.x = from, .out = to, .alpha = 1});
}

/* Rows of the chunk to their places in `out`, (batch, length, d_model). */
static clm_status copy_out(const run *r, clm_tensor from, clm_tensor out) {
  piece p;
  for (int64_t next = 0; next_piece(r, &next, &p);)
    TRY(copy(r->model, rows_at(from, p.row, p.count), rows_at(out, p.place, p.count)));
  return CLM_OK;
}

static clm_tensor layer_of(clm_tensor hidden, int64_t layer) {
  return clm_tensor_reshape(clm_tensor_slice(hidden, 0, layer, 1), 3, hidden.shape + 1);
}

static clm_status embed(const run *r) {
  clm_model *m = r->model;
  piece p;
  for (int64_t next = 0; next_piece(r, &next, &p);)
    TRY(embedding_forward(m, numbers_at(r->args->ids, p.place, p.count), rows_at(m->act.x[0], p.row, p.count)));
  return CLM_OK;
}

/* A block's output to its place among the hidden states. */
static clm_status keep_hidden(void *user, int number) {
  const run *r = user;
  return copy_out(r, r->model->act.x[number + 1], layer_of(r->args->hidden, number));
}

static clm_status run_blocks(run *r) {
  blocks_pass pass = {.state = r->state, .user = r};
  if (!r->even) pass.cu_seqlens = r->state->cu_seqlens;
  if (r->args->hidden.buffer) pass.after = keep_hidden;
  return blocks_forward(r->model, &pass);
}

/* ---- What is wanted of a chunk ---- */

static clm_status losses_of(const run *r, piece p) {
  clm_model *m = r->model;
  int64_t block = m->act.logits.shape[0];
  for (int64_t begin = 0, count; begin < p.count; begin += count) {
    count = min_of(block, p.count - begin);
    clm_tensor logits = clm_tensor_slice(m->act.logits, 0, 0, count);
    TRY(head_forward(m, rows_at(m->act.normed, p.row + begin, count), logits));
    TRY(clm_cross_entropy(m->context,
                          &(clm_cross_entropy_args){.logits = logits,
                                                    .targets = numbers_at(r->args->targets, p.place + begin, count),
                                                    .losses = numbers_at(r->args->losses, p.place + begin, count)}));
  }
  return CLM_OK;
}

/* Adds the chunk to the sums over each sequence, and divides those that are complete. */
static clm_status sum_means(const run *r) {
  clm_model *m = r->model;
  for (int64_t i = 0; i < r->span_count; i++) {
    const span *s = &r->spans[i];
    clm_tensor sum = numbers_at(r->args->mean_hidden, s->sequence * m->config.d_model, m->config.d_model);
    clm_tensor part = s->begin ? numbers_at(m->act.last, 0, m->config.d_model) : sum;
    TRY(clm_column_sum(m->context,
                       &(clm_column_sum_args){.x = rows_at(m->act.normed, s->row, s->count), .out = part}));
    if (s->begin) TRY(clm_axpby(m->context, &(clm_axpby_args){.x = part, .out = sum, .alpha = 1, .beta = 1}));
    if (ends_here(r, s))
      TRY(clm_axpby(m->context,
                    &(clm_axpby_args){.x = sum, .out = sum, .alpha = 1 / (float)tokens_of(r, s->sequence)}));
  }
  return CLM_OK;
}

static clm_status norm(clm_model *m, clm_tensor x, clm_tensor out) {
  clm_norm_args args = final_norm_args(m, x, out);
  return clm_norm(m->context, &args);
}

clm_tensor model_last_rows(const clm_model *m) {
  clm_tensor x = clm_tensor_slice(m->act.x[m->config.n_layer], 1, m->act.length - 1, 1);
  x.rank = 2; /* (batch, 1, d_model) with the strides of a longer sequence */
  x.shape[1] = x.shape[2];
  x.stride[1] = x.stride[2];
  return x;
}

/* The final norm's output of every sequence that ends in this chunk, kept in the state. */
static clm_status keep_last(const run *r) {
  clm_model *m = r->model;
  if (r->even) return ends_here(r, r->spans) ? norm(m, model_last_rows(m), r->state->hidden) : CLM_OK;
  for (int64_t i = 0; i < r->span_count; i++) {
    const span *s = &r->spans[i];
    if (ends_here(r, s))
      TRY(norm(m, rows_at(m->act.x[m->config.n_layer], s->row + s->count - 1, 1),
               rows_at(r->state->hidden, s->sequence, 1)));
  }
  return CLM_OK;
}

static clm_status run_chunk(run *r) {
  clm_model *m = r->model;
  const clm_model_run_args *a = r->args;
  activations_mode mode = a->losses.buffer ? ACTIVATIONS_LOSS : ACTIVATIONS_INFER;
  int64_t batch = r->even ? r->batch : 1;
  TRY(model_prepare(m, batch, r->rows / batch, mode));
  if (!r->even) TRY(clm_tensor_write(r->state->cu_seqlens, r->ends, (size_t)(r->batch + 1) * sizeof *r->ends));
  TRY(embed(r));
  if (r->state) r->state->unfinished = true; /* until the run has come to its end */
  TRY(run_blocks(r));
  if (r->state) TRY(keep_last(r));
  if (!a->hidden.buffer && !a->logits.buffer && !a->losses.buffer && !a->mean_hidden.buffer) return CLM_OK;
  TRY(norm(m, rows_of(m->act.x[m->config.n_layer]), rows_of(m->act.normed)));
  if (a->hidden.buffer) TRY(copy_out(r, m->act.normed, layer_of(a->hidden, m->config.n_layer)));
  if (a->mean_hidden.buffer) TRY(sum_means(r));
  piece p;
  for (int64_t next = 0; next_piece(r, &next, &p);) {
    if (a->logits.buffer)
      TRY(head_forward(m, rows_at(m->act.normed, p.row, p.count), rows_at(a->logits, p.place, p.count)));
    if (a->losses.buffer) TRY(losses_of(r, p));
  }
  return CLM_OK;
}

/* ---- The whole ---- */

/* Room in the state for all tokens of the run. */
static clm_status reserve(const run *r) {
  int64_t tokens = 0;
  for (int64_t i = 0; i < r->batch; i++) tokens = max_of(tokens, r->state->tokens[i] + tokens_of(r, i));
  return model_state_reserve(r->state, tokens);
}

static clm_status prepare(run *r) {
  clm_model *m = r->model;
  r->even = true;
  for (int64_t i = 0; i < r->batch; i++) r->even = r->even && tokens_of(r, i) == tokens_of(r, 0);
  r->done = calloc((size_t)r->batch, sizeof *r->done);
  r->spans = calloc((size_t)r->batch, sizeof *r->spans);
  r->ends = calloc((size_t)r->batch + 1, sizeof *r->ends);
  if (!r->done || !r->spans || !r->ends)
    return context_fail(m->context, CLM_OUT_OF_MEMORY, "model: out of host memory");
  r->state = r->args->state;
  if (r->state) TRY(reserve(r));
  bool at_once = r->even && tokens_of(r, 0) <= min_of(CHUNK_STEPS, CHUNK_ROWS / r->batch);
  if (r->state || (at_once && !r->args->last_hidden.buffer && !r->args->last_logits.buffer)) return CLM_OK;
  TRY(clm_model_state_create(m, r->batch, &r->own));
  r->state = r->own;
  return reserve(r);
}

/* Reports progress, once the device has run the chunk. */
static clm_status report(const run *r) {
  clm_context *ctx = r->model->context;
  int64_t done = 0, total = 0;
  if (!r->args->progress) return CLM_OK;
  for (int64_t i = 0; i < r->batch; i++) done += r->done[i], total += tokens_of(r, i);
  TRY(clm_context_finish(ctx));
  return r->args->progress(r->args->user, done, total)
             ? CLM_OK
             : context_fail(ctx, CLM_INTERRUPTED, "the run was stopped after %lld of %lld tokens", (long long)done,
                            (long long)total);
}

static clm_status execute(run *r) {
  TRY(prepare(r));
  while (next_chunk(r)) {
    TRY(run_chunk(r));
    TRY(report(r));
  }
  if (r->args->last_hidden.buffer) TRY(copy(r->model, r->state->hidden, r->args->last_hidden));
  if (r->args->last_logits.buffer) TRY(head_forward(r->model, r->state->hidden, r->args->last_logits));
  if (!r->state) return CLM_OK;
  for (int64_t i = 0; i < r->batch; i++) r->state->tokens[i] += tokens_of(r, i);
  r->state->unfinished = false;
  return CLM_OK;
}

static clm_status run_as(clm_model *m, const char *call, const clm_model_run_args *args) {
  run r = {.model = m, .args = args};
  TRY(check(&r, call));
  clm_status status = execute(&r);
  clm_model_state_destroy(&r.own);
  free(r.done);
  free(r.spans);
  free(r.ends);
  return status;
}

clm_status clm_model_run(clm_model *m, const clm_model_run_args *args) {
  TRY(HANDLE_NEED(m, "model_run", args));
  return run_as(m, "model_run", args);
}

clm_status clm_model_forward(clm_model *m, clm_tensor ids, clm_tensor logits) {
  if (!m) return CLM_INVALID_ARGUMENT;
  if (!logits.buffer) return context_fail(m->context, CLM_INVALID_ARGUMENT, "model_forward: logits is missing");
  return run_as(m, "model_forward", &(clm_model_run_args){.ids = ids, .logits = logits});
}

clm_status clm_model_prefill(clm_model *m, clm_model_state *state, clm_tensor ids, const int64_t *lengths,
                             clm_tensor logits) {
  TRY(HANDLE_NEED(m, "model_prefill", state));
  return run_as(m, "model_prefill",
                &(clm_model_run_args){.ids = ids, .lengths = lengths, .state = state, .last_logits = logits});
}

clm_status clm_model_decode(clm_model *m, clm_model_state *state, clm_tensor ids, clm_tensor logits) {
  TRY(HANDLE_NEED(m, "model_decode", state));
  run r = {.model = m, .args = &(clm_model_run_args){.state = state}, .batch = state->batch};
  TRY(check_tensor(m, "model_decode", "ids", ids, CLM_I32, 1, &r.batch));
  TRY(check_tensor(m, "model_decode", "logits", logits, CLM_F32, 2, (int64_t[]){r.batch, m->config.vocab_size}));
  TRY(check_state(&r, "model_decode"));
  TRY(model_state_reserve(state, model_state_longest(state, 0, r.batch) + 1));
  TRY(model_prepare(m, r.batch, 1, ACTIVATIONS_INFER));
  TRY(embedding_forward(m, ids, rows_of(m->act.x[0])));
  state->unfinished = true;
  TRY(blocks_step(m, state));
  TRY(norm(m, model_last_rows(m), state->hidden));
  TRY(head_forward(m, state->hidden, logits));
  for (int64_t i = 0; i < r.batch; i++) state->tokens[i]++;
  state->unfinished = false;
  return CLM_OK;
}
