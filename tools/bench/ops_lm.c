/* Whole language models with random weights: prefill, decode, training. */
#include "bench/lm_model.h"
#include "bench/ops.h"
#include "common/tool.h"
#include <clmamba/train.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct lm {
  bench *bench;
  bench_shape shape;
  clm_model *model;
  clm_model_state *state;
  clm_trainer *trainer;
  clm_buffer *ids_buffer, *logits_buffer;
  clm_tensor ids, logits, one; /* (batch, prompt), (batch, vocab), (batch) */
  int64_t steps;               /* decode steps after the prompt */
} lm;

static int32_t *random_ids(int64_t count, int64_t vocab) {
  int32_t *ids = malloc((size_t)count * sizeof *ids);
  rng random = rng_seed(5, 0);
  for (int64_t i = 0; ids && i < count; i++) ids[i] = (int32_t)rng_below(&random, (uint64_t)vocab);
  return ids;
}

static clm_status prepare_inference(lm *l, int64_t length) {
  const int64_t vocab = clm_model_configuration(l->model)->vocab_size, batch = l->shape.batch;
  const size_t ids_bytes = (size_t)(batch * length) * sizeof(int32_t);
  clm_context *context = l->bench->context;
  int32_t *ids = random_ids(batch * length, vocab);
  clm_status status = ids ? clm_model_state_create(l->model, batch, &l->state) : CLM_OUT_OF_MEMORY;
  if (status == CLM_OK) status = clm_buffer_create(context, ids_bytes, &l->ids_buffer);
  if (status == CLM_OK)
    status = clm_buffer_create(context, (size_t)(batch * vocab) * sizeof(float), &l->logits_buffer);
  if (status == CLM_OK) status = clm_buffer_write(l->ids_buffer, 0, ids_bytes, ids);
  l->ids = clm_tensor_of(l->ids_buffer, 0, CLM_I32, 2, (int64_t[]){batch, length});
  l->one = clm_tensor_of(l->ids_buffer, 0, CLM_I32, 1, (int64_t[]){batch});
  l->logits = clm_tensor_of(l->logits_buffer, 0, CLM_F32, 2, (int64_t[]){batch, vocab});
  free(ids);
  return status;
}

static clm_status call_inference(void *user, int repeat) {
  lm *l = user;
  (void)repeat;
  clm_status status = clm_model_state_reset(l->state);
  if (status == CLM_OK) status = clm_model_prefill(l->model, l->state, l->ids, NULL, l->logits);
  for (int64_t i = 0; i < l->steps && status == CLM_OK; i++)
    status = clm_model_decode(l->model, l->state, l->one, l->logits);
  return status;
}

static clm_status prepare_training(lm *l) {
  int64_t vocab = clm_model_configuration(l->model)->vocab_size, count = 40 * l->shape.length + 1000;
  int32_t *ids = random_ids(count, vocab);
  clm_train_options options = {
      .batch = l->shape.batch, .length = l->shape.length, .steps = 1000000, .activations = l->shape.dtype};
  clm_status status =
      ids ? clm_trainer_create(l->model, ids, (size_t)count, &options, &l->trainer) : CLM_OUT_OF_MEMORY;
  free(ids);
  return status;
}

static clm_status call_training(void *user, int repeat) {
  (void)repeat;
  return clm_trainer_step(((lm *)user)->trainer);
}

/* Products of all layers, and of the head for the rows whose logits are made; weights through memory once a step. */
static bench_cost cost_of(const lm *l, double tokens, double logit_rows, double passes) {
  const clm_model_config *c = clm_model_configuration(l->model);
  double head = (double)c->vocab_size * (double)c->d_model;
  double layers = (double)clm_model_parameter_count(l->model) - head;
  const clm_weights_type type = l->bench->settings.weights; /* all but a few are in matrices */
  double weight_bytes = type == CLM_WEIGHTS_F32 ? 4 : type == CLM_WEIGHTS_INT8 ? 1 : 2;
  const double decays = c->layers ? 1 / (double)c->head_dim : (double)c->d_state; /* for each channel */
  double scan = (double)c->n_layer * (double)c->d_inner * (decays + 5);
  return (bench_cost){.flops = 2 * (tokens * layers + logit_rows * head),
                      .exponentials = tokens * scan,
                      .read_bytes = passes * (layers + head) * weight_bytes};
}

static bool run(lm *l, bool train, bool decode, bench_row *row) {
  const bench_settings *settings = &l->bench->settings;
  double batch = (double)l->shape.batch, length = (double)l->shape.length;
  clm_status status;
  if (decode) l->steps = settings->new_tokens - 1;
  if (train) status = prepare_training(l);
  else status = prepare_inference(l, decode ? settings->prompt : l->shape.length);
  if (status != CLM_OK) return bench_fail(l->bench, row->op, status);
  if (train) {
    row->cost = cost_of(l, batch * length, batch * length, 3);
    row->cost.flops *= 3;
    row->cost.exponentials *= 2;
    row->cost.tokens = batch * length;
  } else if (decode) {
    double steps = (double)l->steps, prompt = (double)settings->prompt;
    row->cost = cost_of(l, batch * (prompt + steps), batch * (1 + steps), 1 + steps);
    row->cost.tokens = batch * (double)settings->new_tokens;
  } else {
    row->cost = cost_of(l, batch * length, batch, 1);
    row->cost.tokens = batch * length;
  }
  return bench_time(l->bench, train ? call_training : call_inference, l, row);
}

static bool measure(bench *b, const bench_op *op, const bench_shape *shape, bench_row *row) {
  bool train = strcmp(op->name, "lm-train") == 0, decode = strcmp(op->name, "lm-decode") == 0;
  const char *name = b->settings.model;
  if (!name) name = train && b->device.type == CLM_DEVICE_CPU ? "char" : "130m";
  size_t used = strlen(row->shape_text);
  snprintf(row->shape_text + used, sizeof row->shape_text - used, " model=%s weights=%s", name,
           bench_weights_name(b->settings.weights));
  used = strlen(row->shape_text);
  if (decode)
    snprintf(row->shape_text + used, sizeof row->shape_text - used, " prompt=%lld new=%lld",
             (long long)b->settings.prompt, (long long)b->settings.new_tokens);
  lm l = {.bench = b, .shape = *shape};
  clm_status status = lm_model_create(b->context, name, b->settings.weights, &l.model);
  if (status == CLM_OK) status = clm_model_set_activations(l.model, shape->dtype);
  bool ok = status == CLM_OK ? run(&l, train, decode, row) : bench_fail(b, op->name, status);
  clm_context_finish(b->context);
  clm_trainer_destroy(&l.trainer);
  clm_model_state_destroy(&l.state);
  clm_buffer_destroy(&l.ids_buffer);
  clm_buffer_destroy(&l.logits_buffer);
  clm_model_destroy(&l.model);
  return ok;
}

const bench_op bench_lm_prefill = {"lm-prefill",
                                   "language model: a prompt, the last position's logits",
                                   .dims = "batch length",
                                   .gpu = {.batch = 1, .length = 2048},
                                   .cpu = {.batch = 1, .length = 512},
                                   .measure = measure};
const bench_op bench_lm_decode = {"lm-decode",         "language model: prompt and new tokens, without sampling",
                                  .dims = "batch",     .gpu = {.batch = 1},
                                  .cpu = {.batch = 1}, .measure = measure};
const bench_op bench_lm_train = {"lm-train",
                                 "language model: one training step, AdamW included",
                                 .dims = "batch length",
                                 .gpu = {.batch = 8, .length = 1024},
                                 .cpu = {.batch = 16, .length = 256},
                                 .measure = measure};
