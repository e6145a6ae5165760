#include "model/weights.h"
#include "core/context.h"
#include "core/rng.h"
#include "core/try.h"
#include "files/convert.h"
#include "files/safetensors.h"
#include <clmamba/language.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define ALIGN_FLOATS 16                /* every parameter begins on a cache line                      */
#define PIECE        ((size_t)1 << 20) /* elements that are converted at once: whole blocks of a dtype */
#define ROWS         ((size_t)32)      /* of any length: whole blocks too                             */

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

typedef enum present { ALWAYS, TOKENS, UNTIED, CONV_BIAS, PROJECTION_BIAS, LAYER_NORM, FRAMES, HEAD } present;

/* clang-format off */
static const struct {
  const char *name; /* after "backbone.layers.N." in a layer */
  const char *gguf; /* after "blk.N."; NULL: that has none   */
  dim shape[3];
  init init;
  present present;
  bool layer, decay;
  bool matrix; /* may be held in halves or i8 */
} specs[W_COUNT] = {
    /*                    name                          in GGUF                shape                   initial values  present          layer  decay  matrix */
    [W_EMBEDDING] =      {"backbone.embeddings.weight", "token_embd.weight",   {VOCAB, MODEL},         INIT_EMBEDDING, TOKENS,          false, true,  true},
    [W_NORM_F] =         {"backbone.norm_f.weight",     "output_norm.weight",  {MODEL},                INIT_ONE,       ALWAYS,          false, false, false},
    [W_LM_HEAD] =        {"lm_head.weight",             "output.weight",       {VOCAB, MODEL},         INIT_EMBEDDING, UNTIED,          false, true,  true},
    [W_NORM] =           {"norm.weight",                "attn_norm.weight",    {MODEL},                INIT_ONE,       ALWAYS,          true,  false, false},
    [W_IN_PROJ] =        {"mixer.in_proj.weight",       "ssm_in.weight",       {INNER_2, MODEL},       INIT_FAN_IN,    ALWAYS,          true,  true,  true},
    [W_IN_PROJ_BIAS] =   {"mixer.in_proj.bias",         "ssm_in.bias",         {INNER_2},              INIT_ZERO,      PROJECTION_BIAS, true,  false, false},
    [W_CONV] =           {"mixer.conv1d.weight",        "ssm_conv1d.weight",   {INNER, ONE, CONV},     INIT_FAN_IN,    ALWAYS,          true,  true,  false},
    [W_CONV_BIAS] =      {"mixer.conv1d.bias",          "ssm_conv1d.bias",     {INNER},                INIT_CONV_BIAS, CONV_BIAS,       true,  false, false},
    [W_X_PROJ] =         {"mixer.x_proj.weight",        "ssm_x.weight",        {RANK_2STATE, INNER},   INIT_FAN_IN,    ALWAYS,          true,  true,  true},
    [W_DT_PROJ] =        {"mixer.dt_proj.weight",       "ssm_dt.weight",       {INNER, RANK},          INIT_DT_WEIGHT, ALWAYS,          true,  true,  true},
    [W_DT_BIAS] =        {"mixer.dt_proj.bias",         "ssm_dt.bias",         {INNER},                INIT_DT_BIAS,   ALWAYS,          true,  false, false},
    [W_A_LOG] =          {"mixer.A_log",                "ssm_a",               {INNER, STATE},         INIT_A_LOG,     ALWAYS,          true,  false, false},
    [W_D] =              {"mixer.D",                    "ssm_d",               {INNER},                INIT_ONE,       ALWAYS,          true,  false, false},
    [W_OUT_PROJ] =       {"mixer.out_proj.weight",      "ssm_out.weight",      {MODEL, INNER},         INIT_OUT,       ALWAYS,          true,  true,  true},
    [W_OUT_PROJ_BIAS] =  {"mixer.out_proj.bias",        "ssm_out.bias",        {MODEL},                INIT_ZERO,      PROJECTION_BIAS, true,  false, false},
    [W_INPUT] =          {"input_proj.weight",          NULL,                  {MODEL, INPUTS},        INIT_FAN_IN,    FRAMES,          false, true,  true},
    [W_INPUT_BIAS] =     {"input_proj.bias",            NULL,                  {MODEL},                INIT_ZERO,      FRAMES,          false, false, false},
    [W_HEAD] =           {"head.weight",                NULL,                  {OUTPUTS, MODEL},       INIT_FAN_IN,    HEAD,            false, true,  true},
    [W_HEAD_BIAS] =      {"head.bias",                  NULL,                  {OUTPUTS},              INIT_ZERO,      HEAD,            false, false, false},
    [W_NORM_F_BIAS] =    {"backbone.norm_f.bias",       NULL,                  {MODEL},                INIT_ZERO,      LAYER_NORM,      false, false, false},
    [W_NORM_BIAS] =      {"norm.bias",                  NULL,                  {MODEL},                INIT_ZERO,      LAYER_NORM,      true,  false, false},
};
/* clang-format on */

/* The one name that the original checkpoints have otherwise. */
#define ORIGINAL_EMBEDDING "backbone.embedding.weight"

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
  case LAYER_NORM: return c->layer_norm;
  case FRAMES: return ends->inputs > 0;
  case HEAD: return ends->outputs > 0;
  }
  return false;
}

static void add_weight(weights_layout *l, const clm_model_config *c, int layer, weight_id id) {
  weight *w = &l->items[l->item_count];
  *w = (weight){.id = id, .layer = layer, .dtype = CLM_F32, .count = 1};
  for (; w->rank < 3 && specs[id].shape[w->rank] != NONE; w->rank++) {
    w->shape[w->rank] = dim_size(c, &l->ends, specs[id].shape[w->rank]);
    w->count *= (size_t)w->shape[w->rank];
  }
  l->index[layer * W_COUNT + (int)id] = l->item_count++;
  l->parameters += (int64_t)w->count;
}

static size_t bytes_of(const weight *w) { return w->count * clm_dtype_size(w->dtype); }

/* Up to where the next thing begins. */
static size_t padded(size_t bytes) {
  const size_t line = ALIGN_FLOATS * sizeof(float);
  return (bytes + line - 1) / line * line;
}

static size_t scale_bytes(const weight *w) { return w->dtype == CLM_I8 ? (size_t)w->shape[0] * sizeof(float) : 0; }

/* One after another, as their dtypes ask for. */
static void place_all(weights_layout *l) {
  l->total = l->decayed = 0;
  for (size_t i = 0; i < l->item_count; i++) {
    weight *w = &l->items[i];
    w->offset = l->total;
    l->total += padded(bytes_of(w)) / sizeof(float);
    w->scales = l->total;
    l->total += padded(scale_bytes(w)) / sizeof(float);
    if (specs[w->id].decay) l->decayed = l->total;
  }
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
  for (int decay = 1; decay >= 0; decay--)
    for (int layer = 0; layer < c->n_layer; layer++)
      for (int id = 0; id < W_COUNT; id++)
        if (specs[id].decay == decay && is_present(c, &ends, specs[id].present) && (specs[id].layer || layer == 0))
          add_weight(l, c, layer, (weight_id)id);
  place_all(l);
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

void weights_original_name(const weight *w, char name[WEIGHT_NAME_MAX]) {
  if (w->id == W_EMBEDDING) snprintf(name, WEIGHT_NAME_MAX, "%s", ORIGINAL_EMBEDDING);
  else weights_name(w, name);
}

static void gguf_name(const weight *w, char name[WEIGHT_NAME_MAX]) {
  const char *own = specs[w->id].gguf ? specs[w->id].gguf : "";
  if (specs[w->id].layer) snprintf(name, WEIGHT_NAME_MAX, "blk.%d.%s", w->layer, own);
  else snprintf(name, WEIGHT_NAME_MAX, "%s", own);
}

bool weights_are_f32(const weights_layout *l) {
  for (size_t i = 0; i < l->item_count; i++)
    if (l->items[i].dtype != CLM_F32) return false;
  return true;
}

static clm_tensor scales_of(const weight *w, clm_buffer *flat) {
  return clm_tensor_of(flat, w->scales * sizeof(float), CLM_F32, 1, w->shape);
}

clm_tensor weights_tensor(const weights_layout *l, clm_buffer *flat, size_t item) {
  const weight *w = &l->items[item];
  return clm_tensor_of(flat, w->offset * sizeof(float), w->dtype, w->rank, w->shape);
}

bool weights_find(const weights_layout *l, clm_buffer *flat, const char *name, clm_tensor *view) {
  char candidate[WEIGHT_NAME_MAX];
  for (size_t i = 0; i < l->item_count; i++) {
    const weight *w = &l->items[i];
    weights_name(w, candidate);
    const size_t length = strlen(candidate);
    if (strncmp(candidate, name, length) != 0) continue;
    const bool scale = w->dtype == CLM_I8 && strcmp(name + length, "_scale") == 0;
    if (!scale && name[length]) continue;
    *view = scale ? scales_of(w, flat) : weights_tensor(l, flat, i);
    return true;
  }
  return false;
}

clm_tensor weights_view(const weights_layout *l, clm_buffer *flat, int layer, weight_id id) {
  size_t item = l->index[layer * W_COUNT + (int)id];
  if (item == SIZE_MAX || !flat) return (clm_tensor){0};
  const weight *w = &l->items[item];
  int64_t shape[3];
  int rank = 0; /* without the dimension of size 1 in the middle of conv1d.weight */
  for (int i = 0; i < w->rank; i++)
    if (specs[id].shape[i] != ONE) shape[rank++] = w->shape[i];
  return clm_tensor_of(flat, w->offset * sizeof(float), w->dtype, rank, shape);
}

clm_tensor weights_scale(const weights_layout *l, clm_buffer *flat, int layer, weight_id id) {
  size_t item = l->index[layer * W_COUNT + (int)id];
  if (item == SIZE_MAX || !flat || l->items[item].dtype != CLM_I8) return (clm_tensor){0};
  return scales_of(&l->items[item], flat);
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

/* ---- From files and to them ---- */

/* By a name as weights_name gives it, or without "backbone." (a base model saved by itself), or below "model." */
static const source_tensor *find_named(const source *from, const char *name) {
  static const char backbone[] = "backbone.";
  const size_t skip = strncmp(name, backbone, sizeof backbone - 1) == 0 ? sizeof backbone - 1 : 0;
  const char *const prefixes[][2] = {{"", name}, {"", name + skip}, {"model.", name}, {"model.", name + skip}};
  char other[WEIGHT_NAME_MAX + 8];
  const source_tensor *t = NULL;
  for (size_t i = 0; !t && i < sizeof prefixes / sizeof *prefixes; i++) {
    snprintf(other, sizeof other, "%s%s", prefixes[i][0], prefixes[i][1]);
    t = source_find(from, other);
  }
  return t;
}

/* `name` becomes what is looked for first. */
static const source_tensor *find(const source *from, const weight *w, char name[WEIGHT_NAME_MAX]) {
  char original[WEIGHT_NAME_MAX];
  if (from->naming == NAMING_GGUF) {
    gguf_name(w, name);
    return source_find(from, name);
  }
  weights_name(w, name);
  weights_original_name(w, original);
  const source_tensor *t = find_named(from, name);
  return t ? t : find_named(from, original);
}

static const source_tensor *find_id(const source *from, weight_id id) {
  char name[WEIGHT_NAME_MAX];
  return find(from, &(weight){.id = id}, name);
}

static void print_shape(char *text, size_t size, int rank, const int64_t *shape) {
  size_t at = (size_t)snprintf(text, size, "(");
  for (int i = 0; i < rank && at < size; i++)
    at += (size_t)snprintf(text + at, size - at, i ? ", %lld" : "%lld", (long long)shape[i]);
  if (at < size) snprintf(text + at, size - at, ")");
}

/* Dimensions of size 1 aside: conv1d.weight has one in the middle, or has not. */
static bool same_shape(const source_tensor *t, const weight *w) {
  int i = 0, k = 0;
  for (;;) {
    while (i < t->rank && t->shape[i] == 1) i++;
    while (k < w->rank && w->shape[k] == 1) k++;
    if (i == t->rank || k == w->rank) return i == t->rank && k == w->rank;
    if (t->shape[i++] != w->shape[k++]) return false;
  }
}

/* The tensor that holds this parameter, in the right shape and in a dtype that is read. */
static clm_status locate(clm_context *ctx, const weights_layout *l, const source *from, const weight *w,
                         const source_tensor **found) {
  char name[WEIGHT_NAME_MAX], have[96], want[96];
  const source_tensor *t = find(from, w, name);
  const bool tied = l->index[W_LM_HEAD] == SIZE_MAX;
  if (!t && w->id == W_EMBEDDING && tied) t = find_id(from, W_LM_HEAD); /* one of the two is stored, whichever */
  if (!t) return context_fail(ctx, CLM_BAD_FORMAT, "%s has no tensor \"%s\"", from->path, name);
  if (!same_shape(t, w)) {
    print_shape(have, sizeof have, t->rank, t->shape);
    print_shape(want, sizeof want, w->rank, w->shape);
    return context_fail(ctx, CLM_BAD_FORMAT, "%s: tensor \"%s\" has shape %s, %s expects %s", t->from->path, t->name,
                        have, from->naming == NAMING_GGUF ? "the configuration" : "config.json", want);
  }
  if (t->dtype == SOURCE_OTHER)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: tensor \"%s\" has dtype %s, expected F32, F16, BF16%s",
                        t->from->path, t->name, t->dtype_name, from->naming == NAMING_GGUF ? " or Q8_0" : "");
  *found = t;
  return CLM_OK;
}

/* Of a tensor's values as f32; two that are equal have one hash. */
static clm_status hash_values(clm_context *ctx, const source_tensor *t, XXH128_hash_t *hash) {
  const size_t block = source_block_elements(t->dtype), block_bytes = source_block_bytes(t->dtype);
  const size_t bytes = PIECE / block * block_bytes;
  XXH3_state_t *state = XXH3_createState();
  char *raw = malloc(bytes);
  float *values = malloc(PIECE * sizeof *values);
  clm_status status = state && raw && values && XXH3_128bits_reset(state) == XXH_OK
                          ? CLM_OK
                          : context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", t->from->path);
  for (size_t at = 0, n; at < t->bytes && !status; at += n) {
    n = t->bytes - at < bytes ? t->bytes - at : bytes;
    status = source_read(ctx, t, at, n, raw);
    if (status) break;
    const size_t count = n / block_bytes * block;
    convert(&(conversion){.from = t->dtype}, raw, count, values);
    for (size_t i = 0; i < count; i++) values[i] += 0.0f; /* -0 is 0 */
    XXH3_128bits_update(state, values, count * sizeof *values);
  }
  if (status == CLM_OK) *hash = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  free(raw);
  free(values);
  return status;
}

clm_status weights_check_tie(clm_context *ctx, const source *from, clm_model_config *c) {
  const source_tensor *head = find_id(from, W_LM_HEAD), *embedding = find_id(from, W_EMBEDDING);
  if (c->untied_head || !head || !embedding || source_same_bytes(head, embedding)) return CLM_OK;
  if (head->dtype == SOURCE_OTHER || embedding->dtype == SOURCE_OTHER) return CLM_OK; /* locate refuses one of them */
  XXH128_hash_t hashes[2];
  TRY(hash_values(ctx, embedding, &hashes[0]));
  TRY(hash_values(ctx, head, &hashes[1]));
  if (XXH128_isEqual(hashes[0], hashes[1])) return CLM_OK;
  c->untied_head = true;
  context_log(ctx, CLM_LOG_WARNING,
              "%s: the configuration ties the head to the embedding, but \"%s\" has other values than \"%s\": they "
              "are not tied",
              from->path, head->name, embedding->name);
  return CLM_OK;
}

static clm_dtype held_as(const source_tensor *t, clm_weights_type type) {
  if (type == CLM_WEIGHTS_INT8) return CLM_I8;
  if (type == CLM_WEIGHTS_F16 || (type == CLM_WEIGHTS_AS_STORED && t->dtype == SOURCE_F16)) return CLM_F16;
  if (type == CLM_WEIGHTS_BF16 || (type == CLM_WEIGHTS_AS_STORED && t->dtype == SOURCE_BF16)) return CLM_BF16;
  return CLM_F32;
}

clm_status weights_layout_fit(clm_context *ctx, weights_layout *l, const source *from, clm_weights_type type) {
  for (size_t i = 0; i < l->item_count; i++) {
    weight *w = &l->items[i];
    const source_tensor *t;
    TRY(locate(ctx, l, from, w, &t));
    w->dtype = specs[w->id].matrix ? held_as(t, type) : CLM_F32;
  }
  place_all(l);
  return CLM_OK;
}

/* Elements of a row, and the rows that are converted at once: whole blocks of every dtype. */
static size_t row_elements(const weight *w) { return w->count / (size_t)w->shape[0]; }
static size_t rows_at_once(const weight *w) {
  const size_t rows = PIECE / row_elements(w) / ROWS * ROWS;
  return rows ? rows : ROWS;
}

/* What a pass over all parameters works with. */
typedef struct loading {
  clm_context *context;
  const clm_model_load_options *options;
  clm_buffer *flat;
  uint64_t done, total; /* bytes as stored */
  char *raw, *piece;    /* elements that are converted at once: as stored and as held; those of rows, f32 */
  char *integers;       /* of these */
} loading;

/* The next elements of a tensor as they are stored. */
static clm_status fetch(loading *l, const source_tensor *t, size_t at, size_t count, const void **in) {
  const size_t from = at / source_block_elements(t->dtype) * source_block_bytes(t->dtype),
               bytes = count / source_block_elements(t->dtype) * source_block_bytes(t->dtype);
  *in = l->raw;
  TRY(source_read(l->context, t, from, bytes, l->raw));
  l->done += bytes;
  return CLM_OK;
}

/* Elements [at, at + count) of a tensor: straight into the buffer where the host can address it. */
static clm_status load_piece(loading *l, const weight *w, const source_tensor *t, size_t at, size_t count,
                             size_t *strange) {
  const conversion c = {t->dtype, w->dtype, w->id == W_A_LOG && t->from->naming == NAMING_GGUF};
  const size_t to = w->offset * sizeof(float) + at * clm_dtype_size(w->dtype);
  const void *in;
  TRY(fetch(l, t, at, count, &in));
  if (l->flat->host) {
    *strange += convert(&c, in, count, (char *)l->flat->host + to);
    return CLM_OK;
  }
  *strange += convert(&c, in, count, l->piece);
  return clm_buffer_write(l->flat, to, count * clm_dtype_size(w->dtype), l->piece);
}

/* Whole rows, as integers and scales. */
static clm_status quantize_piece(loading *l, const weight *w, const source_tensor *t, size_t at, size_t count,
                                 size_t *strange) {
  const conversion c = {t->dtype, CLM_F32, false};
  const size_t row = row_elements(w), rows = count / row, first = at / row;
  const void *in;
  float *values = (float *)(void *)l->piece, *scales = (float *)(void *)(l->integers + padded(count));
  TRY(fetch(l, t, at, count, &in));
  *strange += convert(&c, in, count, values);
  for (size_t i = 0; i < rows; i++) scales[i] = quantize_row(values + i * row, row, (int8_t *)l->integers + i * row);
  TRY(clm_buffer_write(l->flat, w->offset * sizeof(float) + at, count, l->integers));
  return clm_buffer_write(l->flat, (w->scales + first) * sizeof(float), rows * sizeof(float), scales);
}

static clm_status load_one(loading *l, const weight *w, const source_tensor *t) {
  const bool quantized = w->dtype == CLM_I8;
  const size_t most = quantized ? rows_at_once(w) * row_elements(w) : PIECE;
  size_t strange = 0;
  for (size_t at = 0, count; at < w->count; at += count) {
    count = w->count - at < most ? w->count - at : most;
    TRY((quantized ? quantize_piece : load_piece)(l, w, t, at, count, &strange));
    if (l->options->progress && !l->options->progress(l->options->user, l->done, l->total))
      return context_fail(l->context, CLM_INTERRUPTED, "%s: loading was stopped", t->from->path);
  }
  if (strange)
    context_log(l->context, CLM_LOG_WARNING, "%s: %zu of %zu values of tensor \"%s\" are not finite", t->from->path,
                strange, w->count, t->name);
  static const char zeros[ALIGN_FLOATS * sizeof(float)];
  const size_t bytes = bytes_of(w), scales = scale_bytes(w);
  TRY(clm_buffer_write(l->flat, w->offset * sizeof(float) + bytes, padded(bytes) - bytes, zeros));
  return clm_buffer_write(l->flat, w->scales * sizeof(float) + scales, padded(scales) - scales, zeros);
}

/* The most elements that are converted at once. */
static size_t most_elements(const weights_layout *layout) {
  size_t most = PIECE;
  for (size_t i = 0; i < layout->item_count; i++) {
    const weight *w = &layout->items[i];
    const size_t rows = w->dtype == CLM_I8 ? rows_at_once(w) * row_elements(w) : 0;
    if (rows > most) most = rows;
  }
  return most;
}

static clm_status load_all(loading *l, const weights_layout *layout, const source *from) {
  const source_tensor *t;
  for (size_t i = 0; i < layout->item_count; i++) {
    TRY(locate(l->context, layout, from, &layout->items[i], &t));
    l->total += t->bytes;
  }
  for (size_t i = 0; i < layout->item_count; i++) {
    TRY(locate(l->context, layout, from, &layout->items[i], &t));
    TRY(load_one(l, &layout->items[i], t));
  }
  return CLM_OK;
}

clm_status weights_load(clm_context *ctx, const weights_layout *layout, const source *from,
                        const clm_model_load_options *options, clm_buffer *flat) {
  loading l = {.context = ctx, .options = options, .flat = flat};
  const size_t most = most_elements(layout);
  l.raw = malloc(most * sizeof(float));
  l.piece = malloc(most * sizeof(float));
  l.integers = malloc(padded(most) + most * sizeof(float)); /* rows may be of one element */
  clm_status status;
  if (l.raw && l.piece && l.integers) status = load_all(&l, layout, from);
  else status = context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", from->path);
  free(l.raw);
  free(l.piece);
  free(l.integers);
  return status;
}

static const char *stored_name(clm_dtype dtype) {
  return dtype == CLM_F16 ? "F16" : dtype == CLM_BF16 ? "BF16" : "F32";
}

/* Matrices in i8 as the f32 that they stand for, one behind the other: rows of a table by all their numbers. */
static clm_status dequantize(clm_context *ctx, const weights_layout *l, clm_buffer *flat, clm_buffer *values,
                             clm_tensor numbers) {
  size_t at = 0;
  for (size_t i = 0; i < l->item_count; i++) {
    const weight *w = &l->items[i];
    if (w->dtype != CLM_I8) continue;
    TRY(clm_embedding(
        ctx, &(clm_embedding_args){.ids = clm_tensor_slice(numbers, 0, 0, w->shape[0]),
                                   .table = clm_tensor_of(flat, w->offset * sizeof(float), CLM_I8, w->rank, w->shape),
                                   .out = clm_tensor_of(values, at, CLM_F32, w->rank, w->shape),
                                   .table_scale = scales_of(w, flat)}));
    at += w->count * sizeof(float);
  }
  return CLM_OK;
}

/* In *values, of `bytes` bytes; 0: there are none. */
static clm_status make_values(clm_context *ctx, const weights_layout *l, clm_buffer *flat, size_t bytes, int64_t rows,
                              clm_buffer **values) {
  if (bytes == 0) return CLM_OK;
  clm_buffer *numbers = NULL;
  int32_t *all = malloc((size_t)rows * sizeof *all);
  clm_status status = all ? CLM_OK : context_fail(ctx, CLM_OUT_OF_MEMORY, "model: out of host memory");
  for (int64_t i = 0; all && i < rows; i++) all[i] = (int32_t)i;
  if (status == CLM_OK) status = clm_buffer_create(ctx, (size_t)rows * sizeof *all, &numbers);
  if (status == CLM_OK) status = clm_buffer_write(numbers, 0, (size_t)rows * sizeof *all, all);
  if (status == CLM_OK) status = clm_buffer_create(ctx, bytes, values);
  if (status == CLM_OK) status = dequantize(ctx, l, flat, *values, clm_tensor_of(numbers, 0, CLM_I32, 1, &rows));
  clm_buffer_destroy(&numbers);
  free(all);
  return status;
}

clm_status weights_save(clm_context *ctx, const weights_layout *l, const char *path, bool original_names,
                        clm_buffer *flat) {
  clm_buffer *values = NULL;
  size_t bytes = 0;
  int64_t rows = 0;
  safetensor *tensors = calloc(l->item_count, sizeof *tensors);
  char(*names)[WEIGHT_NAME_MAX] = calloc(l->item_count, sizeof *names);
  clm_status status;
  if (tensors && names) {
    for (size_t i = 0; i < l->item_count; i++) {
      const weight *w = &l->items[i];
      (original_names ? weights_original_name : weights_name)(w, names[i]);
      tensors[i] = (safetensor){.name = names[i],
                                .dtype = stored_name(w->dtype),
                                .rank = w->rank,
                                .buffer = flat,
                                .offset = w->offset * sizeof(float),
                                .bytes = bytes_of(w)};
      memcpy(tensors[i].shape, w->shape, sizeof w->shape);
      if (w->dtype != CLM_I8) continue;
      tensors[i].bytes = w->count * sizeof(float);
      tensors[i].offset = bytes;
      bytes += tensors[i].bytes;
      rows = w->shape[0] > rows ? w->shape[0] : rows;
    }
    status = make_values(ctx, l, flat, bytes, rows, &values);
    for (size_t i = 0; i < l->item_count; i++)
      if (l->items[i].dtype == CLM_I8) tensors[i].buffer = values;
    if (status == CLM_OK) status = safetensors_write(ctx, path, tensors, l->item_count, NULL);
  } else status = context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  clm_buffer_destroy(&values);
  free(names);
  free(tensors);
  return status;
}
