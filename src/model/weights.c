#include "model/weights.h"
#include "core/context.h"
#include "core/rng.h"
#include "core/try.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN_FLOATS 16 /* every parameter begins on a cache line */

/* Sequences of random numbers: a seed keeps its weights when W_COUNT grows. Ids past this and 0 to 2 are the model's
 * own, so that no two parameters share a sequence. */
#define STREAMS_PER_LAYER 15

typedef enum dim { NONE, ONE, VOCAB, MODEL, INNER, INNER_2, STATE, CONV, RANK, RANK_2STATE, INPUTS, OUTPUTS } dim;

typedef enum init {
  INIT_ZERO,
  INIT_ONE,
  INIT_EMBEDDING, /* normal, embedding_range                                  */
  INIT_FAN_IN,    /* uniform, 1/sqrt(inputs)                                  */
  INIT_CONV_BIAS, /* uniform, 1/sqrt(d_conv)                                  */
  INIT_OUT,       /* INIT_FAN_IN / sqrt(n_layer): one residual branch a layer */
  INIT_DT_WEIGHT, /* uniform, dt_rank^-0.5                                    */
  INIT_DT_BIAS,   /* inverse softplus of a log-uniform step                   */
  INIT_A_LOG      /* log(1 .. d_state)                                        */
} init;

typedef enum present { ALWAYS, TOKENS, UNTIED, CONV_BIAS, PROJECTION_BIAS, FRAMES, HEAD } present;

static const struct {
  const char *name; /* after "backbone.layers.N." in a layer */
  dim shape[3];
  init init;
  present present;
  bool layer, decay;
} specs[W_COUNT] = {
    /*                    name                         shape                 initial values  present      layer decay
     */
    [W_EMBEDDING] = {"backbone.embeddings.weight", {VOCAB, MODEL}, INIT_EMBEDDING, TOKENS, false, true},
    [W_NORM_F] = {"backbone.norm_f.weight", {MODEL}, INIT_ONE, ALWAYS, false, false},
    [W_LM_HEAD] = {"lm_head.weight", {VOCAB, MODEL}, INIT_EMBEDDING, UNTIED, false, true},
    [W_NORM] = {"norm.weight", {MODEL}, INIT_ONE, ALWAYS, true, false},
    [W_IN_PROJ] = {"mixer.in_proj.weight", {INNER_2, MODEL}, INIT_FAN_IN, ALWAYS, true, true},
    [W_IN_PROJ_BIAS] = {"mixer.in_proj.bias", {INNER_2}, INIT_ZERO, PROJECTION_BIAS, true, false},
    [W_CONV] = {"mixer.conv1d.weight", {INNER, ONE, CONV}, INIT_FAN_IN, ALWAYS, true, true},
    [W_CONV_BIAS] = {"mixer.conv1d.bias", {INNER}, INIT_CONV_BIAS, CONV_BIAS, true, false},
    [W_X_PROJ] = {"mixer.x_proj.weight", {RANK_2STATE, INNER}, INIT_FAN_IN, ALWAYS, true, true},
    [W_DT_PROJ] = {"mixer.dt_proj.weight", {INNER, RANK}, INIT_DT_WEIGHT, ALWAYS, true, true},
    [W_DT_BIAS] = {"mixer.dt_proj.bias", {INNER}, INIT_DT_BIAS, ALWAYS, true, false},
    [W_A_LOG] = {"mixer.A_log", {INNER, STATE}, INIT_A_LOG, ALWAYS, true, false},
    [W_D] = {"mixer.D", {INNER}, INIT_ONE, ALWAYS, true, false},
    [W_OUT_PROJ] = {"mixer.out_proj.weight", {MODEL, INNER}, INIT_OUT, ALWAYS, true, true},
    [W_OUT_PROJ_BIAS] = {"mixer.out_proj.bias", {MODEL}, INIT_ZERO, PROJECTION_BIAS, true, false},
    [W_INPUT] = {"input_proj.weight", {MODEL, INPUTS}, INIT_FAN_IN, FRAMES, false, true},
    [W_INPUT_BIAS] = {"input_proj.bias", {MODEL}, INIT_ZERO, FRAMES, false, false},
    [W_HEAD] = {"head.weight", {OUTPUTS, MODEL}, INIT_FAN_IN, HEAD, false, true},
    [W_HEAD_BIAS] = {"head.bias", {OUTPUTS}, INIT_ZERO, HEAD, false, false},
};

/* Other names under which a parameter is found in a file. */
static const struct {
  weight_id id;
  const char *name;
} aliases[] = {{W_EMBEDDING, "backbone.embedding.weight"}};

static int64_t dim_size(const clm_model_config *c, const weights_ends *ends, dim d) {
  switch (d) {
  case NONE:
  case ONE: return 1;
  case VOCAB: return c->vocab_size;
  case MODEL: return c->d_model;
  case INNER: return c->d_inner;
  case INNER_2: return 2 * c->d_inner;
  case STATE: return c->d_state;
  case CONV: return c->d_conv;
  case RANK: return c->dt_rank;
  case RANK_2STATE: return c->dt_rank + 2 * c->d_state;
  case INPUTS: return ends->inputs;
  case OUTPUTS: return ends->outputs;
  }
  return 1;
}

static bool is_present(const clm_model_config *c, const weights_ends *ends, present p) {
  switch (p) {
  case ALWAYS: return true;
  case TOKENS: return ends->inputs == 0;
  case UNTIED: return ends->inputs == 0 && c->untied_head;
  case CONV_BIAS: return !c->no_conv_bias;
  case PROJECTION_BIAS: return c->projection_bias;
  case FRAMES: return ends->inputs > 0;
  case HEAD: return ends->outputs > 0;
  }
  return false;
}

static void add_weight(weights_layout *l, const clm_model_config *c, int layer, weight_id id) {
  weight *w = &l->items[l->item_count];
  *w = (weight){.id = id, .layer = layer, .offset = l->total, .count = 1};
  for (; w->rank < 3 && specs[id].shape[w->rank] != NONE; w->rank++) {
    w->shape[w->rank] = dim_size(c, &l->ends, specs[id].shape[w->rank]);
    w->count *= (size_t)w->shape[w->rank];
  }
  l->index[layer * W_COUNT + (int)id] = l->item_count++;
  l->parameters += (int64_t)w->count;
  l->total += (w->count + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS;
}

clm_status weights_layout_make(clm_context *ctx, const clm_model_config *c, weights_ends ends, weights_layout *l) {
  size_t slots = (size_t)c->n_layer * W_COUNT;
  *l = (weights_layout){
      .ends = ends, .items = calloc(slots, sizeof *l->items), .index = malloc(slots * sizeof *l->index)};
  if (!l->items || !l->index) {
    weights_layout_free(l);
    return context_fail(ctx, CLM_OUT_OF_MEMORY, "model: out of host memory");
  }
  for (size_t i = 0; i < slots; i++) l->index[i] = SIZE_MAX;
  for (int decay = 1; decay >= 0; decay--) {
    for (int layer = 0; layer < c->n_layer; layer++)
      for (int id = 0; id < W_COUNT; id++)
        if (specs[id].decay == decay && is_present(c, &ends, specs[id].present) && (specs[id].layer || layer == 0))
          add_weight(l, c, layer, (weight_id)id);
    if (decay) l->decayed = l->total;
  }
  return CLM_OK;
}

void weights_layout_free(weights_layout *l) {
  free(l->items);
  free(l->index);
  *l = (weights_layout){0};
}

void weights_name(const weight *w, char name[WEIGHT_NAME_MAX]) {
  if (specs[w->id].layer) snprintf(name, WEIGHT_NAME_MAX, "backbone.layers.%d.%s", w->layer, specs[w->id].name);
  else snprintf(name, WEIGHT_NAME_MAX, "%s", specs[w->id].name);
}

const weight *weights_find(const weights_layout *l, const char *name) {
  char candidate[WEIGHT_NAME_MAX];
  for (size_t i = 0; i < l->item_count; i++) {
    weights_name(&l->items[i], candidate);
    if (strcmp(candidate, name) == 0) return &l->items[i];
  }
  return NULL;
}

clm_tensor weights_view(const weights_layout *l, clm_buffer *flat, int layer, weight_id id) {
  size_t item = l->index[layer * W_COUNT + (int)id];
  if (item == SIZE_MAX || !flat) return (clm_tensor){0};
  const weight *w = &l->items[item];
  int64_t shape[3];
  int rank = 0; /* without the dimension of size 1 in the middle of conv1d.weight */
  for (int i = 0; i < w->rank; i++)
    if (specs[id].shape[i] != ONE) shape[rank++] = w->shape[i];
  return clm_tensor_of(flat, w->offset * sizeof(float), CLM_F32, rank, shape);
}

static void fill_uniform(float *out, size_t count, rng *r, double bound) {
  for (size_t i = 0; i < count; i++) out[i] = (float)((2 * rng_uniform(r) - 1) * bound);
}

static void initialise_one(const weight *w, const clm_model_config *c, rng *r, float *out) {
  double fan_in = (double)w->count / (double)w->shape[0];
  switch (specs[w->id].init) {
  case INIT_ZERO: break;
  case INIT_ONE:
    for (size_t i = 0; i < w->count; i++) out[i] = 1;
    break;
  case INIT_EMBEDDING:
    for (size_t i = 0; i < w->count; i++) out[i] = (float)(rng_normal(r) * (double)c->embedding_range);
    break;
  case INIT_FAN_IN: fill_uniform(out, w->count, r, 1 / sqrt(fan_in)); break;
  case INIT_CONV_BIAS: fill_uniform(out, w->count, r, 1 / sqrt((double)c->d_conv)); break;
  case INIT_OUT: fill_uniform(out, w->count, r, 1 / sqrt(fan_in * (double)c->n_layer)); break;
  case INIT_DT_WEIGHT: fill_uniform(out, w->count, r, 1 / sqrt((double)c->dt_rank)); break;
  case INIT_DT_BIAS:
    for (size_t i = 0; i < w->count; i++) {
      double low = log((double)c->dt_min), high = log((double)c->dt_max);
      double dt = fmax(exp(low + rng_uniform(r) * (high - low)), (double)c->dt_floor);
      out[i] = (float)(dt + log(-expm1(-dt)));
    }
    break;
  case INIT_A_LOG:
    for (size_t i = 0; i < w->count; i++) out[i] = (float)log((double)((int64_t)i % c->d_state + 1));
    break;
  }
}

void weights_initialise(const weights_layout *l, const clm_model_config *c, uint64_t seed, float *flat) {
  memset(flat, 0, l->total * sizeof *flat);
  for (size_t i = 0; i < l->item_count; i++) { /* a sequence of its own for each: independent of the layout */
    const weight *w = &l->items[i];
    rng r = rng_seed(seed, (uint64_t)w->layer * STREAMS_PER_LAYER + (uint64_t)w->id);
    initialise_one(w, c, &r, flat + w->offset);
  }
}

static const safetensor *find_in_file(const safetensors *file, const weight *w, const char *name) {
  const safetensor *t = safetensors_find(file, name);
  for (size_t i = 0; !t && i < sizeof aliases / sizeof *aliases; i++)
    if (aliases[i].id == w->id) t = safetensors_find(file, aliases[i].name);
  return t;
}

static void print_shape(char *text, size_t size, int rank, const int64_t *shape) {
  size_t at = (size_t)snprintf(text, size, "(");
  for (int i = 0; i < rank && at < size; i++)
    at += (size_t)snprintf(text + at, size - at, i ? ", %lld" : "%lld", (long long)shape[i]);
  if (at < size) snprintf(text + at, size - at, ")");
}

/* The tensor of the file that holds this parameter, in the right shape. */
static clm_status locate(clm_context *ctx, const safetensors *file, const weight *w, const safetensor **found) {
  char name[WEIGHT_NAME_MAX], have[96], want[96];
  weights_name(w, name);
  const safetensor *t = find_in_file(file, w, name);
  if (!t) return context_fail(ctx, CLM_BAD_FORMAT, "%s has no tensor \"%s\"", file->path, name);
  if (t->rank != w->rank || memcmp(t->shape, w->shape, (size_t)w->rank * sizeof *w->shape) != 0) {
    print_shape(have, sizeof have, t->rank, t->shape);
    print_shape(want, sizeof want, w->rank, w->shape);
    return context_fail(ctx, CLM_BAD_FORMAT, "%s: tensor \"%s\" has shape %s, config.json expects %s", file->path,
                        name, have, want);
  }
  *found = t;
  return CLM_OK;
}

static clm_status load_all(clm_context *ctx, const weights_layout *l, const safetensors *file, float **flat) {
  const safetensor *t;
  for (size_t i = 0; i < l->item_count; i++) TRY(locate(ctx, file, &l->items[i], &t));
  *flat = calloc(l->total, sizeof **flat);
  if (!*flat) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", file->path);
  for (size_t i = 0; i < l->item_count; i++) {
    TRY(locate(ctx, file, &l->items[i], &t));
    TRY(safetensors_read_f32(ctx, file, t, *flat + l->items[i].offset));
  }
  return CLM_OK;
}

clm_status weights_load(clm_context *ctx, const weights_layout *l, const char *path, float **flat) {
  safetensors file;
  *flat = NULL;
  TRY(safetensors_open(ctx, path, &file));
  clm_status status = load_all(ctx, l, &file, flat);
  if (status) {
    free(*flat);
    *flat = NULL;
  }
  safetensors_close(&file);
  return status;
}

clm_status weights_save(clm_context *ctx, const weights_layout *l, const char *path, const float *flat) {
  safetensor *tensors = calloc(l->item_count, sizeof *tensors);
  char(*names)[WEIGHT_NAME_MAX] = calloc(l->item_count, sizeof *names);
  clm_status status;
  if (tensors && names) {
    for (size_t i = 0; i < l->item_count; i++) {
      const weight *w = &l->items[i];
      weights_name(w, names[i]);
      tensors[i] = (safetensor){.name = names[i], .dtype = "F32", .rank = w->rank, .data = flat + w->offset};
      tensors[i].bytes = w->count * sizeof *flat;
      memcpy(tensors[i].shape, w->shape, sizeof w->shape);
    }
    status = safetensors_write(ctx, path, tensors, l->item_count, NULL);
  } else status = context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  free(names);
  free(tensors);
  return status;
}
