#include "model/weights.h"
#include "core/arith.h"
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

#define ALIGN_FLOATS 16                /* every parameter begins on a cache line                      */
#define PIECE        ((size_t)1 << 20) /* elements that are converted at once: whole blocks of a dtype */
#define ROWS         ((size_t)32)      /* of any length: whole blocks too                             */

/* Random sequences of a block's parameters; those of layers in parallel to the first are far from all others. */
#define STREAMS_PER_BLOCK 15
#define STREAMS_PER_PART  ((uint64_t)1 << 32)

static size_t bytes_of(const weight *w) { return w->count * clm_dtype_size(w->dtype); }

/* Up to where the next thing begins. */
static size_t padded(size_t bytes) { return (size_t)round_up((int64_t)bytes, ALIGN_FLOATS * (int64_t)sizeof(float)); }

/* A matrix may be of several experts, (experts, rows, row). */
static size_t row_elements(const weight *w) { return (size_t)w->shape[w->rank - 1]; }
static int64_t rows_of(const weight *w) { return (int64_t)(w->count / row_elements(w)); }

static size_t scale_bytes(const weight *w) { return w->dtype == CLM_I8 ? (size_t)rows_of(w) * sizeof(float) : 0; }

/* One after another, as their dtypes ask for. */
static void place_all(weights_layout *l) {
  l->total = l->decayed = 0;
  for (size_t i = 0; i < l->item_count; i++) {
    weight *w = &l->items[i];
    w->offset = l->total;
    l->total += padded(bytes_of(w)) / sizeof(float);
    w->scales = l->total;
    l->total += padded(scale_bytes(w)) / sizeof(float);
    if (w->param.decay) l->decayed = l->total;
  }
}

/* As in a file: a depthwise weight has a dimension of 1 in the middle there. */
static weight weight_of(const weights_owner *owner, int id, const param *p) {
  weight w = {.param = *p, .owner = *owner, .id = id, .dtype = CLM_F32, .count = param_count(p)};
  for (int i = 0; i < p->rank; i++) {
    if (p->depthwise && i == 1) w.shape[w.rank++] = 1;
    w.shape[w.rank++] = p->shape[i];
  }
  return w;
}

static int compare(int a, int b) { return (a > b) - (a < b); }

/* The model's own are in the list of block 0. */
static int by_place(const void *left, const void *right) {
  const weight *a = left, *b = right;
  int order = compare(b->param.decay, a->param.decay);
  if (!order) order = compare(weight_block(a), weight_block(b));
  if (!order) order = compare(weight_part(a), weight_part(b));
  return order ? order : compare((int)a->param.number, (int)b->param.number);
}

clm_status weights_layout_make(clm_context *ctx, const weights_owner *owners, size_t count, weights_layout *l) {
  *l = (weights_layout){.items = calloc(count * PARAMS_MAX, sizeof *l->items)};
  if (!l->items) return context_fail(ctx, CLM_OUT_OF_MEMORY, "model: out of host memory");
  for (size_t i = 0; i < count; i++)
    for (int id = 0; id < PARAMS_MAX; id++) {
      const param *p = &owners[i].params[id];
      if (!p->name) continue;
      weight *w = &l->items[l->item_count++];
      *w = weight_of(&owners[i], id, p);
      w->owner.params = NULL; /* the table need not stay */
      l->parameters += (int64_t)w->count;
    }
  qsort(l->items, l->item_count, sizeof *l->items, by_place);
  weight *shorter = realloc(l->items, l->item_count * sizeof *shorter);
  if (shorter) l->items = shorter;
  place_all(l);
  return CLM_OK;
}

void weights_layout_free(weights_layout *l) {
  free(l->items);
  *l = (weights_layout){0};
}

/* "backbone.layers.3.mixer.", or nothing for what is the model's own. */
static void write_name(const weight *w, const char *block, bool mixer, const char *name, char out[WEIGHT_NAME_MAX]) {
  char part[24] = "";
  if (mixer && w->owner.part >= 0) {
    if (w->owner.parts == 1) snprintf(part, sizeof part, "mixer.");
    else snprintf(part, sizeof part, "mixers.%d.", w->owner.part);
  }
  if (w->owner.block < 0) snprintf(out, WEIGHT_NAME_MAX, "%s", name);
  else snprintf(out, WEIGHT_NAME_MAX, "%s.%d.%s%s", block, w->owner.block, part, name);
}

void weights_name(const weight *w, char name[WEIGHT_NAME_MAX]) {
  write_name(w, "backbone.layers", true, w->param.name, name);
}

static void gguf_name(const weight *w, char name[WEIGHT_NAME_MAX]) {
  write_name(w, "blk", false, w->param.gguf ? w->param.gguf : "", name);
}

/* Block 2 i is the mixer of layer i, with its norm; the block after it the MLP, with norm2. */
static void pair_name(const weight *w, char name[WEIGHT_NAME_MAX]) {
  static const char norm[] = "norm";
  const bool second = w->owner.block % 2;
  const char *own = w->param.name, *mlp = w->param.original ? w->param.original : own;
  if (w->owner.part >= 0)
    snprintf(name, WEIGHT_NAME_MAX, "backbone.layers.%d.%s.%s", w->owner.block / 2, second ? "mlp" : "mixer",
             second ? mlp : own);
  else
    snprintf(name, WEIGHT_NAME_MAX, "backbone.layers.%d.%s%s%s", w->owner.block / 2, norm, second ? "2" : "",
             own + strlen(norm));
}

/* What families call a parameter where that is not its own name in its kind's module. */
typedef struct other_name {
  source_naming naming;
  const char *own;
  const char *theirs[2]; /* below the layer. With %d each expert has a tensor, or two, a half of the rows each */
  int half;              /* as param.half */
} other_name;

static const other_name other_names[] = {
    {NAMING_HYBRID,
     "input_linear.weight",
     {"feed_forward.experts.%d.gate_proj.weight", "feed_forward.experts.%d.up_proj.weight"},
     0},
    {NAMING_HYBRID, "output_linear.weight", {"feed_forward.experts.%d.down_proj.weight"}, 0},
    {NAMING_GRANITE, "gate_proj.weight", {"shared_mlp.input_linear.weight"}, 1},
    {NAMING_GRANITE, "up_proj.weight", {"shared_mlp.input_linear.weight"}, 2},
    {NAMING_GRANITE, "down_proj.weight", {"shared_mlp.output_linear.weight"}, 0},
    {NAMING_GRANITE, "router.weight", {"block_sparse_moe.router.layer.weight"}, 0},
    {NAMING_GRANITE, "input_linear.weight", {"block_sparse_moe.input_linear.weight"}, 0},
    {NAMING_GRANITE, "output_linear.weight", {"block_sparse_moe.output_linear.weight"}, 0},
    {NAMING_GRANITE, "backbone.norm_f.weight", {"model.norm.weight"}, 0},
    {NAMING_NEMOTRON, "router.weight", {"gate.weight"}, 0},
    {NAMING_NEMOTRON, "router.bias", {"gate.e_score_correction_bias"}, 0},
    {NAMING_NEMOTRON, "input_linear.weight", {"experts.%d.up_proj.weight"}, 0},
    {NAMING_NEMOTRON, "output_linear.weight", {"experts.%d.down_proj.weight"}, 0},
    {NAMING_NEMOTRON, "latent_in.weight", {"fc1_latent_proj.weight"}, 0},
    {NAMING_NEMOTRON, "latent_in.bias", {"fc1_latent_proj.bias"}, 0},
    {NAMING_NEMOTRON, "latent_out.weight", {"fc2_latent_proj.weight"}, 0},
    {NAMING_NEMOTRON, "latent_out.bias", {"fc2_latent_proj.bias"}, 0},
};

/* NULL: it has none. */
static const other_name *find_other(source_naming naming, const weight *w) {
  for (size_t i = 0; i < sizeof other_names / sizeof *other_names; i++)
    if (other_names[i].naming == naming && strcmp(other_names[i].own, w->param.name) == 0) return &other_names[i];
  return NULL;
}

/* Block 2 i is the mixers of layer i, block 2 i + 1 its MLP or experts, each with its norm. */
static void hybrid_name(source_naming naming, const weight *w, int piece, char name[WEIGHT_NAME_MAX]) {
  static const char *const norms[][2] = {{"input", "pre_ff"}, {"input", "post_attention"}};
  const other_name *other = find_other(naming, w);
  const char *own = w->param.name;
  char text[WEIGHT_NAME_MAX - 32];
  if (w->owner.block < 0) {
    snprintf(name, WEIGHT_NAME_MAX, "%s", other ? other->theirs[0] : w->param.hybrid ? w->param.hybrid : own);
    return;
  }
  if (other && other->theirs[1]) snprintf(text, sizeof text, other->theirs[piece % 2], piece / 2);
  else if (other) snprintf(text, sizeof text, other->theirs[0], piece);
  else if (w->owner.part < 0)
    snprintf(text, sizeof text, "%s_layernorm%s", norms[naming == NAMING_GRANITE][w->owner.block % 2],
             strchr(own, '.'));
  else snprintf(text, sizeof text, "%s.%s", w->owner.module ? w->owner.module : "mixer", own);
  snprintf(name, WEIGHT_NAME_MAX, "model.layers.%d.%s", w->owner.block / 2, text);
}

/* The MLP beside experts is what all of them share. */
static void nemotron_name(const weight *w, int piece, char name[WEIGHT_NAME_MAX]) {
  const other_name *other = find_other(NAMING_NEMOTRON, w);
  char text[WEIGHT_NAME_MAX - 40];
  if (w->owner.block < 0 || w->owner.part < 0) {
    weights_name(w, name);
    return;
  }
  if (other) snprintf(text, sizeof text, other->theirs[0], piece);
  else snprintf(text, sizeof text, "%s%s", w->owner.parts > 1 ? "shared_experts." : "", w->param.name);
  snprintf(name, WEIGHT_NAME_MAX, "backbone.layers.%d.mixer.%s", w->owner.block, text);
}

/* Tensors that hold it there, each a run of its elements. */
static int pieces_in(source_naming naming, const weight *w) {
  const other_name *other = find_other(naming, w);
  if (!other || !strchr(other->theirs[0], '%')) return 1;
  return (int)w->shape[0] * (other->theirs[1] ? 2 : 1);
}

/* One of them, as a weight of its own shape. */
static weight piece_of(const weight *w, int pieces) {
  weight piece = *w;
  if (pieces == 1) return piece;
  piece.rank = w->rank - 1;
  piece.count = w->count / (size_t)pieces;
  piece.shape[0] = (int64_t)(piece.count / row_elements(w));
  piece.shape[1] = w->shape[w->rank - 1];
  return piece;
}

static void name_in(source_naming naming, const weight *w, int piece, char name[WEIGHT_NAME_MAX]) {
  if (naming == NAMING_GGUF) gguf_name(w, name);
  else if (naming == NAMING_ORIGINAL_MLP && w->owner.block >= 0) pair_name(w, name);
  else if (naming == NAMING_HYBRID || naming == NAMING_GRANITE) hybrid_name(naming, w, piece, name);
  else if (naming == NAMING_NEMOTRON) nemotron_name(w, piece, name);
  else if (naming != NAMING_PYTORCH && w->param.aliases[0])
    snprintf(name, WEIGHT_NAME_MAX, "%s", w->param.aliases[0]);
  else weights_name(w, name);
}

/* Whether it is half of a tensor there. */
static int half_in(source_naming naming, const weight *w) {
  const other_name *other = find_other(naming, w);
  return naming == NAMING_ORIGINAL_MLP ? w->param.half : other ? other->half : 0;
}

bool weights_are_f32(const weights_layout *l) {
  for (size_t i = 0; i < l->item_count; i++)
    if (l->items[i].dtype != CLM_F32) return false;
  return true;
}

clm_dtype weights_matrix_dtype(const weights_layout *l) {
  for (size_t i = 0; i < l->item_count; i++)
    if (l->items[i].param.matrix && l->items[i].owner.part >= 0) return l->items[i].dtype;
  return CLM_F32;
}

static clm_tensor scales_of(const weight *w, clm_buffer *flat) {
  return clm_tensor_of(flat, w->scales * sizeof(float), CLM_F32, 1, (int64_t[]){rows_of(w)});
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

static clm_tensor view_of(const weight *w, clm_buffer *flat) {
  return clm_tensor_of(flat, w->offset * sizeof(float), w->dtype, w->param.rank, w->param.shape);
}

void weights_bind(const weights_layout *l, clm_buffer *flat) {
  for (size_t i = 0; i < l->item_count; i++) {
    const weight *w = &l->items[i];
    w->owner.views->value[w->id] = view_of(w, flat);
    if (w->dtype == CLM_I8) w->owner.views->scale[w->id] = scales_of(w, flat);
  }
}

void weights_bind_gradients(const weights_layout *l, clm_buffer *flat) {
  for (size_t i = 0; i < l->item_count; i++) {
    const weight *w = &l->items[i];
    w->owner.views->gradient[w->id] = view_of(w, flat);
  }
}

void weights_initialise(const weights_layout *l, const clm_model_config *c, uint64_t seed, float *flat) {
  memset(flat, 0, l->total * sizeof *flat);
  for (size_t i = 0; i < l->item_count; i++) { /* a sequence of its own for each: independent of the layout */
    const weight *w = &l->items[i];
    if (!w->param.init) continue;
    rng r = rng_seed(seed, (uint64_t)weight_block(w) * STREAMS_PER_BLOCK +
                               (uint64_t)weight_part(w) * STREAMS_PER_PART + w->param.number);
    w->param.init(&w->param, c, &r, flat + w->offset);
  }
}

/* ---- From files and to them ---- */

/* By a name as weights_name gives it, or without "backbone." or "model." (a base model saved by itself), or below
 * "model." */
static const source_tensor *find_named(const source *from, const char *name) {
  static const char backbone[] = "backbone.", below[] = "model.";
  const size_t skip = strncmp(name, backbone, sizeof backbone - 1) == 0 ? sizeof backbone - 1
                      : strncmp(name, below, sizeof below - 1) == 0     ? sizeof below - 1
                                                                        : 0;
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
static const source_tensor *find(const source *from, const weight *w, int piece, char name[WEIGHT_NAME_MAX]) {
  name_in(from->naming, w, piece, name);
  if (from->naming == NAMING_GGUF) return source_find(from, name);
  const source_tensor *t = find_named(from, name);
  for (int i = 0; !t && i < PARAM_ALIASES && w->param.aliases[i]; i++) t = find_named(from, w->param.aliases[i]);
  return t;
}

source_naming weights_naming(const source *from) {
  static const struct {
    const char *tensor; /* of the first layer's second norm */
    source_naming naming;
  } signs[] = {{"backbone.layers.0.norm2.weight", NAMING_ORIGINAL_MLP},
               {"model.layers.0.pre_ff_layernorm.weight", NAMING_HYBRID},
               {"model.layers.0.shared_mlp.input_linear.weight", NAMING_GRANITE}};
  for (size_t i = 0; from->naming == NAMING_PYTORCH && i < sizeof signs / sizeof *signs; i++)
    if (find_named(from, signs[i].tensor)) return signs[i].naming;
  for (size_t i = 0; from->naming == NAMING_PYTORCH && i < from->count; i++) /* in a layer of any number */
    if (strstr(from->tensors[i].name, ".mixer.experts.0.up_proj.weight")) return NAMING_NEMOTRON;
  return from->naming;
}

const source_tensor *weights_find_own(const source *from, const param *p) {
  char name[WEIGHT_NAME_MAX];
  return find(from, &(weight){.param = *p, .owner = {.block = -1, .part = -1}}, 0, name);
}

static void print_shape(char *text, size_t size, int rank, const int64_t *shape) {
  size_t at = (size_t)snprintf(text, size, "(");
  for (int i = 0; i < rank && at < size; i++)
    at += (size_t)snprintf(text + at, size - at, i ? ", %lld" : "%lld", (long long)shape[i]);
  if (at < size) snprintf(text + at, size - at, ")");
}

/* Dimensions of size 1 aside: conv1d.weight has one in the middle, or has not. GGUF cuts the weight of a norm of
 * groups into rows. */
static bool same_shape(const source_tensor *t, const weight *w) {
  int i = 0, k = 0;
  if (t->from->naming == NAMING_GGUF && t->rank == 2 && w->rank == 1 && t->shape[0] > 0 &&
      w->shape[0] % t->shape[0] == 0)
    return t->shape[1] == w->shape[0] / t->shape[0];
  for (;;) {
    while (i < t->rank && t->shape[i] == 1) i++;
    while (k < w->rank && w->shape[k] == 1) k++;
    if (i == t->rank || k == w->rank) return i == t->rank && k == w->rank;
    if (t->shape[i++] != w->shape[k++]) return false;
  }
}

/* The tensor that holds this piece of a parameter, in the right shape and in a dtype that is read. */
static clm_status locate(clm_context *ctx, const source *from, const weight *w, int piece, source_tensor *found) {
  char name[WEIGHT_NAME_MAX], have[96], want[96];
  const source_tensor *t = find(from, w, piece, name);
  const int half = half_in(from->naming, w);
  weight whole = piece_of(w, pieces_in(from->naming, w));
  if (half) whole.shape[0] *= 2;
  if (!t) return context_fail(ctx, CLM_BAD_FORMAT, "%s has no tensor \"%s\"", from->path, name);
  if (!same_shape(t, &whole)) {
    print_shape(have, sizeof have, t->rank, t->shape);
    print_shape(want, sizeof want, whole.rank, whole.shape);
    return context_fail(ctx, CLM_BAD_FORMAT, "%s: tensor \"%s\" has shape %s, %s expects %s", t->from->path, t->name,
                        have, from->naming == NAMING_GGUF ? "the configuration" : "config.json", want);
  }
  if (t->dtype == SOURCE_OTHER)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: tensor \"%s\" has dtype %s, expected F32, F16, BF16%s",
                        t->from->path, t->name, t->dtype_name, from->naming == NAMING_GGUF ? " or Q8_0" : "");
  *found = *t;
  if (half) found->bytes /= 2;
  if (half == 2) found->first += found->bytes;
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
    source_tensor t;
    TRY(locate(ctx, from, w, 0, &t));
    w->dtype = w->param.matrix ? held_as(&t, type) : CLM_F32;
  }
  place_all(l);
  return CLM_OK;
}

/* Rows that are converted at once: whole blocks of every dtype. */
static size_t rows_at_once(const weight *w) {
  const size_t rows = PIECE / row_elements(w) / ROWS * ROWS;
  return rows ? rows : ROWS;
}

/* What a pass over all parameters works with. */
typedef struct loading {
  clm_context *context;
  const source *from;
  const clm_model_load_options *options;
  clm_buffer *flat;
  uint64_t done, total; /* bytes as stored */
  char *raw, *piece;    /* elements that are converted at once: as stored and as held; those of rows, f32 */
  char *integers;       /* of these */
  float *values;        /* of those that are scaled */
} loading;

static bool ends_with(const char *text, const char *end) {
  const size_t length = strlen(text), tail = strlen(end);
  return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* Whether the tensor has factors. */
static bool is_scaled(const loading *l, const source_tensor *t) {
  for (size_t i = 0; i < l->from->scales.count; i++)
    if (ends_with(t->name, l->from->scales.items[i].name)) return true;
  return false;
}

/* Elements [at, at + count) times the factors of their rows. */
static void scale_values(const loading *l, const weight *w, const source_tensor *t, size_t at, size_t count,
                         float *values) {
  for (size_t i = 0; i < l->from->scales.count; i++) {
    const source_scale *s = &l->from->scales.items[i];
    if (!ends_with(t->name, s->name)) continue;
    const size_t row = w->count / (size_t)w->shape[0], first = (size_t)s->first * row,
                 end = s->rows ? first + (size_t)s->rows * row : w->count;
    for (size_t k = first > at ? first - at : 0; k < count && at + k < end; k++)
      values[k] = (float)((double)values[k] * s->factor);
  }
}

/* Elements [at, at + count) as they are held, in the dtype that `c` says. */
static size_t convert_piece(const loading *l, const weight *w, const source_tensor *t, const conversion *c,
                            const void *in, size_t at, size_t count, void *out) {
  if (!is_scaled(l, t)) return convert(c, in, count, out);
  const size_t non_finite = convert(&(conversion){c->from, CLM_F32, c->is_A}, in, count, l->values);
  scale_values(l, w, t, at, count, l->values);
  convert(&(conversion){SOURCE_F32, c->to, false}, l->values, count, out);
  return non_finite;
}

/* The next elements of a tensor as they are stored. */
static clm_status fetch(loading *l, const source_tensor *t, size_t at, size_t count, const void **in) {
  const size_t from = at / source_block_elements(t->dtype) * source_block_bytes(t->dtype),
               bytes = count / source_block_elements(t->dtype) * source_block_bytes(t->dtype);
  *in = l->raw;
  TRY(source_read(l->context, t, from, bytes, l->raw));
  l->done += bytes;
  return CLM_OK;
}

/* Elements [at, at + count) of a tensor, of which the parameter's `first` is the first: straight into the buffer
 * where the host can address it. */
static clm_status load_piece(loading *l, const weight *w, const source_tensor *t, size_t first, size_t at,
                             size_t count, size_t *non_finite) {
  const conversion c = {t->dtype, w->dtype, w->param.is_A && t->from->naming == NAMING_GGUF};
  const size_t to = w->offset * sizeof(float) + (first + at) * clm_dtype_size(w->dtype);
  const void *in;
  TRY(fetch(l, t, at, count, &in));
  if (l->flat->host) {
    *non_finite += convert_piece(l, w, t, &c, in, at, count, (char *)l->flat->host + to);
    return CLM_OK;
  }
  *non_finite += convert_piece(l, w, t, &c, in, at, count, l->piece);
  return clm_buffer_write(l->flat, to, count * clm_dtype_size(w->dtype), l->piece);
}

/* Whole rows, as integers and scales. */
static clm_status quantize_piece(loading *l, const weight *w, const source_tensor *t, size_t first, size_t at,
                                 size_t count, size_t *non_finite) {
  const conversion c = {t->dtype, CLM_F32, false};
  const size_t row = row_elements(w), rows = count / row;
  const void *in;
  float *values = (float *)(void *)l->piece, *scales = (float *)(void *)(l->integers + padded(count));
  TRY(fetch(l, t, at, count, &in));
  *non_finite += convert_piece(l, w, t, &c, in, at, count, values);
  for (size_t i = 0; i < rows; i++) scales[i] = quantize_row(values + i * row, row, (int8_t *)l->integers + i * row);
  TRY(clm_buffer_write(l->flat, w->offset * sizeof(float) + first + at, count, l->integers));
  return clm_buffer_write(l->flat, (w->scales + (first + at) / row) * sizeof(float), rows * sizeof(float), scales);
}

/* `count` elements of the parameter, from `first` on. */
static clm_status load_tensor(loading *l, const weight *w, const source_tensor *t, size_t first, size_t count) {
  const bool quantized = w->dtype == CLM_I8;
  const size_t max = quantized ? rows_at_once(w) * row_elements(w) : PIECE;
  size_t non_finite = 0;
  for (size_t at = 0, n; at < count; at += n) {
    n = count - at < max ? count - at : max;
    TRY((quantized ? quantize_piece : load_piece)(l, w, t, first, at, n, &non_finite));
    if (l->options->progress && !l->options->progress(l->options->user, l->done, l->total))
      return context_fail(l->context, CLM_INTERRUPTED, "%s: loading was stopped", t->from->path);
  }
  if (non_finite)
    context_log(l->context, CLM_LOG_WARNING, "%s: %zu of %zu values of tensor \"%s\" are not finite", t->from->path,
                non_finite, count, t->name);
  return CLM_OK;
}

static clm_status load_one(loading *l, const weight *w) {
  static const char zeros[ALIGN_FLOATS * sizeof(float)];
  const int pieces = pieces_in(l->from->naming, w);
  const size_t each = w->count / (size_t)pieces, bytes = bytes_of(w), scales = scale_bytes(w);
  source_tensor t;
  for (int i = 0; i < pieces; i++) {
    TRY(locate(l->context, l->from, w, i, &t));
    TRY(load_tensor(l, w, &t, (size_t)i * each, each));
  }
  TRY(clm_buffer_write(l->flat, w->offset * sizeof(float) + bytes, padded(bytes) - bytes, zeros));
  return clm_buffer_write(l->flat, w->scales * sizeof(float) + scales, padded(scales) - scales, zeros);
}

/* The maximum of elements that are converted at once. */
static size_t max_elements(const weights_layout *layout) {
  size_t max = PIECE;
  for (size_t i = 0; i < layout->item_count; i++) {
    const weight *w = &layout->items[i];
    const size_t rows = w->dtype == CLM_I8 ? rows_at_once(w) * row_elements(w) : 0;
    if (rows > max) max = rows;
  }
  return max;
}

static clm_status load_all(loading *l, const weights_layout *layout) {
  source_tensor t;
  for (size_t i = 0; i < layout->item_count; i++)
    for (int k = 0; k < pieces_in(l->from->naming, &layout->items[i]); k++) {
      TRY(locate(l->context, l->from, &layout->items[i], k, &t));
      l->total += t.bytes;
    }
  for (size_t i = 0; i < layout->item_count; i++) TRY(load_one(l, &layout->items[i]));
  return CLM_OK;
}

clm_status weights_load(clm_context *ctx, const weights_layout *layout, const source *from,
                        const clm_model_load_options *options, clm_buffer *flat) {
  loading l = {.context = ctx, .from = from, .options = options, .flat = flat};
  const size_t max = max_elements(layout);
  l.raw = malloc(max * sizeof(float));
  l.piece = malloc(max * sizeof(float));
  l.integers = malloc(padded(max) + max * sizeof(float)); /* rows may be of one element */
  l.values = malloc(max * sizeof(float));
  clm_status status;
  if (l.raw && l.piece && l.integers && l.values) status = load_all(&l, layout);
  else status = context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", from->path);
  free(l.raw);
  free(l.piece);
  free(l.integers);
  free(l.values);
  return status;
}

static const char *stored_name(clm_dtype dtype) {
  return dtype == CLM_F16 ? "F16" : dtype == CLM_BF16 ? "BF16" : "F32";
}

/* The f32 values of matrices in i8, one after another: rows of a table by all their numbers. */
static clm_status dequantize(clm_context *ctx, const weights_layout *l, clm_buffer *flat, clm_buffer *values,
                             clm_tensor numbers) {
  size_t at = 0;
  for (size_t i = 0; i < l->item_count; i++) {
    const weight *w = &l->items[i];
    if (w->dtype != CLM_I8) continue;
    const int64_t shape[] = {rows_of(w), (int64_t)row_elements(w)};
    TRY(clm_embedding(ctx,
                      &(clm_embedding_args){.ids = clm_tensor_slice(numbers, 0, 0, shape[0]),
                                            .table = clm_tensor_of(flat, w->offset * sizeof(float), CLM_I8, 2, shape),
                                            .out = clm_tensor_of(values, at, CLM_F32, 2, shape),
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

/* What is written of a model's parameters. */
typedef struct saving {
  source_naming naming;
  clm_buffer *flat;
  safetensor *tensors;
  char (*names)[WEIGHT_NAME_MAX];
  size_t count;
  size_t value_bytes; /* of matrices in i8 as f32 */
} saving;

/* The tensors of a parameter, in i8 its values, which lie in a buffer of their own. */
static void add_tensors(saving *s, const weight *w) {
  const int pieces = pieces_in(s->naming, w);
  const weight piece = piece_of(w, pieces);
  const bool integers = w->dtype == CLM_I8;
  const size_t bytes = integers ? piece.count * sizeof(float) : bytes_of(&piece);
  for (int i = 0; i < pieces; i++, s->count++) {
    safetensor *t = &s->tensors[s->count];
    name_in(s->naming, w, i, s->names[s->count]);
    *t = (safetensor){.name = s->names[s->count],
                      .dtype = stored_name(w->dtype),
                      .rank = piece.rank,
                      .buffer = integers ? NULL : s->flat,
                      .offset = (integers ? s->value_bytes : w->offset * sizeof(float)) + (size_t)i * bytes,
                      .bytes = bytes};
    memcpy(t->shape, piece.shape, sizeof piece.shape);
  }
  if (integers) s->value_bytes += w->count * sizeof(float);
}

/* Halves of a tensor become one: the last two, the first half first, with its name and the shape of both. */
static void join_halves(saving *s, int last) {
  safetensor *pair = &s->tensors[s->count - 2];
  if (last == 1) {
    const safetensor second = pair[0];
    pair[0] = pair[1];
    pair[1] = second;
  }
  pair[0].shape[0] *= 2;
  pair[1].name = NULL;
}

static void list_tensors(saving *s, const weights_layout *l) {
  int half = 0; /* of a tensor that has not got its other one yet */
  for (size_t i = 0; i < l->item_count; i++) {
    const int own = half_in(s->naming, &l->items[i]);
    add_tensors(s, &l->items[i]);
    if (half && own) join_halves(s, own);
    half = half ? 0 : own;
  }
}

static clm_status save_tensors(clm_context *ctx, const weights_layout *l, const char *path, saving *s) {
  clm_buffer *values = NULL;
  int64_t rows = 0;
  list_tensors(s, l);
  for (size_t i = 0; i < l->item_count; i++)
    if (l->items[i].dtype == CLM_I8 && rows_of(&l->items[i]) > rows) rows = rows_of(&l->items[i]);
  clm_status status = make_values(ctx, l, s->flat, s->value_bytes, rows, &values);
  for (size_t i = 0; i < s->count; i++)
    if (!s->tensors[i].buffer) s->tensors[i].buffer = values;
  if (status == CLM_OK) status = safetensors_write(ctx, path, s->tensors, s->count, NULL);
  clm_buffer_destroy(&values);
  return status;
}

clm_status weights_save(clm_context *ctx, const weights_layout *l, const char *path, source_naming naming,
                        clm_buffer *flat) {
  size_t count = 0;
  for (size_t i = 0; i < l->item_count; i++) count += (size_t)pieces_in(naming, &l->items[i]);
  saving s = {.naming = naming, .flat = flat};
  s.tensors = calloc(count, sizeof *s.tensors);
  s.names = calloc(count, sizeof *s.names);
  clm_status status = s.tensors && s.names ? save_tensors(ctx, l, path, &s)
                                           : context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  free(s.names);
  free(s.tensors);
  return status;
}
