#include "model/safetensors.h"
#include "core/context.h"
#include "core/file.h"
#include "core/try.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LENGTH_BYTES     8
#define MAX_HEADER_BYTES 100000000u /* what the format's own reader accepts */
#define METADATA_KEY     "__metadata__"

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

static clm_status bad(clm_context *ctx, const safetensors *file, const char *what) {
  return context_fail(ctx, CLM_BAD_FORMAT, "%s is not a valid safetensors file: %s", file->path, what);
}

static clm_status bad_tensor(clm_context *ctx, const safetensors *file, const char *name, const char *what) {
  return context_fail(ctx, CLM_BAD_FORMAT, "%s is not a valid safetensors file: tensor \"%.100s\" %s", file->path,
                      name, what);
}

/* One entry of the header against `size` bytes of data. */
static clm_status read_entry(clm_context *ctx, const safetensors *file, const char *name, const json_t *entry,
                             const char *data, size_t size, safetensor *t) {
  const char *dtype = json_string_value(json_object_get(entry, "dtype"));
  const json_t *shape = json_object_get(entry, "shape"), *offsets = json_object_get(entry, "data_offsets");
  if (!dtype || !json_is_array(shape) || !json_is_array(offsets) || json_array_size(offsets) != 2)
    return bad_tensor(ctx, file, name, "lacks dtype, shape or data_offsets");
  size_t element = dtype_bytes(dtype);
  if (!element) return bad_tensor(ctx, file, name, "has an unknown dtype");
  if (json_array_size(shape) > CLM_MAX_RANK) return bad_tensor(ctx, file, name, "has more than 5 dimensions");

  *t = (safetensor){.name = name, .dtype = dtype, .rank = (int)json_array_size(shape)};
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
  t->data = data + begin;
  if (t->bytes != expected) return bad_tensor(ctx, file, name, "has data_offsets that do not fit its shape");
  return CLM_OK;
}

static int by_place(const void *a, const void *b) {
  const safetensor *x = a, *y = b;
  if (x->data != y->data) return (const char *)x->data < (const char *)y->data ? -1 : 1;
  return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* The tensors must fill the data one after another, without holes and overlaps. Sorts them. */
static clm_status check_places(clm_context *ctx, const safetensors *file, const char *data, size_t size) {
  qsort(file->tensors, file->count, sizeof *file->tensors, by_place);
  const char *end = data;
  for (size_t i = 0; i < file->count; i++) {
    const safetensor *t = &file->tensors[i];
    if (t->data != end) return bad_tensor(ctx, file, t->name, "does not begin where the one before it ends");
    end += t->bytes;
  }
  if (end != data + size) return bad(ctx, file, "bytes are left over after the last tensor");
  return CLM_OK;
}

static clm_status read_header(clm_context *ctx, safetensors *file) {
  const unsigned char *bytes = file->map;
  uint64_t length = 0;
  if (file->bytes < LENGTH_BYTES) return bad(ctx, file, "it is too short, it may be truncated");
  for (int i = LENGTH_BYTES - 1; i >= 0; i--) length = length << 8 | bytes[i];
  if (length > MAX_HEADER_BYTES) return bad(ctx, file, "the header is too long");
  if (length > file->bytes - LENGTH_BYTES) return bad(ctx, file, "the header is cut off, the file may be truncated");

  json_error_t error;
  file->header = json_loadb((const char *)bytes + LENGTH_BYTES, (size_t)length, JSON_REJECT_DUPLICATES, &error);
  if (!json_is_object(file->header)) return bad(ctx, file, "the header is not a JSON object");
  size_t members = json_object_size(file->header);
  file->tensors = calloc(members ? members : 1, sizeof *file->tensors);
  if (!file->tensors) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", file->path);

  const char *data = (const char *)bytes + LENGTH_BYTES + length, *name;
  size_t size = file->bytes - LENGTH_BYTES - (size_t)length;
  json_t *entry;
  json_object_foreach(file->header, name, entry) {
    if (strcmp(name, METADATA_KEY) == 0) continue;
    TRY(read_entry(ctx, file, name, entry, data, size, &file->tensors[file->count]));
    file->count++;
  }
  return check_places(ctx, file, data, size);
}

static clm_status map_file(clm_context *ctx, safetensors *file) {
  int fd = open(file->path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return context_fail(ctx, CLM_IO_ERROR, "cannot read %s: %s", file->path, strerror(errno));
  struct stat about;
  int error = 0;
  if (fstat(fd, &about) != 0) error = errno;
  else if (!S_ISREG(about.st_mode)) error = EISDIR;
  else if (about.st_size > 0) {
    void *map = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) error = errno;
    else {
      file->map = map;
      file->bytes = (size_t)about.st_size;
    }
  }
  close(fd);
  return error ? context_fail(ctx, CLM_IO_ERROR, "cannot read %s: %s", file->path, strerror(error)) : CLM_OK;
}

clm_status safetensors_open(clm_context *ctx, const char *path, safetensors *file) {
  *file = (safetensors){.path = strdup(path)};
  clm_status status =
      file->path ? map_file(ctx, file) : context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  if (status == CLM_OK) status = read_header(ctx, file);
  if (status) safetensors_close(file);
  return status;
}

void safetensors_close(safetensors *file) {
  if (file->map) munmap(file->map, file->bytes);
  json_decref(file->header);
  free(file->tensors);
  free(file->path);
  *file = (safetensors){0};
}

const safetensor *safetensors_find(const safetensors *file, const char *name) {
  for (size_t i = 0; i < file->count; i++)
    if (strcmp(file->tensors[i].name, name) == 0) return &file->tensors[i];
  return NULL;
}

const char *safetensors_metadata(const safetensors *file, const char *key) {
  return json_string_value(json_object_get(json_object_get(file->header, METADATA_KEY), key));
}

static float bits_to_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static float half_to_float(uint16_t half) {
  uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = (half >> 10) & 31u, fraction = half & 0x3ffu;
  if (exponent == 31) return bits_to_float(sign | 0x7f800000u | fraction << 13);
  if (exponent) return bits_to_float(sign | (exponent + 112) << 23 | fraction << 13);
  float tiny = (float)fraction * 0x1p-24f; /* subnormal */
  return sign ? -tiny : tiny;
}

clm_status safetensors_read_f32(clm_context *ctx, const safetensors *file, const safetensor *t, float *out) {
  bool half = strcmp(t->dtype, "F16") == 0;
  if (strcmp(t->dtype, "F32") == 0) {
    if (t->bytes) memcpy(out, t->data, t->bytes);
    return CLM_OK;
  }
  if (!half && strcmp(t->dtype, "BF16") != 0)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s: tensor \"%s\" has dtype %s, expected F32, F16 or BF16", file->path,
                        t->name, t->dtype);
  for (size_t i = 0; i < t->bytes / 2; i++) {
    uint16_t bits;
    memcpy(&bits, (const char *)t->data + 2 * i, 2);
    out[i] = half ? half_to_float(bits) : bits_to_float((uint32_t)bits << 16);
  }
  return CLM_OK;
}

static json_t *make_header(const safetensor *tensors, size_t count, const safetensors_text *metadata) {
  json_t *header = json_object(), *texts = json_object();
  int failed = json_object_set_new(texts, "format", json_string("pt"));
  for (; metadata && metadata->key; metadata++)
    failed |= json_object_set_new(texts, metadata->key, json_string(metadata->value));
  failed |= json_object_set_new(header, METADATA_KEY, texts);
  json_int_t at = 0;
  for (size_t i = 0; i < count; i++) {
    json_t *shape = json_array();
    for (int d = 0; d < tensors[i].rank; d++)
      failed |= json_array_append_new(shape, json_integer(tensors[i].shape[d]));
    json_int_t end = at + (json_int_t)tensors[i].bytes;
    json_t *entry =
        json_pack("{s:s, s:o, s:[I, I]}", "dtype", tensors[i].dtype, "shape", shape, "data_offsets", at, end);
    failed |= json_object_set_new(header, tensors[i].name, entry);
    at = end;
  }
  if (!failed) return header;
  json_decref(header);
  return NULL;
}

clm_status safetensors_write(clm_context *ctx, const char *path, const safetensor *tensors, size_t count,
                             const safetensors_text *metadata) {
  json_t *header = make_header(tensors, count, metadata);
  char *text = header ? json_dumps(header, JSON_COMPACT) : NULL;
  file_part *parts = calloc(count + 3, sizeof *parts);
  clm_status status;
  if (text && parts) {
    size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    unsigned char prefix[LENGTH_BYTES];
    for (int i = 0; i < LENGTH_BYTES; i++) prefix[i] = (unsigned char)((uint64_t)padded >> (8 * i));
    parts[0] = (file_part){prefix, LENGTH_BYTES};
    parts[1] = (file_part){text, length};
    parts[2] = (file_part){"        ", padded - length};
    for (size_t i = 0; i < count; i++) parts[3 + i] = (file_part){tensors[i].data, tensors[i].bytes};
    status = file_replace(ctx, path, parts, count + 3);
  } else status = context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for the header of %s", path);
  free(parts);
  free(text);
  json_decref(header);
  return status;
}
