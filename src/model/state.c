/* The state of sequences: what every layer remembers of them. */
#include "core/arith.h"
#include "core/context.h"
#include "core/try.h"
#include "model/linear.h"
#include "model/model.h"
#include <clmamba/elementwise.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM_PAGE = 64 }; /* tokens: room is a multiple */

static clm_tensor *views_of(clm_model_state *s, size_t layer) { return &s->views[layer * TENSOR_LIST_MAX]; }

/* Without the dimension of layers. */
static clm_tensor of_layer(clm_tensor all, int64_t number) {
  clm_tensor t = clm_tensor_slice(all, 0, number, 1);
  return clm_tensor_reshape(t, t.rank - 1, t.shape + 1);
}

static bool is_like(const clm_tensor *all, const tensor_description *d) {
  return all->dtype == d->dtype && all->rank == d->rank + 1 &&
         memcmp(all->shape + 1, d->shape, (size_t)d->rank * sizeof *d->shape) == 0;
}

/* The tensor that holds such an item of all layers: a new one, of no layers yet, where there is
 * none. A second one of the same name is numbered. */
static state_tensor *tensor_for(clm_model_state *s, const tensor_description *d) {
  int same = 0;
  for (size_t i = 0; i < s->tensor_count; i++) {
    state_tensor *t = &s->tensors[i];
    const size_t length = strlen(d->name);
    if (strncmp(t->name, d->name, length) != 0 || (t->name[length] && t->name[length] != '.')) continue;
    if (is_like(&t->all, d)) return t;
    same++;
  }
  state_tensor *t = &s->tensors[s->tensor_count++];
  if (same) snprintf(t->name, sizeof t->name, "%s.%d", d->name, same);
  else snprintf(t->name, sizeof t->name, "%s", d->name);
  t->all = (clm_tensor){.dtype = d->dtype, .rank = d->rank + 1};
  t->grows = d->grows != 0;
  s->grows |= t->grows;
  memcpy(t->all.shape + 1, d->shape, (size_t)d->rank * sizeof *d->shape);
  return t;
}

static void describe(const clm_model_state *s, const model_layer *l, tensor_list *list) {
  *list = (tensor_list){.count = 0};
  if (l->kind->state) l->kind->state(l, &(state_shape){s->batch, s->room}, list);
}

/* How many layers each tensor is of. */
static void list_tensors(clm_model_state *s) {
  const model_blocks *b = &s->model->blocks;
  tensor_list list;
  for (size_t i = 0; i < b->layer_count; i++) {
    describe(s, &b->layers[i], &list);
    for (int k = 0; k < list.count; k++) tensor_for(s, &list.items[k])->all.shape[0]++;
  }
}

static size_t place(clm_model_state *s) {
  size_t used = 0;
  for (size_t i = 0; i < s->tensor_count; i++) {
    clm_tensor *t = &s->tensors[i].all;
    *t = tensor_place(s->buffer, &used, t->dtype, t->rank, t->shape);
  }
  s->hidden = tensor_place(s->buffer, &used, CLM_F32, 2, (int64_t[]){s->batch, s->model->config.d_model});
  s->cu_seqlens = tensor_place(s->buffer, &used, CLM_I32, 1, (int64_t[]){s->batch + 1});
  if (s->grows) s->positions = tensor_place(s->buffer, &used, CLM_I32, 1, &s->batch);
  return used;
}

/* Each layer's part of the tensors, in the order of the layers. */
static void bind(clm_model_state *s, int64_t *next) {
  const model_blocks *b = &s->model->blocks;
  tensor_list list;
  for (size_t i = 0; i < b->layer_count; i++) {
    describe(s, &b->layers[i], &list);
    for (int k = 0; k < list.count; k++) {
      const state_tensor *t = tensor_for(s, &list.items[k]);
      views_of(s, i)[k] = of_layer(t->all, next[t - s->tensors]++);
    }
  }
}

/* The tensors, in memory of their own, for s->room tokens. */
static clm_status lay_out(clm_model_state *s) {
  const size_t max = s->model->blocks.layer_count * TENSOR_LIST_MAX; /* one for each item */
  int64_t *next = calloc(max, sizeof *next);
  s->tensors = calloc(max, sizeof *s->tensors);
  s->views = calloc(max, sizeof *s->views);
  clm_status status = CLM_OUT_OF_MEMORY;
  if (next && s->tensors && s->views) {
    list_tensors(s);
    status = clm_buffer_create(s->model->context, place(s), &s->buffer);
    place(s);
    bind(s, next);
  } else context_fail(s->model->context, status, "model_state: out of host memory");
  free(next);
  return status;
}

static void release(clm_model_state *s) {
  clm_buffer_destroy(&s->buffer);
  free(s->tensors);
  free(s->views);
}

static clm_status make(clm_model_state *s) {
  s->tokens = calloc((size_t)s->batch, sizeof *s->tokens);
  if (!s->tokens) return context_fail(s->model->context, CLM_OUT_OF_MEMORY, "model_state: out of host memory");
  TRY(lay_out(s));
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
  s->room = ROOM_PAGE;
  *state = s;
  clm_status status = make(s);
  if (status) clm_model_state_destroy(state);
  return status;
}

clm_status model_state_check(const clm_model_state *s, const char *call) {
  if (!s->unfinished) return CLM_OK;
  return context_fail(s->model->context, CLM_INVALID_ARGUMENT,
                      "%s: the state is unfinished, as a call that ran from it failed: reset it, or copy another one "
                      "over it",
                      call);
}

clm_status clm_model_state_reset(clm_model_state *s) {
  if (!s) return CLM_INVALID_ARGUMENT;
  int64_t floats = (int64_t)(clm_buffer_size(s->buffer) / sizeof(float));
  s->unfinished = true;
  memset(s->tokens, 0, (size_t)s->batch * sizeof *s->tokens);
  TRY(clm_axpby(s->model->context, &(clm_axpby_args){.out = clm_tensor_of(s->buffer, 0, CLM_F32, 1, &floats)}));
  s->unfinished = false;
  return CLM_OK;
}

void clm_model_state_destroy(clm_model_state **state) {
  if (!state || !*state) return;
  op_plan_drop(&(*state)->step);
  release(*state);
  free((*state)->tokens);
  free(*state);
  *state = NULL;
}

size_t clm_model_state_bytes(const clm_model_state *s) { return s ? clm_buffer_size(s->buffer) : 0; }

int64_t clm_model_state_batch(const clm_model_state *s) { return s ? s->batch : 0; }

int64_t clm_model_state_tokens(const clm_model_state *s, int64_t row) {
  return s && row >= 0 && row < s->batch ? s->tokens[row] : 0;
}

/* ---- Copies ---- */

/* Row `row` of dimension `dim` `count` times, or `count` rows from there on. */
static clm_tensor rows_from(clm_tensor t, int dim, int64_t row, int64_t count, bool repeated) {
  t = clm_tensor_slice(t, dim, row, repeated ? 1 : count);
  if (!repeated) return t;
  t.shape[dim] = count;
  t.stride[dim] = 0;
  return t;
}

typedef struct row_copy {
  int64_t to, from, count;
  bool repeated; /* row `from` again and again */
} row_copy;

/* Dimension `dim` is the batch. */
static clm_status copy_tensor(clm_context *ctx, const row_copy *c, int dim, clm_tensor to, clm_tensor from) {
  return clm_axpby(ctx, &(clm_axpby_args){.x = rows_from(from, dim, c->from, c->count, c->repeated),
                                          .out = rows_from(to, dim, c->to, c->count, false),
                                          .alpha = 1});
}

/* Of what grows `tokens` tokens, if there are any. */
static clm_status copy_tensors(clm_model_state *to, const clm_model_state *from, const row_copy *c, int64_t tokens) {
  clm_context *ctx = to->model->context;
  for (size_t i = 0; i < to->tensor_count; i++) {
    const bool grows = to->tensors[i].grows;
    clm_tensor into = to->tensors[i].all, of = from->tensors[i].all;
    if (grows && tokens == 0) continue;
    if (grows) into = clm_tensor_slice(into, 2, 0, tokens), of = clm_tensor_slice(of, 2, 0, tokens);
    TRY(copy_tensor(ctx, c, 1, into, of));
  }
  return copy_tensor(ctx, c, 0, to->hidden, from->hidden);
}

static clm_status copy_rows(clm_model_state *to, const clm_model_state *from, const row_copy *c) {
  const int64_t tokens = model_state_longest(from, c->from, c->repeated ? 1 : c->count);
  TRY(model_state_reserve(to, tokens));
  to->unfinished = true; /* until everything is copied */
  TRY(copy_tensors(to, from, c, tokens));
  for (int64_t i = 0; i < c->count; i++) to->tokens[c->to + i] = from->tokens[c->from + (c->repeated ? 0 : i)];
  TRY(model_state_write_positions(to, c->to, c->count));
  to->unfinished = false;
  return CLM_OK;
}

/* ---- Growth ---- */

int64_t model_state_longest(const clm_model_state *s, int64_t row, int64_t count) {
  int64_t longest = 0;
  for (int64_t i = row; i < row + count; i++) longest = max_of(longest, s->tokens[i]);
  return longest;
}

clm_status model_state_write_positions(clm_model_state *s, int64_t row, int64_t count) {
  if (!s->grows) return CLM_OK;
  int32_t *positions = malloc((size_t)count * sizeof *positions);
  if (!positions) return context_fail(s->model->context, CLM_OUT_OF_MEMORY, "model_state: out of host memory");
  for (int64_t i = 0; i < count; i++) positions[i] = (int32_t)s->tokens[row + i];
  clm_status status =
      clm_tensor_write(clm_tensor_slice(s->positions, 0, row, count), positions, (size_t)count * sizeof *positions);
  free(positions);
  return status;
}

/* The memory of `larger` in the place of the state's own, which is freed. */
static void take_memory(clm_model_state *s, const clm_model_state *larger) {
  op_plan_drop(&s->step);
  s->step_tried = false;
  release(s);
  s->buffer = larger->buffer;
  s->tensors = larger->tensors;
  s->views = larger->views;
  s->hidden = larger->hidden;
  s->cu_seqlens = larger->cu_seqlens;
  s->positions = larger->positions;
  s->room = larger->room;
}

clm_status model_state_reserve(clm_model_state *s, int64_t tokens) {
  if (!s->grows || tokens <= s->room) return CLM_OK;
  if (tokens > INT32_MAX - ROOM_PAGE)
    return context_fail(s->model->context, CLM_UNSUPPORTED, "model_state: %lld tokens, attention takes at most 2^31",
                        (long long)tokens);
  clm_model_state larger = {.model = s->model,
                            .batch = s->batch,
                            .room = round_up(max_of(tokens, s->room + s->room / 2), ROOM_PAGE),
                            .tokens = s->tokens};
  clm_status status = lay_out(&larger);
  const row_copy all = {.count = s->batch};
  if (status == CLM_OK) status = copy_tensors(&larger, s, &all, min_of(s->room, model_state_longest(s, 0, s->batch)));
  if (status == CLM_OK) status = model_state_write_positions(&larger, 0, s->batch);
  if (status) release(&larger);
  else take_memory(s, &larger);
  return status;
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
  TRY(model_state_check(from, "model_state_copy"));
  if (count < to->batch) TRY(model_state_check(to, "model_state_copy"));
  return copy_rows(to, from, &(row_copy){.to = to_row, .from = from_row, .count = count});
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
    TRY(copy_rows(to, from, &(row_copy){i, row, count, repeated}));
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
  TRY(model_state_check(from, "model_state_fork"));
  TRY(clm_model_state_create(from->model, count, fork));
  clm_status status = fork_rows(from, rows, *fork);
  if (status) clm_model_state_destroy(fork);
  return status;
}

clm_status clm_model_state_logits(clm_model_state *s, clm_tensor logits) {
  if (!s) return CLM_INVALID_ARGUMENT;
  clm_model *m = s->model;
  TRY(model_state_check(s, "model_state_logits"));
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
