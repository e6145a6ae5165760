/* The list of a model's blocks as a text: "mamba1 mlp(width=512)". Blocks are separated by spaces, layers that run in
 * parallel by "+", options of a layer are in brackets. */
#include "core/context.h"
#include "core/try.h"
#include "model/blocks.h"
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_LAYERS = 1024, WORD = 40 }; /* layers in a list */

static const char standard[] = "mamba1";

typedef struct listed {
  const layer_kind *kind;
  int64_t options[LAYER_OPTIONS];
  bool parallel; /* to the one before it */
} listed;

typedef struct reader {
  clm_context *context;
  const clm_model_config *config;
  const char *at;
  listed *layers;
  int count, blocks;
} reader;

static clm_status fail(const reader *r, const char *what, const char *expected) {
  return context_fail(r->context, CLM_INVALID_ARGUMENT, "model: layers: %s at \"%.40s\", expected %s", what, r->at,
                      expected);
}

static size_t word_length(const char *text) {
  size_t length = 0;
  while (isalnum((unsigned char)text[length]) || text[length] == '_') length++;
  return length;
}

static void skip_spaces(reader *r) {
  while (isspace((unsigned char)*r->at)) r->at++;
}

static bool take(reader *r, char c) {
  if (*r->at != c) return false;
  r->at++;
  return true;
}

/* One of the words: its place among them. */
static clm_status read_word(reader *r, const layer_option *option, const char *kind, int64_t *value) {
  const size_t length = word_length(r->at);
  int i = 0;
  char list[LAYER_TEXT] = "";
  while (option->words[i] && (strlen(option->words[i]) != length || memcmp(option->words[i], r->at, length))) {
    strncat(list, i ? ", " : "", sizeof list - strlen(list) - 1);
    strncat(list, option->words[i++], sizeof list - strlen(list) - 1);
  }
  if (!option->words[i])
    return context_fail(r->context, CLM_INVALID_ARGUMENT, "model: layers: %s of %s is \"%.20s\", expected one of %s",
                        option->name, kind, r->at, list);
  *value = i;
  r->at += length;
  return CLM_OK;
}

static clm_status read_option(reader *r, listed *l) {
  const layer_option *options = l->kind->options;
  const size_t length = word_length(r->at);
  int i = 0;
  while (options && options[i].name && (strlen(options[i].name) != length || memcmp(options[i].name, r->at, length)))
    i++;
  if (!options || !options[i].name) return fail(r, "an unknown option", "one that the kind of layer has");
  r->at += length;
  if (!take(r, '=')) return fail(r, "no value", "name=number");
  if (options[i].words) return read_word(r, &options[i], l->kind->name, &l->options[i]);
  char *end;
  errno = 0;
  const long long value = strtoll(r->at, &end, 10);
  if (end == r->at || errno || value < options[i].low || value > options[i].high)
    return context_fail(r->context, CLM_INVALID_ARGUMENT,
                        "model: layers: %s of %s is \"%.20s\", expected %" PRId64 " to %" PRId64, options[i].name,
                        l->kind->name, r->at, options[i].low, options[i].high);
  l->options[i] = value;
  r->at = end;
  return CLM_OK;
}

static clm_status read_layer(reader *r, bool parallel) {
  const size_t length = word_length(r->at);
  if (r->count == LIST_LAYERS) return fail(r, "too many layers", "at most 1024");
  listed *l = &r->layers[r->count];
  *l = (listed){.kind = layer_kind_find(r->at, length), .parallel = parallel};
  if (!l->kind) return fail(r, "an unknown kind of layer", layer_kind_names());
  r->count++;
  r->at += length;
  if (take(r, '(')) {
    do TRY(read_option(r, l));
    while (take(r, ','));
    if (!take(r, ')')) return fail(r, "no end of the options", "\")\"");
  }
  if (l->kind->complete) l->kind->complete(r->config, l->options);
  return l->kind->check ? l->kind->check(r->context, r->config, l->options) : CLM_OK;
}

static clm_status read_list(reader *r) {
  for (skip_spaces(r); *r->at; skip_spaces(r)) {
    int parts = 0;
    do {
      if (parts == BLOCK_PARTS) return fail(r, "too many parallel layers", "at most 4");
      TRY(read_layer(r, parts++ > 0));
    } while (take(r, '+'));
    r->blocks++;
    if (*r->at && !isspace((unsigned char)*r->at)) return fail(r, "something else", "a space, \"+\" or \"(\"");
  }
  return r->count ? CLM_OK : fail(r, "no layer", layer_kind_names());
}

/* Those that are 0 are left out: it is what they are by default. */
static char *write_options(const listed *l, char *at) {
  const layer_option *options = l->kind->options;
  bool any = false;
  for (int k = 0; options && options[k].name; k++) {
    const int64_t value = l->options[k];
    if (value == 0) continue;
    at += snprintf(at, WORD, "%c%s=", any ? ',' : '(', options[k].name);
    at +=
        options[k].words ? snprintf(at, WORD, "%s", options[k].words[value]) : snprintf(at, WORD, "%" PRId64, value);
    any = true;
  }
  if (any) at += sprintf(at, ")");
  return at;
}

/* In one spelling; NULL: out of memory. */
static char *write_list(const reader *r) {
  enum { LAYER = WORD * (LAYER_OPTIONS + 1) };
  char *text = malloc((size_t)r->count * LAYER + 1), *at = text;
  for (int i = 0; text && i < r->count; i++) {
    const listed *l = &r->layers[i];
    at += sprintf(at, "%s%.*s", i == 0 ? "" : l->parallel ? "+" : " ", WORD - 2, l->kind->name);
    at = write_options(l, at);
  }
  return text;
}

/* The first layer of block `number`, the list repeated. */
static const listed *listed_block(const reader *r, int64_t number) {
  const listed *l = r->layers;
  for (int64_t skip = number % r->blocks; skip >= 0; l++)
    if (!l->parallel && skip-- == 0) break;
  return l;
}

static int parts_of(const reader *r, const listed *l) {
  int parts = 1;
  while (l + parts < r->layers + r->count && l[parts].parallel) parts++;
  return parts;
}

static clm_status fill(const reader *r, const clm_model_config *c, model_blocks *b) {
  for (int64_t i = 0; i < c->n_layer; i++) b->layer_count += (size_t)parts_of(r, listed_block(r, i));
  b->items = calloc((size_t)c->n_layer, sizeof *b->items);
  b->layers = calloc(b->layer_count, sizeof *b->layers);
  if (!b->items || !b->layers) return context_fail(r->context, CLM_OUT_OF_MEMORY, "model: out of host memory");
  model_layer *next = b->layers;
  b->branched = c->residual_scale != 1;
  for (int64_t i = 0; i < c->n_layer; i++) {
    const listed *l = listed_block(r, i);
    b->items[i] = (model_block){.layers = next, .layer_count = parts_of(r, l)};
    b->branched |= b->items[i].layer_count > 1;
    for (int k = 0; k < b->items[i].layer_count; k++, next++) {
      *next = (model_layer){.kind = l[k].kind, .config = c};
      memcpy(next->options, l[k].options, sizeof next->options);
    }
  }
  return CLM_OK;
}

static bool is_standard(const reader *r) {
  for (int i = 0; i < r->count; i++)
    if (r->layers[i].parallel || strcmp(r->layers[i].kind->name, standard) != 0) return false;
  return true;
}

static clm_status make(reader *r, clm_model_config *c, model_blocks *b) {
  if (!r->layers) return context_fail(r->context, CLM_OUT_OF_MEMORY, "model: out of host memory");
  TRY(read_list(r));
  if (r->blocks > c->n_layer)
    return context_fail(r->context, CLM_INVALID_ARGUMENT, "model: layers lists %d blocks, but n_layer is %" PRId64,
                        r->blocks, c->n_layer);
  TRY(fill(r, c, b));
  c->layers = b->text = is_standard(r) ? NULL : write_list(r);
  if (!b->text && !is_standard(r)) return context_fail(r->context, CLM_OUT_OF_MEMORY, "model: out of host memory");
  return CLM_OK;
}

int64_t blocks_count(const char *text) {
  int64_t count = 0;
  for (; *text; text++) count += !isspace((unsigned char)*text) && (!text[1] || isspace((unsigned char)text[1]));
  return count;
}

clm_status blocks_make(clm_context *ctx, clm_model_config *c, model_blocks *b) {
  *b = (model_blocks){0};
  reader r = {.context = ctx, .config = c, .at = c->layers ? c->layers : standard};
  r.layers = calloc(LIST_LAYERS, sizeof *r.layers);
  clm_status status = make(&r, c, b);
  free(r.layers);
  if (status) blocks_free(b);
  return status;
}

void blocks_free(model_blocks *b) {
  free(b->items);
  free(b->layers);
  free(b->text);
  *b = (model_blocks){0};
}
