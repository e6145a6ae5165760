/* What a sequence leaves behind in every layer. */
#include "core/context.h"
#include "core/try.h"
#include "model/linear.h"
#include "model/model.h"
#include <clmamba/elementwise.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 64

/* A view of the next `rank` dimensions; without a buffer it only counts. */
static clm_tensor take(clm_buffer *buffer, size_t *used, clm_dtype dtype, int rank, const int64_t *shape) {
  clm_tensor t = clm_tensor_of(buffer, *used, dtype, rank, shape);
  *used += ((size_t)clm_tensor_count(t) * clm_dtype_size(dtype) + ALIGN - 1) / ALIGN * ALIGN;
  return t;
}

static size_t lay_out(clm_model_state *s, clm_buffer *buffer) {
  const clm_model_config *c = &s->model->config;
  size_t used = 0;
  s->scan = take(buffer, &used, CLM_F32, 4, (int64_t[]){c->n_layer, s->batch, c->d_inner, c->d_state});
  s->hidden = take(buffer, &used, CLM_F32, 2, (int64_t[]){s->batch, c->d_model});
  s->cu_seqlens = take(buffer, &used, CLM_I32, 1, (int64_t[]){s->batch + 1});
  if (c->d_conv > 1)
    s->conv = take(buffer, &used, CLM_F32, 4, (int64_t[]){c->n_layer, s->batch, c->d_inner, c->d_conv - 1});
  return used;
}

static clm_status make(clm_model_state *s) {
  s->tokens = calloc((size_t)s->batch, sizeof *s->tokens);
  if (!s->tokens) return context_fail(s->model->context, CLM_OUT_OF_MEMORY, "model_state: out of host memory");
  TRY(clm_buffer_create(s->model->context, lay_out(s, NULL), &s->buffer));
  lay_out(s, s->buffer);
  return clm_model_state_reset(s);
}

clm_status clm_model_state_create(clm_model *m, int64_t batch, clm_model_state **state) {
  if (state) *state = NULL;
  TRY(HANDLE_NEED(m, "model_state_create", state));
  if (batch < 1 || batch > (1 << 20))
    return context_fail(m->context, CLM_INVALID_ARGUMENT, "model_state_create: batch is %lld, expected 1 to 2^20",
                        (long long)batch);
  clm_model_state *s = calloc(1, sizeof *s);
  if (!s) return context_fail(m->context, CLM_OUT_OF_MEMORY, "model_state: out of host memory");
  s->model = m;
  s->batch = batch;
  *state = s;
  clm_status status = make(s);
  if (status) clm_model_state_destroy(state);
  return status;
}

clm_status clm_model_state_reset(clm_model_state *s) {
  if (!s) return CLM_INVALID_ARGUMENT;
  int64_t floats = (int64_t)(clm_buffer_size(s->buffer) / sizeof(float));
  memset(s->tokens, 0, (size_t)s->batch * sizeof *s->tokens);
  return clm_axpby(s->model->context, &(clm_axpby_args){.out = clm_tensor_of(s->buffer, 0, CLM_F32, 1, &floats)});
}

void clm_model_state_destroy(clm_model_state **state) {
  if (!state || !*state) return;
  clm_buffer_destroy(&(*state)->buffer);
  free((*state)->tokens);
  free(*state);
  *state = NULL;
}

int64_t clm_model_state_batch(const clm_model_state *s) { return s ? s->batch : 0; }

int64_t clm_model_state_tokens(const clm_model_state *s, int64_t row) {
  return s && row >= 0 && row < s->batch ? s->tokens[row] : 0;
}

/* ---- Copies ---- */

/* Row `row` of a state's tensor `count` times, or `count` rows from there on. */
static clm_tensor rows_from(clm_tensor t, int64_t row, int64_t count, bool repeated) {
  int dim = t.rank == 4; /* batch stands behind n_layer, or first */
  t = clm_tensor_slice(t, dim, row, repeated ? 1 : count);
  if (!repeated) return t;
  t.shape[dim] = count;
  t.stride[dim] = 0;
  return t;
}

static clm_status copy_rows(clm_model_state *to, int64_t to_row, const clm_model_state *from, int64_t from_row,
                            int64_t count, bool repeated) {
  const clm_tensor *pairs[][2] = {{&from->scan, &to->scan}, {&from->hidden, &to->hidden}, {&from->conv, &to->conv}};
  for (int i = 0; i < 3; i++)
    if (pairs[i][0]->buffer)
      TRY(clm_axpby(to->model->context, &(clm_axpby_args){.x = rows_from(*pairs[i][0], from_row, count, repeated),
                                                          .out = rows_from(*pairs[i][1], to_row, count, false),
                                                          .alpha = 1}));
  for (int64_t i = 0; i < count; i++) to->tokens[to_row + i] = from->tokens[from_row + (repeated ? 0 : i)];
  return CLM_OK;
}

static bool inside(const clm_model_state *s, int64_t row, int64_t count) {
  return row >= 0 && count >= 1 && row < s->batch && count <= s->batch - row;
}

clm_status clm_model_state_copy(clm_model_state *to, int64_t to_row, const clm_model_state *from, int64_t from_row,
                                int64_t count) {
  if (!to) return CLM_INVALID_ARGUMENT;
  TRY(HANDLE_NEED(to->model, "model_state_copy", from));
  clm_context *ctx = to->model->context;
  if (to->model != from->model)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "model_state_copy: the states are of two models");
  if (!inside(from, from_row, count) || !inside(to, to_row, count))
    return context_fail(
        ctx, CLM_INVALID_ARGUMENT,
        "model_state_copy: rows %lld and on to rows %lld and on, %lld of them, expected rows of states "
        "of batch %lld and %lld",
        (long long)from_row, (long long)to_row, (long long)count, (long long)from->batch, (long long)to->batch);
  if (to == from && from_row < to_row + count && to_row < from_row + count)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "model_state_copy: the rows overlap");
  return copy_rows(to, to_row, from, from_row, count, false);
}

/* Runs of rows that follow one another, or of one row repeated, are one copy each. */
static clm_status fork_rows(const clm_model_state *from, const int64_t *rows, clm_model_state *to) {
  for (int64_t i = 0, count; i < to->batch; i += count) {
    int64_t row = rows ? rows[i] : i % from->batch;
    bool repeated = false;
    for (count = 1; i + count < to->batch; count++) {
      int64_t next = rows ? rows[i + count] : (i + count) % from->batch;
      if (count == 1) repeated = next == row;
      if (next != (repeated ? row : row + count)) break;
    }
    TRY(copy_rows(to, i, from, row, count, repeated));
  }
  return CLM_OK;
}

clm_status clm_model_state_fork(const clm_model_state *from, const int64_t *rows, int64_t count,
                                clm_model_state **fork) {
  if (fork) *fork = NULL;
  if (!from) return CLM_INVALID_ARGUMENT;
  TRY(HANDLE_NEED(from->model, "model_state_fork", fork));
  for (int64_t i = 0; rows && i < count; i++)
    if (!inside(from, rows[i], 1))
      return context_fail(from->model->context, CLM_INVALID_ARGUMENT,
                          "model_state_fork: row %lld is asked for, the state has batch %lld", (long long)rows[i],
                          (long long)from->batch);
  TRY(clm_model_state_create(from->model, count, fork));
  clm_status status = fork_rows(from, rows, *fork);
  if (status) clm_model_state_destroy(fork);
  return status;
}

clm_status clm_model_state_logits(clm_model_state *s, clm_tensor logits) {
  if (!s) return CLM_INVALID_ARGUMENT;
  clm_model *m = s->model;
  for (int64_t i = 0; i < s->batch; i++)
    if (s->tokens[i] == 0)
      return context_fail(m->context, CLM_INVALID_ARGUMENT, "model_state_logits: row %lld has seen no tokens",
                          (long long)i);
  if (!logits.buffer || logits.rank != 2 || logits.shape[0] != s->batch || logits.shape[1] != m->config.vocab_size)
    return context_fail(m->context, CLM_INVALID_ARGUMENT,
                        "model_state_logits: logits must be an f32 tensor of shape (%lld, %lld)", (long long)s->batch,
                        (long long)m->config.vocab_size);
  return head_forward(m, s->hidden, logits);
}
