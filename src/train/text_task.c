/* Training a language model on a text. */
#include "core/context.h"
#include "core/try.h"
#include "train/trainer.h"
#include <clmamba/elementwise.h>
#include <xxhash.h>

typedef struct text_state {
  data_windows windows;
  clm_buffer *losses; /* of a batch */
} text_state;

static text_state *state_of(const clm_trainer *t) { return t->task_state; }

static size_t batch_rows(const clm_trainer *t) { return (size_t)(t->options.batch * t->options.length); }

/* Ids, then targets. */
static size_t batch_bytes(const clm_trainer *t) { return 2 * batch_rows(t) * sizeof(int32_t); }

static void next(clm_trainer *t, data_position *position, int slot, void *batch) {
  size_t rows = batch_rows(t), length = (size_t)t->options.length;
  int32_t *ids = batch;
  for (size_t row = 0; row < rows; row += length)
    data_next(&state_of(t)->windows, position, ids + row, ids + rows + row);
  t->slot_tokens[slot] = (int64_t)rows;
}

static clm_status run(clm_trainer *t, int slot, uint64_t seed, clm_tensor loss) {
  size_t at = trainer_slot(t, slot);
  int64_t shape[2] = {t->options.batch, t->options.length}, column[2] = {(int64_t)batch_rows(t), 1};
  clm_tensor losses = clm_tensor_of(state_of(t)->losses, 0, CLM_F32, 2, shape);
  TRY(clm_model_loss(t->model,
                     &(clm_model_loss_args){
                         .ids = clm_tensor_of(t->queue, at, CLM_I32, 2, shape),
                         .targets = clm_tensor_of(t->queue, at + batch_rows(t) * sizeof(int32_t), CLM_I32, 2, shape),
                         .losses = losses,
                         .gradient = true,
                         .dropout = trainer_dropout(t),
                         .seed = seed,
                         .loss_scale = trainer_loss_scale(t)}));
  return clm_column_sum(t->context, &(clm_column_sum_args){.x = clm_tensor_reshape(losses, 2, column), .out = loss});
}

static clm_status validate(clm_trainer *t, double *loss) {
  size_t count;
  const int32_t *ids = data_validation(&state_of(t)->windows, &count);
  return clm_model_score(t->model, ids, (size_t)t->validation_tokens, 0, loss);
}

static clm_status save(clm_trainer *t, const char *directory) { return clm_model_save(t->model, directory); }

static uint64_t hash(const clm_trainer *t) {
  const data_windows *w = &state_of(t)->windows;
  return XXH64(w->ids, (size_t)w->count * sizeof *w->ids, 0);
}

static void destroy(clm_trainer *t) {
  clm_buffer_destroy(&state_of(t)->losses);
  data_destroy(&state_of(t)->windows);
}

static const train_task text_task = {.data = "text",
                                     .batch_bytes = batch_bytes,
                                     .next = next,
                                     .run = run,
                                     .validate = validate,
                                     .save = save,
                                     .hash = hash,
                                     .destroy = destroy};

static clm_status prepare(clm_trainer *t, const int32_t *ids, size_t count, const clm_train_options *options) {
  clm_context *ctx = t->context;
  text_state *state = state_of(t);
  t->options = *options;
  TRY(train_options_complete(ctx, &t->options));
  TRY(data_create(ctx, ids, count, t->options.length, t->options.seed, &state->windows));
  for (size_t i = 0; i < count; i++)
    if (ids[i] < 0 || ids[i] >= t->model->config.vocab_size)
      return context_fail(ctx, CLM_INVALID_ARGUMENT, "training: token %zu is %d, the model's vocabulary has %lld", i,
                          (int)ids[i], (long long)t->model->config.vocab_size);
  /* Two or more: one token predicts nothing. */
  int64_t max = t->options.validation_tokens > 1 ? t->options.validation_tokens : 2;
  t->validation_tokens = state->windows.count - state->windows.training;
  if (t->options.validation_tokens && t->validation_tokens > max) t->validation_tokens = max;
  t->loss_weight = 1 / (double)batch_rows(t);
  TRY(clm_buffer_create(ctx, batch_rows(t) * sizeof(float), &state->losses));
  return trainer_prepare(t);
}

clm_status clm_trainer_create(clm_model *model, const int32_t *ids, size_t count, const clm_train_options *options,
                              clm_trainer **trainer) {
  if (trainer) *trainer = NULL;
  TRY(HANDLE_NEED(model, "trainer_create", ids, options, trainer));
  TRY(trainer_new(model, &text_task, sizeof(text_state), trainer));
  return trainer_made(prepare(*trainer, ids, count, options), trainer);
}
