/* Training's pass through a whole model, and back: embedding, blocks, final norm, head, cross-entropy. */
#include "core/context.h"
#include "core/try.h"
#include "model/linear.h"
#include "model/model.h"
#include <clmamba/language.h>
#include <math.h>
#include <stdlib.h>

int head_id(const clm_model *m) { return m->config.untied_head ? END_LM_HEAD : END_EMBEDDING; }

static linear head_of(const clm_model *m, clm_tensor input, clm_tensor logits) {
  const int id = head_id(m);
  return (linear){.input = input,
                  .weight = m->ends.value[id],
                  .scale = m->ends.scale[id],
                  .out = logits,
                  .factor = m->config.logit_scale};
}

clm_status head_forward(const clm_model *m, clm_tensor input, clm_tensor logits) {
  linear head = head_of(m, input, logits);
  return linear_forward(m->context, &head);
}

clm_status embedding_forward(const clm_model *m, clm_tensor ids, clm_tensor out) {
  return clm_embedding(m->context, &(clm_embedding_args){.ids = ids,
                                                         .table = m->ends.value[END_EMBEDDING],
                                                         .table_scale = m->ends.scale[END_EMBEDDING],
                                                         .out = out});
}

static clm_status embed(clm_model *m, clm_tensor ids) {
  return embedding_forward(m, clm_tensor_reshape(ids, 1, (int64_t[]){clm_tensor_count(ids)}), rows_of(m->act.x[0]));
}

static clm_status run_layers(clm_model *m, clm_tensor ids, const blocks_dropout *dropout) {
  TRY(embed(m, ids));
  return blocks_forward(m, &(blocks_pass){.dropout = dropout});
}

static bool is_matrix(clm_tensor t, clm_dtype dtype, int rank) {
  return t.buffer && t.dtype == dtype && t.rank == rank;
}

static clm_status check_ids(clm_model *m, const char *call, clm_tensor ids) {
  if (!is_matrix(ids, CLM_I32, 2))
    return context_fail(m->context, CLM_INVALID_ARGUMENT, "%s: ids must be an i32 tensor (batch, length)", call);
  return CLM_OK;
}

static float loss_scale(const clm_model_loss_args *args) { return args->loss_scale == 0 ? 1 : args->loss_scale; }

/* Rows [begin, begin + count) of the head: their losses, and on request the gradients of the head and its input. */
static clm_status head_block(clm_model *m, const clm_model_loss_args *args, int64_t begin, int64_t count) {
  int64_t rows = clm_tensor_count(args->ids);
  clm_tensor targets = clm_tensor_reshape(args->targets, 1, &rows),
             losses = clm_tensor_reshape(args->losses, 1, &rows);
  clm_tensor logits = clm_tensor_slice(m->act.logits, 0, 0, count);
  linear head = head_of(m, clm_tensor_slice(rows_of(m->act.normed), 0, begin, count), logits);
  TRY(linear_forward(m->context, &head));
  TRY(clm_cross_entropy(m->context, &(clm_cross_entropy_args){.logits = logits,
                                                              .targets = clm_tensor_slice(targets, 0, begin, count),
                                                              .losses = clm_tensor_slice(losses, 0, begin, count),
                                                              .dlogits = args->gradient ? logits : (clm_tensor){0},
                                                              .scale = loss_scale(args) / (float)rows}));
  if (!args->gradient) return CLM_OK;
  return linear_backward(m->context, &head,
                         &(linear_gradients){.dout = logits,
                                             .dinput = clm_tensor_slice(rows_of(m->act.dnormed), 0, begin, count),
                                             .dweight = m->ends.gradient[head_id(m)],
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
                                                  .dweight = m->ends.gradient[END_NORM],
                                                  .dbias = m->ends.gradient[END_NORM_BIAS]}));
  TRY(blocks_backward(m, dropout));
  return clm_embedding_backward(m->context,
                                &(clm_embedding_backward_args){.ids = clm_tensor_reshape(args->ids, 1, &rows),
                                                               .dout = rows_of(m->act.dx),
                                                               .dtable = m->ends.gradient[END_EMBEDDING],
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
  if (!(args->loss_scale >= 0 && isfinite(args->loss_scale)))
    return context_fail(m->context, CLM_INVALID_ARGUMENT,
                        "model_loss: loss_scale is %g, expected a finite number of at least 0",
                        (double)args->loss_scale);
  return CLM_OK;
}

clm_status clm_model_loss(clm_model *m, const clm_model_loss_args *args) {
  TRY(HANDLE_NEED(m, "model_loss", args));
  TRY(check_loss(m, args));
  int64_t rows = clm_tensor_count(args->ids);
  if (args->gradient) TRY(model_need_gradients(m));
  /* Dropout needs memory for the branch, which only training has. */
  activations_mode mode = args->gradient || args->dropout > 0 ? ACTIVATIONS_TRAIN : ACTIVATIONS_LOSS;
  TRY(model_prepare(m, args->ids.shape[0], args->ids.shape[1], mode));
  const blocks_dropout dropout = {args->dropout, args->seed};
  TRY(run_layers(m, args->ids, &dropout));
  clm_norm_args norm = final_norm_args(m, rows_of(m->act.x[m->config.n_layer]), rows_of(m->act.normed));
  TRY(clm_norm(m->context, &norm));
  int64_t block = m->act.logits.shape[0];
  for (int64_t begin = 0; begin < rows; begin += block)
    TRY(head_block(m, args, begin, rows - begin < block ? rows - begin : block));
  return args->gradient ? run_layers_backward(m, args, &dropout) : CLM_OK;
}
