/* A state as a safetensors file, tied to its model by its shape and a fingerprint of its weights. */
#include "core/arith.h"
#include "core/context.h"
#include "core/try.h"
#include "files/safetensors.h"
#include "model/model.h"
#include <clmamba/elementwise.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define FORMAT      "clmamba.state.1"
#define BLOCK_BYTES ((size_t)4 << 20)

enum { SHAPE_TEXT = 1024, HASH_TEXT = 33 };

/* What the kinds of layers say of their states, each once, and where it is not the one that all are, the list of
 * layers. */
static void shape_text(const clm_model *m, char text[SHAPE_TEXT]) {
  const clm_model_config *c = &m->config;
  int at = snprintf(text, SHAPE_TEXT, "vocab_size %" PRId64 ", d_model %" PRId64 ", n_layer %" PRId64, c->vocab_size,
                    c->d_model, c->n_layer);
  for (size_t i = 0; i < m->blocks.layer_count; i++) {
    const model_layer *l = &m->blocks.layers[i];
    char own[LAYER_TEXT];
    if (!l->kind->describe) continue;
    l->kind->describe(l, own);
    if (!strstr(text, own)) at += snprintf(text + at, SHAPE_TEXT - (size_t)at, ", %s", own);
    if (at >= SHAPE_TEXT) return;
  }
  if (c->layers) snprintf(text + at, SHAPE_TEXT - (size_t)at, ", layers %s", c->layers);
}

/* ---- The fingerprint: XXH3 over every parameter's name and bytes ---- */

static clm_status hash_tensor(clm_tensor t, char *block, XXH3_state_t *hash) {
  size_t bytes = (size_t)clm_tensor_count(t) * clm_dtype_size(t.dtype);
  for (size_t at = 0, part; at < bytes; at += part) {
    part = bytes - at < BLOCK_BYTES ? bytes - at : BLOCK_BYTES;
    TRY(clm_buffer_read(t.buffer, t.offset + at, part, block));
    XXH3_128bits_update(hash, block, part);
  }
  return CLM_OK;
}

static clm_status hash_weights(clm_model *m, char *block, XXH3_state_t *hash) {
  XXH3_128bits_reset(hash);
  for (size_t i = 0; i < m->layout.item_count; i++) {
    char name[WEIGHT_NAME_MAX];
    clm_tensor t;
    weights_name(&m->layout.items[i], name);
    TRY(clm_model_parameter(m, name, &t));
    XXH3_128bits_update(hash, name, strlen(name));
    TRY(hash_tensor(t, block, hash));
    if (t.dtype != CLM_I8) continue;
    strcat(name, "_scale");
    TRY(clm_model_parameter(m, name, &t));
    TRY(hash_tensor(t, block, hash));
  }
  return CLM_OK;
}

static clm_status fingerprint(clm_model *m, char text[HASH_TEXT]) {
  XXH3_state_t *hash = XXH3_createState();
  char *block = malloc(BLOCK_BYTES);
  clm_status status = hash && block ? hash_weights(m, block, hash)
                                    : context_fail(m->context, CLM_OUT_OF_MEMORY, "model_state: out of host memory");
  if (status == CLM_OK) {
    XXH128_hash_t digest = XXH3_128bits_digest(hash);
    snprintf(text, HASH_TEXT, "%016" PRIx64 "%016" PRIx64, digest.high64, digest.low64);
  }
  free(block);
  XXH3_freeState(hash);
  return status;
}

/* ---- The file ---- */

/* The device's tensors of a file, in the order of the file: the layers' and the last hidden state. */
typedef struct state_part {
  const char *name;
  clm_tensor tensor; /* of what grows the tokens that there are, at least one */
} state_part;

static size_t part_count(const clm_model_state *s) { return s->tensor_count + 1; }

static state_part part_of(const clm_model_state *s, size_t i) {
  if (i == s->tensor_count) return (state_part){"hidden", s->hidden};
  const state_tensor *t = &s->tensors[i];
  if (!t->grows) return (state_part){t->name, t->all};
  return (state_part){t->name, clm_tensor_slice(t->all, 2, 0, max_of(1, model_state_longest(s, 0, s->batch)))};
}

typedef clm_status transfer(clm_tensor, void *, size_t);
static clm_status read_from(clm_tensor t, void *data, size_t bytes) { return clm_tensor_read(t, data, bytes); }
static clm_status write_to(clm_tensor t, void *data, size_t bytes) { return clm_tensor_write(t, data, bytes); }

/* Between the host and a tensor that need not be contiguous. */
static clm_status transfer_part(clm_model *m, clm_tensor t, transfer *move, void *data, size_t bytes) {
  const bool writes = move == write_to;
  clm_buffer *packed;
  TRY(clm_buffer_create(m->context, bytes, &packed));
  const clm_tensor whole = clm_tensor_of(packed, 0, t.dtype, t.rank, t.shape);
  const clm_axpby_args copy = {.x = writes ? whole : t, .out = writes ? t : whole, .alpha = 1};
  clm_status status = writes ? move(whole, data, bytes) : clm_axpby(m->context, &copy);
  if (status == CLM_OK) status = writes ? clm_axpby(m->context, &copy) : move(whole, data, bytes);
  clm_buffer_destroy(&packed);
  return status;
}

static safetensor describe(const char *name, const char *dtype, int rank, const int64_t *shape, void *data,
                           size_t bytes) {
  safetensor t = {.name = name, .dtype = dtype, .rank = rank, .data = data, .bytes = bytes};
  memcpy(t.shape, shape, (size_t)rank * sizeof *shape);
  return t;
}

/* `tensors` has room for one more than there are parts, `host` for all that they hold. */
static clm_status write_file(clm_model_state *s, const char *path, safetensor *tensors, char *host) {
  char shape[SHAPE_TEXT], hash[HASH_TEXT];
  size_t count = 0, at = 0;
  shape_text(s->model, shape);
  TRY(fingerprint(s->model, hash));
  tensors[count++] = describe("tokens", "I64", 1, &s->batch, s->tokens, (size_t)s->batch * sizeof *s->tokens);
  for (size_t i = 0; i < part_count(s); i++) {
    const state_part part = part_of(s, i);
    const clm_tensor *t = &part.tensor;
    size_t bytes = (size_t)clm_tensor_count(*t) * sizeof(float);
    TRY(transfer_part(s->model, *t, read_from, host + at, bytes));
    tensors[count++] = describe(part.name, "F32", t->rank, t->shape, host + at, bytes);
    at += bytes;
  }
  return safetensors_write(
      s->model->context, path, tensors, count,
      (safetensors_text[]){{"format", FORMAT}, {"model", shape}, {"weights", hash}, {NULL, NULL}});
}

clm_status clm_model_state_save(clm_model_state *s, const char *path) {
  if (!s) return CLM_INVALID_ARGUMENT;
  TRY(HANDLE_NEED(s->model, "model_state_save", path));
  TRY(model_state_check(s, "model_state_save"));
  char *host = malloc(clm_buffer_size(s->buffer));
  safetensor *tensors = calloc(part_count(s) + 1, sizeof *tensors);
  clm_status status = host && tensors
                          ? write_file(s, path, tensors, host)
                          : context_fail(s->model->context, CLM_OUT_OF_MEMORY, "model_state: out of host memory");
  free(tensors);
  free(host);
  return status;
}

static clm_status check_origin(clm_model *m, const source *file) {
  const char *format = safetensors_metadata(file, "format"), *model = safetensors_metadata(file, "model"),
             *weights = safetensors_metadata(file, "weights");
  char shape[SHAPE_TEXT], hash[HASH_TEXT];
  if (!format || strcmp(format, FORMAT) != 0 || !model || !weights)
    return context_fail(m->context, CLM_BAD_FORMAT, "%s is not a state that clmamba saved", file->path);
  shape_text(m, shape);
  if (strcmp(model, shape) != 0)
    return context_fail(m->context, CLM_INVALID_ARGUMENT,
                        "%s is the state of another model: of %.200s, this one has %s", file->path, model, shape);
  TRY(fingerprint(m, hash));
  if (strcmp(weights, hash) != 0)
    return context_fail(m->context, CLM_INVALID_ARGUMENT,
                        "%s is the state of another model: of the same shape, with other weights", file->path);
  return CLM_OK;
}

static clm_status damaged(clm_model *m, const source *file, const char *name) {
  return context_fail(m->context, CLM_BAD_FORMAT, "%s: tensor \"%s\" is missing, or not as a state has it",
                      file->path, name);
}

static bool is_like(const source_tensor *t, const char *dtype, int rank, const int64_t *shape) {
  bool like = t && strcmp(t->dtype_name, dtype) == 0 && t->rank == rank;
  for (int i = 0; like && i < rank; i++) like = t->shape[i] == shape[i];
  return like;
}

static clm_status read_file(clm_model_state *s, const source *file) {
  TRY(source_read(s->model->context, source_find(file, "tokens"), 0, (size_t)s->batch * sizeof *s->tokens,
                  s->tokens));
  for (int64_t i = 0; i < s->batch; i++)
    if (s->tokens[i] < 0) return damaged(s->model, file, "tokens");
  TRY(model_state_reserve(s, model_state_longest(s, 0, s->batch)));
  for (size_t i = 0; i < part_count(s); i++) {
    const state_part part = part_of(s, i);
    const clm_tensor *t = &part.tensor;
    const source_tensor *saved = source_find(file, part.name);
    if (!is_like(saved, "F32", t->rank, t->shape)) return damaged(s->model, file, part.name);
    void *data;
    TRY(source_read_all(s->model->context, saved, &data));
    clm_status status = transfer_part(s->model, *t, write_to, data, saved->bytes);
    free(data);
    TRY(status);
  }
  return model_state_write_positions(s, 0, s->batch);
}

static clm_status load(clm_model *m, const source *file, clm_model_state **state) {
  TRY(check_origin(m, file));
  const source_tensor *tokens = source_find(file, "tokens");
  if (!tokens || strcmp(tokens->dtype_name, "I64") != 0 || tokens->rank != 1) return damaged(m, file, "tokens");
  TRY(clm_model_state_create(m, tokens->shape[0], state));
  return read_file(*state, file);
}

clm_status clm_model_state_load(clm_model *m, const char *path, clm_model_state **state) {
  if (state) *state = NULL;
  TRY(HANDLE_NEED(m, "model_state_load", path, state));
  source file;
  TRY(safetensors_open(m->context, path, &file));
  clm_status status = load(m, &file, state);
  source_close(&file);
  if (status) clm_model_state_destroy(state);
  return status;
}
