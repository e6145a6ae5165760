/* The passes through a backbone: input projection, blocks, final norm at the outputs' rows, head. */
#include "core/context.h"
#include "core/try.h"
#include "model/backbone.h"
#include "model/linear.h"
#include <clmamba/elementwise.h>
#include <clmamba/language.h>
#include <clmamba/norm.h>
#include <stdlib.h>

/* One run over (batch, length). "Taken" rows are those of (batch * length) that have an output. */
typedef struct pass {
  int64_t batch, length, taken;
  bool last;         /* taken is the last frame of each, else every frame          */
  clm_tensor frames; /* (batch, length, embed_dim) f32, contiguous                 */
  clm_tensor rows;   /* (taken) i32; absent: all of them                           */
  clm_tensor x;      /* (taken, d_model): what the blocks gave                     */
  clm_tensor normed; /* (taken, d_model)                                           */
  clm_tensor out;    /* (taken, output_size)                                       */
  /* Memory for some of them, and of the way back */
  clm_tensor own_rows, own_frames, own_x, own_out, masked, losses;
} pass;

/* ---- Memory ---- */

static clm_tensor place(clm_buffer *buffer, size_t *used, clm_dtype dtype, int64_t rows, int64_t width) {
  return tensor_place(buffer, used, dtype, 2, (int64_t[]){rows, width});
}

static size_t lay_out(const clm_backbone *b, pass *p) {
  size_t used = 0;
  int64_t outputs = clm_backbone_output_size(b);
  p->own_rows = place(b->scratch, &used, CLM_I32, p->batch * p->length, 1); /* first: kept from pass to pass */
  p->own_frames = place(b->scratch, &used, CLM_F32, p->batch * p->length, b->config.embed_dim);
  p->own_x = place(b->scratch, &used, CLM_F32, p->taken, b->config.d_model);
  p->own_out = place(b->scratch, &used, CLM_F32, p->taken, outputs);
  p->masked = place(b->scratch, &used, CLM_F32, p->taken, outputs);
  p->losses = place(b->scratch, &used, CLM_F32, 2 * p->taken, 1);
  return used;
}

static clm_status begin(clm_backbone *b, pass *p, int64_t batch, int64_t length, bool last, activations_mode mode) {
  *p = (pass){.batch = batch, .length = length, .last = last, .taken = last ? batch : batch * length};
  TRY(model_prepare(b->model, batch, length, mode));
  size_t bytes = lay_out(b, p);
  if (!b->scratch || clm_buffer_size(b->scratch) < bytes) {
    b->last_length = 0;
    clm_buffer_destroy(&b->scratch);
    TRY(clm_buffer_create(b->context, bytes, &b->scratch));
    lay_out(b, p);
  }
  p->normed = clm_tensor_slice(rows_of(b->model->act.normed), 0, 0, p->taken);
  p->out = p->own_out;
  return CLM_OK;
}

static bool is_contiguous(clm_tensor t) {
  int64_t expected = 1;
  for (int i = t.rank - 1; i >= 0; expected *= t.shape[i--])
    if (t.shape[i] > 1 && t.stride[i] != expected) return false;
  return true;
}

static clm_status copy(clm_context *ctx, clm_tensor from, clm_tensor to) {
  return clm_axpby(ctx, &(clm_axpby_args){.x = from, .out = to, .alpha = 1});
}

/* Frames as the products take them. */
static clm_status stage(clm_backbone *b, pass *p, clm_tensor frames) {
  p->frames = frames;
  if (frames.dtype == CLM_F32 && is_contiguous(frames)) return CLM_OK;
  p->frames = clm_tensor_reshape(p->own_frames, frames.rank, frames.shape);
  return copy(b->context, frames, p->frames);
}

int64_t backbone_rows(clm_backbone_output output, int64_t batch, int64_t length, const int64_t *lengths,
                      int32_t *rows) {
  int64_t counted = 0;
  for (int64_t i = 0; i < batch; i++) {
    int64_t frames = lengths ? lengths[i] : length;
    if (output == CLM_OUTPUT_LAST) rows[i] = (int32_t)(i * length + frames - 1);
    else
      for (int64_t t = 0; t < length; t++) rows[i * length + t] = t < frames ? (int32_t)(i * length + t) : -1;
    counted += output == CLM_OUTPUT_LAST ? 1 : frames;
  }
  return counted;
}

/* p->rows on the device; of whole sequences they are still there if the last pass had this shape. */
static clm_status take_rows(clm_backbone *b, pass *p, const int64_t *lengths, int64_t *counted) {
  *counted = p->taken;
  if (!p->last && !lengths) return CLM_OK;
  p->rows = clm_tensor_reshape(clm_tensor_slice(p->own_rows, 0, 0, p->taken), 1, &p->taken);
  if (!lengths && b->last_batch == p->batch && b->last_length == p->length) return CLM_OK;
  int32_t *rows = malloc((size_t)p->taken * sizeof *rows);
  if (!rows) return context_fail(b->context, CLM_OUT_OF_MEMORY, "backbone: out of host memory");
  *counted = backbone_rows(p->last ? CLM_OUTPUT_LAST : CLM_OUTPUT_EVERY, p->batch, p->length, lengths, rows);
  clm_status status = clm_tensor_write(p->rows, rows, (size_t)p->taken * sizeof *rows);
  free(rows);
  b->last_batch = p->batch;
  b->last_length = lengths || status ? 0 : p->length;
  return status;
}

/* ---- The way forth ---- */

static linear input_projection(const clm_backbone *b, const pass *p) {
  const clm_model *m = b->model;
  return (linear){.input = rows_of(p->frames),
                  .weight = m->ends.value[END_INPUT],
                  .bias = m->ends.value[END_INPUT_BIAS],
                  .out = rows_of(m->act.x[0])};
}

static linear head(const clm_backbone *b, const pass *p) {
  return (linear){.input = p->normed,
                  .weight = b->model->ends.value[END_HEAD],
                  .bias = b->model->ends.value[END_HEAD_BIAS],
                  .out = p->out};
}

static clm_status gather(clm_context *ctx, clm_tensor rows, clm_tensor table, clm_tensor out) {
  return clm_embedding(ctx, &(clm_embedding_args){.ids = rows, .table = table, .out = out});
}

/* From the blocks' result to p->out. */
static clm_status outputs(clm_backbone *b, pass *p) {
  clm_model *m = b->model;
  p->x = rows_of(m->act.x[m->config.n_layer]);
  if (p->last && p->length > 1) {
    TRY(gather(b->context, p->rows, p->x, p->own_x));
    p->x = p->own_x;
  }
  if (!b->config.n_outputs) p->normed = p->out;
  clm_norm_args norm = final_norm_args(m, p->x, p->normed);
  TRY(clm_norm(b->context, &norm));
  if (!b->config.n_outputs) return CLM_OK;
  linear l = head(b, p);
  return linear_forward(b->context, &l);
}

static clm_status run(clm_backbone *b, pass *p, const blocks_dropout *dropout) {
  linear l = input_projection(b, p);
  TRY(linear_forward(b->context, &l));
  TRY(blocks_forward(b->model, &(blocks_pass){.dropout = dropout}));
  return outputs(b, p);
}

/* Outputs of (batch, length, embed_dim) at the last frame or at every frame, to `out` (taken, output_size), which may
 * be strided. */
static clm_status infer(clm_backbone *b, clm_tensor frames, bool last, clm_tensor out) {
  pass p;
  int64_t counted;
  TRY(begin(b, &p, frames.shape[0], frames.shape[1], last, ACTIVATIONS_INFER));
  TRY(stage(b, &p, frames));
  TRY(take_rows(b, &p, NULL, &counted));
  p.out = out;
  return run(b, &p, NULL);
}

static bool is_float(clm_tensor t, int rank) {
  return t.buffer && t.rank == rank && (t.dtype == CLM_F32 || t.dtype == CLM_F16 || t.dtype == CLM_BF16);
}

static clm_status check_frames(const clm_backbone *b, const char *call, clm_tensor frames) {
  bool good = is_float(frames, 3) && frames.shape[2] == b->config.embed_dim;
  for (int i = 0; good && i < 2; i++) good = frames.shape[i] >= 1;
  if (!good)
    return context_fail(b->context, CLM_INVALID_ARGUMENT,
                        "%s: frames must be an f32, f16 or bf16 tensor (batch, length, embed_dim %lld)", call,
                        (long long)b->config.embed_dim);
  if (frames.shape[0] > INT32_MAX / frames.shape[1])
    return context_fail(b->context, CLM_INVALID_ARGUMENT, "%s: batch %lld times length %lld is 2^31 frames or more",
                        call, (long long)frames.shape[0], (long long)frames.shape[1]);
  return CLM_OK;
}

static const char *shape_of_outputs(const clm_backbone *b) {
  return b->config.output == CLM_OUTPUT_EVERY ? "batch, length, " : "batch, ";
}

/* A tensor with an entry for each output: `width` 0 has no last dimension. */
static bool fits_outputs(const clm_backbone *b, clm_tensor t, clm_dtype dtype, const int64_t *frames, int64_t width) {
  int rank = b->config.output == CLM_OUTPUT_EVERY ? 2 : 1;
  bool good = t.buffer && t.dtype == dtype && t.rank == rank + (width > 0) && is_contiguous(t);
  for (int i = 0; good && i < rank; i++) good = t.shape[i] == frames[i];
  return good && (!width || t.shape[rank] == width);
}

static clm_tensor part(clm_tensor t, int64_t begin, int64_t count) { return clm_tensor_slice(t, 1, begin, count); }

/* Every output over its window: the first windows in one pass, each later one by itself. */
static clm_status slide(clm_backbone *b, clm_tensor frames, clm_tensor out) {
  int64_t batch = frames.shape[0], window = b->config.window, size = clm_backbone_output_size(b);
  clm_buffer *buffer;
  TRY(clm_buffer_create(b->context, (size_t)(batch * window * size) * sizeof(float), &buffer));
  clm_tensor first = clm_tensor_of(buffer, 0, CLM_F32, 3, (int64_t[]){batch, window, size}),
             one = clm_tensor_of(buffer, 0, CLM_F32, 3, (int64_t[]){batch, 1, size});
  clm_status status = infer(b, part(frames, 0, window), false, rows_of(first));
  if (status == CLM_OK) status = copy(b->context, first, part(out, 0, window));
  for (int64_t t = window; t < frames.shape[1] && status == CLM_OK; t++) {
    status = infer(b, part(frames, t - window + 1, window), true, rows_of(one));
    if (status == CLM_OK) status = copy(b->context, one, part(out, t, 1));
  }
  clm_buffer_destroy(&buffer);
  return status;
}

clm_status clm_backbone_forward(clm_backbone *b, clm_tensor frames, clm_tensor out) {
  if (!b) return CLM_INVALID_ARGUMENT;
  TRY(check_frames(b, "backbone_forward", frames));
  int64_t size = clm_backbone_output_size(b), window = b->config.window;
  if (!fits_outputs(b, out, CLM_F32, frames.shape, size))
    return context_fail(b->context, CLM_INVALID_ARGUMENT,
                        "backbone_forward: out must be a contiguous f32 tensor (%s%lld)", shape_of_outputs(b),
                        (long long)size);
  bool last = b->config.output == CLM_OUTPUT_LAST;
  if (window && frames.shape[1] > window) {
    if (!last) return slide(b, frames, out);
    frames = part(frames, frames.shape[1] - window, window);
  }
  return infer(b, frames, last, rows_of(out));
}

/* ---- One frame more ---- */

static clm_status make_state(clm_backbone_state *s) {
  clm_backbone *b = s->backbone;
  TRY(clm_model_state_create(b->model, s->batch, &s->blocks));
  if (!b->config.window) return CLM_OK;
  int64_t shape[] = {s->batch, 2 * b->config.window, b->config.embed_dim};
  TRY(clm_buffer_create(b->context, (size_t)(shape[0] * shape[1] * shape[2]) * sizeof(float), &s->buffer));
  s->ring = clm_tensor_of(s->buffer, 0, CLM_F32, 3, shape);
  return CLM_OK;
}

clm_status clm_backbone_state_create(clm_backbone *b, int64_t batch, clm_backbone_state **state) {
  if (state) *state = NULL;
  TRY(HANDLE_NEED(b, "backbone_state_create", state));
  *state = calloc(1, sizeof **state);
  if (!*state) return context_fail(b->context, CLM_OUT_OF_MEMORY, "backbone_state_create: out of host memory");
  **state = (clm_backbone_state){.backbone = b, .batch = batch};
  clm_status status = make_state(*state);
  if (status) clm_backbone_state_destroy(state);
  return status;
}

clm_status clm_backbone_state_reset(clm_backbone_state *s) {
  if (!s) return CLM_INVALID_ARGUMENT;
  s->seen = 0;
  return clm_model_state_reset(s->blocks);
}

void clm_backbone_state_destroy(clm_backbone_state **state) {
  if (!state || !*state) return;
  clm_model_state_destroy(&(*state)->blocks);
  clm_buffer_destroy(&(*state)->buffer);
  free(*state);
  *state = NULL;
}

static clm_status step_blocks(clm_backbone *b, clm_backbone_state *s, clm_tensor frame, clm_tensor out) {
  pass p;
  TRY(begin(b, &p, s->batch, 1, false, ACTIVATIONS_INFER));
  TRY(stage(b, &p, frame));
  p.out = out;
  linear l = input_projection(b, &p);
  TRY(linear_forward(b->context, &l));
  TRY(model_state_reserve(s->blocks, s->seen + 1));
  s->blocks->unfinished = true;
  TRY(blocks_step(b->model, s->blocks));
  TRY(outputs(b, &p));
  s->blocks->unfinished = false;
  return CLM_OK;
}

/* Keeps the frame; the place from which on the ring holds the window that ends with it. */
static clm_status keep(clm_backbone *b, clm_backbone_state *s, clm_tensor frame, int64_t *begin_at) {
  int64_t window = b->config.window, place_of = s->seen % window;
  for (int64_t at = place_of; at < 2 * window; at += window) {
    clm_tensor slot = part(s->ring, at, 1);
    slot.rank = 2; /* (batch, 1, embed_dim) with the strides of the ring */
    slot.shape[1] = slot.shape[2];
    slot.stride[1] = slot.stride[2];
    TRY(copy(b->context, frame, slot));
  }
  *begin_at = place_of + 1;
  return CLM_OK;
}

clm_status clm_backbone_step(clm_backbone *b, clm_backbone_state *state, clm_tensor frame, clm_tensor out) {
  TRY(HANDLE_NEED(b, "backbone_step", state));
  int64_t size = clm_backbone_output_size(b), window = b->config.window, begin_at = 0;
  if (state->backbone != b)
    return context_fail(b->context, CLM_INVALID_ARGUMENT, "backbone_step: the state is another backbone's");
  if (!is_float(frame, 2) || frame.shape[0] != state->batch || frame.shape[1] != b->config.embed_dim)
    return context_fail(b->context, CLM_INVALID_ARGUMENT,
                        "backbone_step: frame must be an f32, f16 or bf16 tensor (batch %lld, embed_dim %lld)",
                        (long long)state->batch, (long long)b->config.embed_dim);
  if (!out.buffer || out.dtype != CLM_F32 || out.rank != 2 || out.shape[0] != state->batch || out.shape[1] != size)
    return context_fail(b->context, CLM_INVALID_ARGUMENT,
                        "backbone_step: out must be an f32 tensor (batch %lld, %lld)", (long long)state->batch,
                        (long long)size);
  TRY(model_state_check(state->blocks, "backbone_step"));
  if (window) TRY(keep(b, state, frame, &begin_at));
  if (window && state->seen >= window) TRY(infer(b, part(state->ring, begin_at, window), true, out));
  else TRY(step_blocks(b, state, frame, out));
  state->seen++;
  return CLM_OK;
}

/* ---- Loss and the way back ---- */

/* Rows that do not count become zero. */
static clm_status mask(clm_backbone *b, const pass *p, clm_tensor *errors, clm_tensor into) {
  if (p->last || !p->rows.buffer) return CLM_OK;
  TRY(gather(b->context, p->rows, *errors, into));
  *errors = into;
  return CLM_OK;
}

static clm_status scale(clm_context *ctx, clm_tensor t, double factor) {
  return clm_axpby(ctx, &(clm_axpby_args){.out = t, .beta = (float)factor});
}

static double loss_scale(const backbone_batch *batch) {
  return batch->loss_scale == 0 ? 1 : (double)batch->loss_scale;
}

/* The mean of (out - target)^2 to `loss`; *dout = its gradient. */
static clm_status squared_error(clm_backbone *b, const pass *p, const backbone_batch *batch, clm_tensor *dout) {
  double count = (double)batch->counted * (double)p->out.shape[1];
  int64_t flat = p->taken * p->out.shape[1];
  *dout = p->out;
  TRY(clm_axpby(b->context, &(clm_axpby_args){.x = batch->targets, .out = *dout, .alpha = -1, .beta = 1}));
  TRY(mask(b, p, dout, p->masked));
  TRY(clm_sum_squares(b->context,
                      &(clm_sum_squares_args){.x = clm_tensor_reshape(*dout, 1, &flat), .out = batch->loss}));
  TRY(scale(b->context, batch->loss, 1 / count));
  return batch->gradient ? scale(b->context, *dout, loss_scale(batch) * 2 / count) : CLM_OK;
}

static clm_status cross_entropy(clm_backbone *b, const pass *p, const backbone_batch *batch, clm_tensor *dout) {
  clm_tensor losses = clm_tensor_slice(p->losses, 0, 0, p->taken);
  *dout = p->out;
  TRY(clm_cross_entropy(b->context,
                        &(clm_cross_entropy_args){.logits = p->out,
                                                  .targets = batch->targets,
                                                  .losses = clm_tensor_reshape(losses, 1, &p->taken),
                                                  .dlogits = batch->gradient ? p->out : (clm_tensor){0},
                                                  .scale = (float)loss_scale(batch) / (float)batch->counted}));
  TRY(mask(b, p, &losses, clm_tensor_slice(p->losses, 0, p->taken, p->taken)));
  TRY(clm_column_sum(b->context, &(clm_column_sum_args){.x = losses, .out = batch->loss}));
  TRY(scale(b->context, batch->loss, 1 / (double)batch->counted));
  return batch->gradient ? mask(b, p, dout, p->masked) : CLM_OK;
}

/* From dout, the outputs' gradient, to all parameters'. */
static clm_status run_backward(clm_backbone *b, const pass *p, clm_tensor dout, const blocks_dropout *dropout) {
  clm_model *m = b->model;
  const clm_tensor *dw = m->ends.gradient;
  clm_tensor dx = rows_of(m->act.dx), dnormed = dout;
  bool gathered = p->last && p->length > 1;
  if (b->config.n_outputs) {
    dnormed = clm_tensor_slice(rows_of(m->act.dnormed), 0, 0, p->taken);
    linear l = head(b, p);
    TRY(linear_backward(
        b->context, &l,
        &(linear_gradients){.dout = dout, .dinput = dnormed, .dweight = dw[END_HEAD], .dbias = dw[END_HEAD_BIAS]}));
  }
  clm_tensor dtaken = gathered ? clm_tensor_slice(rows_of(m->act.branch), 0, 0, p->taken) : dx;
  TRY(clm_norm_backward(b->context, &(clm_norm_backward_args){.forward = final_norm_args(m, p->x, p->normed),
                                                              .dout = dnormed,
                                                              .dx = dtaken,
                                                              .dweight = dw[END_NORM]}));
  if (gathered)
    TRY(clm_embedding_backward(b->context,
                               &(clm_embedding_backward_args){.ids = p->rows, .dout = dtaken, .dtable = dx}));
  TRY(blocks_backward(m, dropout));
  linear l = input_projection(b, p);
  return linear_backward(b->context, &l,
                         &(linear_gradients){.dout = dx, .dweight = dw[END_INPUT], .dbias = dw[END_INPUT_BIAS]});
}

static clm_status loss_of(clm_backbone *b, pass *p, const backbone_batch *batch) {
  clm_tensor dout;
  const blocks_dropout *dropout = batch->dropout.rate > 0 ? &batch->dropout : NULL;
  if (batch->gradient) TRY(model_need_gradients(b->model));
  TRY(run(b, p, dropout));
  if (batch->out.buffer) TRY(copy(b->context, p->out, batch->out));
  dout = batch->dout;
  if (dout.buffer) TRY(mask(b, p, &dout, p->masked));
  else if (batch->loss.buffer)
    TRY(b->config.task == CLM_TASK_REGRESSION ? squared_error(b, p, batch, &dout)
                                              : cross_entropy(b, p, batch, &dout));
  return batch->gradient ? run_backward(b, p, dout, dropout) : CLM_OK;
}

static activations_mode loss_mode(const backbone_batch *batch) {
  return batch->gradient || batch->dropout.rate > 0 ? ACTIVATIONS_TRAIN : ACTIVATIONS_INFER;
}

clm_status backbone_loss(clm_backbone *b, const backbone_batch *batch) {
  pass p;
  const int64_t *shape = batch->frames.shape;
  TRY(begin(b, &p, shape[0], shape[1], b->config.output == CLM_OUTPUT_LAST, loss_mode(batch)));
  p.frames = batch->frames;
  p.rows = batch->rows;
  return loss_of(b, &p, batch);
}

static clm_status check_targets(const clm_backbone *b, const clm_backbone_loss_args *a) {
  clm_context *ctx = b->context;
  const int64_t *shape = a->frames.shape;
  bool regression = b->config.task == CLM_TASK_REGRESSION;
  if (!fits_outputs(b, a->targets, regression ? CLM_F32 : CLM_I32, shape,
                    regression ? clm_backbone_output_size(b) : 0))
    return context_fail(ctx, CLM_INVALID_ARGUMENT,
                        regression ? "backbone_loss: targets must be a contiguous f32 tensor (%soutput_size)"
                                   : "backbone_loss: targets must be a contiguous i32 tensor (%swithout classes)",
                        shape_of_outputs(b));
  if (!a->loss.buffer || a->loss.dtype != CLM_F32 || a->loss.rank != 1 || a->loss.shape[0] != 1)
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "backbone_loss: loss must be an f32 tensor (1)");
  return CLM_OK;
}

/* Of a loss of the caller's own. */
static clm_status check_own(const clm_backbone *b, const clm_backbone_loss_args *a) {
  const clm_tensor *const tensors[] = {&a->out, &a->dout};
  for (int i = 0; i < 2; i++)
    if (tensors[i]->buffer && !fits_outputs(b, *tensors[i], CLM_F32, a->frames.shape, clm_backbone_output_size(b)))
      return context_fail(b->context, CLM_INVALID_ARGUMENT,
                          "backbone_loss: %s must be a contiguous f32 tensor (%s%lld)", i ? "dout" : "out",
                          shape_of_outputs(b), (long long)clm_backbone_output_size(b));
  if (a->dout.buffer && (a->targets.buffer || a->loss.buffer))
    return context_fail(b->context, CLM_INVALID_ARGUMENT,
                        "backbone_loss: dout is given, expected no targets and loss");
  if (a->dout.buffer && !a->gradient)
    return context_fail(b->context, CLM_INVALID_ARGUMENT, "backbone_loss: dout is given, but gradient is not set");
  return CLM_OK;
}

static clm_status check_loss(const clm_backbone *b, const clm_backbone_loss_args *a) {
  TRY(check_frames(b, "backbone_loss", a->frames));
  clm_context *ctx = b->context;
  const int64_t *shape = a->frames.shape, window = b->config.window;
  TRY(check_own(b, a));
  const bool outputs_only = a->out.buffer && !a->targets.buffer && !a->loss.buffer && !a->gradient;
  if (!a->dout.buffer && !outputs_only) TRY(check_targets(b, a));
  if (!(a->dropout >= 0 && a->dropout < 1))
    return context_fail(ctx, CLM_INVALID_ARGUMENT, "backbone_loss: dropout is %g, expected 0 <= dropout < 1",
                        (double)a->dropout);
  if (window && shape[1] > window && (a->lengths || b->config.output == CLM_OUTPUT_EVERY))
    return context_fail(ctx, CLM_INVALID_ARGUMENT,
                        "backbone_loss: frames has length %lld, at most the window of %lld is expected",
                        (long long)shape[1], (long long)window);
  for (int64_t i = 0; a->lengths && i < shape[0]; i++)
    if (a->lengths[i] < 1 || a->lengths[i] > shape[1])
      return context_fail(ctx, CLM_INVALID_ARGUMENT, "backbone_loss: lengths[%lld] is %lld, expected 1 to %lld",
                          (long long)i, (long long)a->lengths[i], (long long)shape[1]);
  return CLM_OK;
}

clm_status clm_backbone_loss(clm_backbone *b, const clm_backbone_loss_args *args) {
  TRY(HANDLE_NEED(b, "backbone_loss", args));
  TRY(check_loss(b, args));
  pass p;
  clm_tensor frames = args->frames;
  int64_t window = b->config.window;
  if (window && frames.shape[1] > window) frames = part(frames, frames.shape[1] - window, window);
  backbone_batch batch = {.loss = args->loss, .gradient = args->gradient, .dropout = {args->dropout, args->seed}};
  if (args->out.buffer) batch.out = rows_of(args->out);
  if (args->dout.buffer) batch.dout = rows_of(args->dout);
  TRY(begin(b, &p, frames.shape[0], frames.shape[1], b->config.output == CLM_OUTPUT_LAST, loss_mode(&batch)));
  TRY(stage(b, &p, frames));
  TRY(take_rows(b, &p, args->lengths, &batch.counted));
  if (batch.loss.buffer)
    batch.targets = b->config.task == CLM_TASK_REGRESSION
                        ? rows_of(args->targets)
                        : clm_tensor_reshape(args->targets, 1, (int64_t[]){clm_tensor_count(args->targets)});
  return loss_of(b, &p, &batch);
}
