#include "files/safetensors.h"
#include "core/context.h"
#include "core/file.h"
#include "core/json.h"
#include "core/json_print.h"
#include "core/try.h"
#include <stdlib.h>
#include <string.h>

#define LENGTH_BYTES     8
#define MAX_HEADER_BYTES 100000000u /* what the format's own reader accepts */
#define METADATA_KEY     "__metadata__"
#define PIECE_BYTES      ((size_t)4 << 20) /* of what is fetched from a device at once */

static const struct {
  const char *name;
  size_t bytes;
} dtypes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},  {"I32", 4},     {"I16", 2},    {"I8", 1},
              {"U64", 8}, {"U32", 4}, {"U16", 2}, {"U8", 1},   {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};

static size_t dtype_bytes(const char *name) {
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
    if (strcmp(name, dtypes[i].name) == 0) return dtypes[i].bytes;
  return 0;
}

/* An open file: its header owns the names. */
typedef struct safetensors {
  file_input in;
  json_t *header;
} safetensors;

static void safetensors_close(source *s) {
  safetensors *file = s->state;
  file_input_close(&file->in);
  json_decref(file->header);
  free(file);
}

static clm_status safetensors_read(clm_context *ctx, const source_tensor *t, size_t begin, size_t bytes, void *out) {
  const safetensors *file = t->from->state;
  return file_read_at(ctx, t->from->path, &file->in, t->place + t->first + begin, bytes, out);
}

static const source_format safetensors_format = {.close = safetensors_close, .read = safetensors_read};

static clm_status bad(clm_context *ctx, const source *file, const char *what) {
  return context_fail(ctx, CLM_BAD_FORMAT, "%s is not a valid safetensors file: %s", file->path, what);
}

static clm_status bad_tensor(clm_context *ctx, const source *file, const char *name, const char *what) {
  return context_fail(ctx, CLM_BAD_FORMAT, "%s is not a valid safetensors file: tensor \"%.100s\" %s", file->path,
                      name, what);
}

/* One entry of the header against `size` bytes of data, which begin at `data` in the file. */
static clm_status read_entry(clm_context *ctx, source *file, const char *name, const json_t *entry, uint64_t data,
                             size_t size, source_tensor *t) {
  const char *dtype = json_string_value(json_object_get(entry, "dtype"));
  const json_t *shape = json_object_get(entry, "shape"), *offsets = json_object_get(entry, "data_offsets");
  if (!dtype || !json_is_array(shape) || !json_is_array(offsets) || json_array_size(offsets) != 2)
    return bad_tensor(ctx, file, name, "lacks dtype, shape or data_offsets");
  size_t element = dtype_bytes(dtype);
  if (!element) return bad_tensor(ctx, file, name, "has an unknown dtype");
  if (json_array_size(shape) > CLM_MAX_RANK) return bad_tensor(ctx, file, name, "has more than 5 dimensions");

  *t = (source_tensor){.name = name,
                       .dtype_name = dtype,
                       .dtype = source_dtype_named(dtype),
                       .rank = (int)json_array_size(shape),
                       .from = file};
  size_t expected = element;
  for (int i = 0; i < t->rank; i++) {
    const json_t *n = json_array_get(shape, (size_t)i);
    if (!json_is_integer(n) || json_integer_value(n) < 0)
      return bad_tensor(ctx, file, name, "has a shape that is not made of whole numbers");
    t->shape[i] = json_integer_value(n);
    if (t->shape[i] && expected > (size_t)INT64_MAX / (size_t)t->shape[i])
      return bad_tensor(ctx, file, name, "has an impossible shape");
    expected *= (size_t)t->shape[i];
  }
  const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
  if (!json_is_integer(first) || !json_is_integer(last)) return bad_tensor(ctx, file, name, "has bad data_offsets");
  json_int_t begin = json_integer_value(first), end = json_integer_value(last);
  if (begin < 0 || end < begin) return bad_tensor(ctx, file, name, "has bad data_offsets");
  if ((uint64_t)end > size) return bad_tensor(ctx, file, name, "lies outside the file, which may be truncated");
  t->bytes = (size_t)(end - begin);
  t->place = data + (uint64_t)begin;
  if (t->bytes != expected) return bad_tensor(ctx, file, name, "has data_offsets that do not fit its shape");
  return CLM_OK;
}

static int by_place(const void *a, const void *b) {
  const source_tensor *x = a, *y = b;
  if (x->place != y->place) return x->place < y->place ? -1 : 1;
  return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* The tensors must fill the data one after another, without holes and overlaps. Sorts them. */
static clm_status check_places(clm_context *ctx, const source *file, uint64_t data, size_t size) {
  qsort(file->tensors, file->count, sizeof *file->tensors, by_place);
  uint64_t end = data;
  for (size_t i = 0; i < file->count; i++) {
    const source_tensor *t = &file->tensors[i];
    if (t->place != end) return bad_tensor(ctx, file, t->name, "does not begin where the one before it ends");
    end += t->bytes;
  }
  if (end != data + size) return bad(ctx, file, "bytes are left over after the last tensor");
  return CLM_OK;
}

static clm_status parse_header(clm_context *ctx, const source *file, safetensors *state, size_t length) {
  char *text = malloc(length + 1);
  if (!text) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", file->path);
  json_error_t error;
  clm_status status = file_read_at(ctx, file->path, &state->in, LENGTH_BYTES, length, text);
  if (status == CLM_OK) state->header = json_parse(text, length, JSON_EXACT, &error);
  free(text);
  if (status) return status;
  if (json_is_object(state->header)) return CLM_OK;
  if (!state->header && json_error_code(&error) == json_error_duplicate_key)
    return bad(ctx, file, "the header has the same name twice");
  return bad(ctx, file, "the header is not a JSON object");
}

static clm_status read_header(clm_context *ctx, source *file, safetensors *state) {
  unsigned char bytes[LENGTH_BYTES];
  uint64_t length = 0;
  if (state->in.bytes < LENGTH_BYTES) return bad(ctx, file, "it is too short, it may be truncated");
  TRY(file_read_at(ctx, file->path, &state->in, 0, LENGTH_BYTES, bytes));
  for (int i = LENGTH_BYTES - 1; i >= 0; i--) length = length << 8 | bytes[i];
  if (length > MAX_HEADER_BYTES) return bad(ctx, file, "the header is too long");
  if (length > state->in.bytes - LENGTH_BYTES)
    return bad(ctx, file, "the header is cut off, the file may be truncated");
  TRY(parse_header(ctx, file, state, (size_t)length));
  TRY(source_reserve(ctx, file, json_object_size(state->header)));

  const uint64_t data = LENGTH_BYTES + length;
  const size_t size = state->in.bytes - (size_t)data;
  const char *name;
  json_t *entry;
  json_object_foreach(state->header, name, entry) {
    if (strcmp(name, METADATA_KEY) == 0) continue;
    TRY(read_entry(ctx, file, name, entry, data, size, &file->tensors[file->count]));
    file->count++;
  }
  return check_places(ctx, file, data, size);
}

clm_status safetensors_open(clm_context *ctx, const char *path, source *file) {
  safetensors *state = calloc(1, sizeof *state);
  if (!state) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  state->in = FILE_INPUT_CLOSED;
  clm_status status = source_begin(ctx, path, &safetensors_format, state, file);
  if (status == CLM_OK) status = file_open(ctx, path, &state->in);
  if (status == CLM_OK) status = read_header(ctx, file, state);
  return source_opened(ctx, file, status);
}

const char *safetensors_metadata(const source *file, const char *key) {
  const safetensors *state = file->state;
  return json_string_value(json_object_get(json_object_get(state->header, METADATA_KEY), key));
}

/* ---- Writing ---- */

static json_t *make_header(const safetensor *tensors, size_t count, const safetensors_text *metadata) {
  json_t *header = json_object(), *texts = json_object();
  int failed = json_object_set_new(texts, "format", json_string("pt"));
  for (; metadata && metadata->key; metadata++)
    failed |= json_object_set_new(texts, metadata->key, json_string(metadata->value));
  failed |= json_object_set_new(header, METADATA_KEY, texts);
  json_int_t at = 0, end = 0;
  for (size_t i = 0, next; i < count; i = next, at = end) {
    for (next = i; next == i || (next < count && !tensors[next].name); next++) end += (json_int_t)tensors[next].bytes;
    json_t *shape = json_array();
    for (int d = 0; d < tensors[i].rank; d++)
      failed |= json_array_append_new(shape, json_integer(tensors[i].shape[d]));
    json_t *entry =
        json_pack("{s:s, s:o, s:[I, I]}", "dtype", tensors[i].dtype, "shape", shape, "data_offsets", at, end);
    failed |= json_object_set_new(header, tensors[i].name, entry);
  }
  if (!failed) return header;
  json_decref(header);
  return NULL;
}

/* Of a device, through `piece`. */
static clm_status write_buffer(output_file *out, const safetensor *t, char *piece) {
  for (size_t at = 0, bytes; at < t->bytes; at += bytes) {
    bytes = t->bytes - at < PIECE_BYTES ? t->bytes - at : PIECE_BYTES;
    TRY(clm_buffer_read(t->buffer, t->offset + at, bytes, piece));
    if (!output_file_write(out, piece, bytes)) break;
  }
  return CLM_OK;
}

static clm_status write_all(output_file *out, const char *header, const safetensor *tensors, size_t count,
                            char *piece) {
  size_t length = strlen(header), padded = (length + 7) / 8 * 8;
  unsigned char prefix[LENGTH_BYTES];
  for (int i = 0; i < LENGTH_BYTES; i++) prefix[i] = (unsigned char)((uint64_t)padded >> (8 * i));
  output_file_write(out, prefix, LENGTH_BYTES);
  output_file_write(out, header, length);
  output_file_write(out, "        ", padded - length);
  for (size_t i = 0; i < count; i++)
    if (tensors[i].data || !tensors[i].bytes) output_file_write(out, tensors[i].data, tensors[i].bytes);
    else TRY(write_buffer(out, &tensors[i], piece));
  return CLM_OK;
}

clm_status safetensors_write(clm_context *ctx, const char *path, const safetensor *tensors, size_t count,
                             const safetensors_text *metadata) {
  json_t *header = make_header(tensors, count, metadata);
  char *text = header ? json_print(header, JSON_COMPACT) : NULL, *piece = malloc(PIECE_BYTES);
  output_file out;
  clm_status status;
  if (!text || !piece) status = context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  else status = file_create(ctx, path, &out);
  if (status == CLM_OK) status = file_close(ctx, path, &out, write_all(&out, text, tensors, count, piece));
  free(piece);
  free(text);
  json_decref(header);
  return status;
}
