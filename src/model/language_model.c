/* Embedding, blocks, final norm, head: the passes through a whole model. */
#include "core/context.h"
#include "core/try.h"
#include "model/linear.h"
#include "model/model.h"
#include <clmamba/language.h>
#include <stdlib.h>

/* Steps of a prompt that run at once: bounds the memory of a long one (a batch of prompts runs whole, its chunks
 * would not be contiguous). */
#define PREFILL_CHUNK 2048
/* Positions that clm_model_score runs at once. */
#define SCORE_ROWS 4096

static clm_tensor head_weight(const clm_model *m) {
  return m->weights[0][m->config.untied_head ? W_LM_HEAD : W_EMBEDDING];
}

static clm_status embed(clm_model *m, clm_tensor ids) {
  return clm_embedding(m->context,
                       &(clm_embedding_args){.ids = clm_tensor_reshape(ids, 1, (int64_t[]){clm_tensor_count(ids)}),
                                             .table = m->weights[0][W_EMBEDDING],
                                             .out = rows_of(m->act.x[0])});
}

static clm_status run_layers(clm_model *m, clm_tensor ids, clm_model_state *state, const blocks_dropout *dropout) {
  TRY(embed(m, ids));
  return blocks_forward(m, state, dropout);
}

static bool is_matrix(clm_tensor t, clm_dtype dtype, int rank) {
  return t.buffer && t.dtype == dtype && t.rank == rank;
}

static clm_status check_ids(clm_model *m, const char *call, clm_tensor ids) {
  if (!is_matrix(ids, CLM_I32, 2))
    return context_fail(m->context, CLM_INVALID_ARGUMENT, "%s: ids must be an i32 tensor (batch, length)", call);
  return CLM_OK;
}

static clm_status check_logits(clm_model *m, const char *call, clm_tensor logits, int rank, const int64_t *leading) {
  bool good = is_matrix(logits, CLM_F32, rank) && logits.shape[rank - 1] == m->config.vocab_size;
  for (int i = 0; good && i < rank - 1; i++) good = logits.shape[i] == leading[i];
  if (!good)
    return context_fail(m->context, CLM_INVALID_ARGUMENT, "%s: logits must be an f32 tensor (%s, vocab %lld)", call,
                        rank == 3 ? "batch, length" : "batch", (long long)m->config.vocab_size);
  return CLM_OK;
}

clm_status clm_model_forward(clm_model *m, clm_tensor ids, clm_tensor logits) {
  TRY(check_ids(m, "model_forward", ids));
  TRY(check_logits(m, "model_forward", logits, 3, ids.shape));
  TRY(activations_prepare(m->context, &m->act, &m->config, ids.shape[0], ids.shape[1], ACTIVATIONS_INFER));
  TRY(run_layers(m, ids, NULL, NULL));
  clm_norm_args norm = final_norm_args(m, rows_of(m->act.x[m->config.n_layer]), rows_of(m->act.normed));
  TRY(clm_norm(m->context, &norm));
  return linear_forward(m->context, &(linear){.input = norm.out, .weight = head_weight(m), .out = rows_of(logits)});
}

/* Rows [begin, begin + count) of the head: their losses, and on request the gradients of the head and its input. */
static clm_status head_block(clm_model *m, const clm_model_loss_args *args, int64_t begin, int64_t count) {
  int64_t rows = clm_tensor_count(args->ids);
  clm_tensor targets = clm_tensor_reshape(args->targets, 1, &rows),
             losses = clm_tensor_reshape(args->losses, 1, &rows);
  clm_tensor logits = clm_tensor_slice(m->act.logits, 0, 0, count);
  linear head = {
      .input = clm_tensor_slice(rows_of(m->act.normed), 0, begin, count), .weight = head_weight(m), .out = logits};
  TRY(linear_forward(m->context, &head));
  TRY(clm_cross_entropy(m->context, &(clm_cross_entropy_args){.logits = logits,
                                                              .targets = clm_tensor_slice(targets, 0, begin, count),
                                                              .losses = clm_tensor_slice(losses, 0, begin, count),
                                                              .dlogits = args->gradient ? logits : (clm_tensor){0},
                                                              .scale = 1 / (float)rows}));
  if (!args->gradient) return CLM_OK;
  return linear_backward(
      m->context, &head,
      &(linear_gradients){.dout = logits,
                          .dinput = clm_tensor_slice(rows_of(m->act.dnormed), 0, begin, count),
                          .dweight = m->dweights[0][m->config.untied_head ? W_LM_HEAD : W_EMBEDDING],
                          .accumulate_dweight = begin > 0});
}

/* From act.dnormed, the gradient of the final norm's output, to the gradients of everything before it. */
static clm_status run_layers_backward(clm_model *m, const clm_model_loss_args *args, const blocks_dropout *dropout) {
  int64_t rows = clm_tensor_count(args->ids);
  TRY(clm_norm_backward(m->context,
                        &(clm_norm_backward_args){.forward = final_norm_args(m, rows_of(m->act.x[m->config.n_layer]),
                                                                             rows_of(m->act.normed)),
                                                  .dout = rows_of(m->act.dnormed),
                                                  .dx = rows_of(m->act.dx),
                                                  .dweight = m->dweights[0][W_NORM_F]}));
  TRY(blocks_backward(m, dropout));
  return clm_embedding_backward(m->context,
                                &(clm_embedding_backward_args){.ids = clm_tensor_reshape(args->ids, 1, &rows),
                                                               .dout = rows_of(m->act.dx),
                                                               .dtable = m->dweights[0][W_EMBEDDING],
                                                               .accumulate = !m->config.untied_head});
}

static clm_status check_loss(clm_model *m, const clm_model_loss_args *args) {
  TRY(check_ids(m, "model_loss", args->ids));
  const int64_t *shape = args->ids.shape;
  const clm_tensor *others[] = {&args->targets, &args->losses};
  for (int i = 0; i < 2; i++) {
    const clm_tensor *t = others[i];
    if (!is_matrix(*t, i ? CLM_F32 : CLM_I32, 2) || t->shape[0] != shape[0] || t->shape[1] != shape[1])
      return context_fail(m->context, CLM_INVALID_ARGUMENT, "model_loss: %s must be an %s tensor of the shape of ids",
                          i ? "losses" : "targets", i ? "f32" : "i32");
  }
  if (!(args->dropout >= 0 && args->dropout < 1))
    return context_fail(m->context, CLM_INVALID_ARGUMENT, "model_loss: dropout is %g, expected 0 <= dropout < 1",
                        (double)args->dropout);
  return CLM_OK;
}

clm_status clm_model_loss(clm_model *m, const clm_model_loss_args *args) {
  TRY(check_loss(m, args));
  int64_t rows = clm_tensor_count(args->ids);
  if (args->gradient) TRY(model_need_gradients(m));
  /* Dropout needs memory for the branch, which only training has. */
  activations_mode mode = args->gradient || args->dropout > 0 ? ACTIVATIONS_TRAIN : ACTIVATIONS_LOSS;
  TRY(activations_prepare(m->context, &m->act, &m->config, args->ids.shape[0], args->ids.shape[1], mode));
  const blocks_dropout dropout = {args->dropout, args->seed};
  TRY(run_layers(m, args->ids, NULL, &dropout));
  clm_norm_args norm = final_norm_args(m, rows_of(m->act.x[m->config.n_layer]), rows_of(m->act.normed));
  TRY(clm_norm(m->context, &norm));
  int64_t block = m->act.logits.shape[0];
  for (int64_t begin = 0; begin < rows; begin += block)
    TRY(head_block(m, args, begin, rows - begin < block ? rows - begin : block));
  return args->gradient ? run_layers_backward(m, args, &dropout) : CLM_OK;
}

/* Logits of position `position` of act.x after all layers. */
static clm_status logits_at(clm_model *m, int64_t position, clm_tensor logits) {
  clm_tensor x = clm_tensor_slice(m->act.x[m->config.n_layer], 1, position, 1);
  x.rank = 2; /* (batch, 1, d_model) with the strides of a longer sequence */
  x.shape[1] = x.shape[2];
  x.stride[1] = x.stride[2];
  clm_norm_args norm = final_norm_args(m, x, m->act.last);
  TRY(clm_norm(m->context, &norm));
  return linear_forward(m->context, &(linear){.input = m->act.last, .weight = head_weight(m), .out = logits});
}

static clm_status check_state(clm_model *m, const char *call, const clm_model_state *state, int64_t batch) {
  if (state->model != m)
    return context_fail(m->context, CLM_INVALID_ARGUMENT, "%s: the state is another model's", call);
  if (state->batch != batch)
    return context_fail(m->context, CLM_INVALID_ARGUMENT, "%s: ids has batch %lld, the state %lld", call,
                        (long long)batch, (long long)state->batch);
  return CLM_OK;
}

clm_status clm_model_prefill(clm_model *m, clm_model_state *state, clm_tensor ids, clm_tensor logits) {
  TRY(check_ids(m, "model_prefill", ids));
  TRY(check_logits(m, "model_prefill", logits, 2, ids.shape));
  TRY(check_state(m, "model_prefill", state, ids.shape[0]));
  int64_t length = ids.shape[1], count = 0;
  int64_t chunk = ids.shape[0] == 1 && length > PREFILL_CHUNK ? PREFILL_CHUNK : length;
  for (int64_t begin = 0; begin < length; begin += count) {
    count = length - begin < chunk ? length - begin : chunk;
    TRY(activations_prepare(m->context, &m->act, &m->config, ids.shape[0], count, ACTIVATIONS_INFER));
    TRY(run_layers(m, clm_tensor_slice(ids, 1, begin, count), state, NULL));
  }
  return logits_at(m, count - 1, logits);
}

clm_status clm_model_decode(clm_model *m, clm_model_state *state, clm_tensor ids, clm_tensor logits) {
  if (!is_matrix(ids, CLM_I32, 1))
    return context_fail(m->context, CLM_INVALID_ARGUMENT, "model_decode: ids must be an i32 tensor (batch)");
  TRY(check_logits(m, "model_decode", logits, 2, ids.shape));
  TRY(check_state(m, "model_decode", state, ids.shape[0]));
  TRY(activations_prepare(m->context, &m->act, &m->config, ids.shape[0], 1, ACTIVATIONS_INFER));
  TRY(embed(m, ids));
  TRY(blocks_step(m, state));
  return logits_at(m, 0, logits);
}

/* Windows of a text, padded to whole batches with targets that are ignored. */
typedef struct score_batch {
  int64_t batch, window;
  clm_buffer *buffer;
  clm_tensor ids, targets, losses;
  int32_t *host_ids, *host_targets;
  float *host_losses;
} score_batch;

static clm_status score_prepare(clm_context *ctx, score_batch *s) {
  size_t rows = (size_t)(s->batch * s->window), bytes = rows * sizeof(int32_t);
  s->host_ids = calloc(3 * rows, sizeof(int32_t));
  if (!s->host_ids) return context_fail(ctx, CLM_OUT_OF_MEMORY, "model_score: out of host memory");
  s->host_targets = s->host_ids + rows;
  s->host_losses = (float *)(void *)(s->host_targets + rows);
  TRY(clm_buffer_create(ctx, 3 * bytes, &s->buffer));
  int64_t shape[2] = {s->batch, s->window};
  s->ids = clm_tensor_of(s->buffer, 0, CLM_I32, 2, shape);
  s->targets = clm_tensor_of(s->buffer, bytes, CLM_I32, 2, shape);
  s->losses = clm_tensor_of(s->buffer, 2 * bytes, CLM_F32, 2, shape);
  return CLM_OK;
}

/* Predictions [begin, begin + batch * window) of the text, summed. */
static clm_status score_run(clm_model *m, score_batch *s, const int32_t *ids, int64_t predictions, int64_t begin,
                            double *sum) {
  int64_t rows = s->batch * s->window;
  size_t bytes = (size_t)rows * sizeof(int32_t);
  for (int64_t i = 0; i < rows; i++) {
    bool inside = begin + i < predictions;
    s->host_ids[i] = inside ? ids[begin + i] : 0;
    s->host_targets[i] = inside ? ids[begin + i + 1] : -1;
  }
  TRY(clm_tensor_write(s->ids, s->host_ids, bytes));
  TRY(clm_tensor_write(s->targets, s->host_targets, bytes));
  TRY(clm_model_loss(m, &(clm_model_loss_args){.ids = s->ids, .targets = s->targets, .losses = s->losses}));
  TRY(clm_tensor_read(s->losses, s->host_losses, bytes));
  for (int64_t i = 0; i < rows; i++) *sum += (double)s->host_losses[i];
  return CLM_OK;
}

clm_status clm_model_score(clm_model *m, const int32_t *ids, size_t count, int64_t window, double *loss) {
  if (count < 2)
    return context_fail(m->context, CLM_INVALID_ARGUMENT,
                        "model_score: the text has %zu tokens, at least 2 are needed", count);
  if (window < 0)
    return context_fail(m->context, CLM_INVALID_ARGUMENT, "model_score: window is %lld, at least 1 is expected",
                        (long long)window);
  int64_t predictions = (int64_t)count - 1;
  score_batch s = {.window = window ? window : CLM_SCORE_WINDOW};
  if (s.window > predictions) s.window = predictions;
  s.batch = SCORE_ROWS / s.window;
  if (s.batch > (predictions - 1) / s.window + 1) s.batch = (predictions - 1) / s.window + 1;
  if (s.batch < 1) s.batch = 1;
  double sum = 0;
  clm_status status = score_prepare(m->context, &s);
  for (int64_t begin = 0; begin < predictions && status == CLM_OK; begin += s.batch * s.window)
    status = score_run(m, &s, ids, predictions, begin, &sum);
  clm_buffer_destroy(&s.buffer);
  free(s.host_ids);
  if (status == CLM_OK) *loss = sum / (double)predictions;
  return status;
}
