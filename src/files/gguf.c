#include "files/gguf.h"
#include "core/arith.h"
#include "core/context.h"
#include "core/file.h"
#include "core/try.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MAGIC             "GGUF"
#define DEFAULT_ALIGNMENT 32
#define FILL_BYTES        ((size_t)1 << 20) /* of the file that are read at once: whole pages */
#define MIN_VALUE         13 /* minimum bytes of a value: length of its key, its type, itself           */
#define MIN_TENSOR        24 /* length of its name, rank, dtype, offset                                */

static const size_t type_bytes[GGUF_TYPES] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8};

/* The dtypes of ggml, by their numbers; those without bytes are named only. */
static const struct {
  int number;
  const char *name;
  size_t bytes, elements;
} dtypes[] = {{0, "F32", 4, 1},       {1, "F16", 2, 1},       {2, "Q4_0", 18, 32},    {3, "Q4_1", 20, 32},
              {6, "Q5_0", 22, 32},    {7, "Q5_1", 24, 32},    {8, "Q8_0", 34, 32},    {9, "Q8_1", 36, 32},
              {10, "Q2_K", 84, 256},  {11, "Q3_K", 110, 256}, {12, "Q4_K", 144, 256}, {13, "Q5_K", 176, 256},
              {14, "Q6_K", 210, 256}, {15, "Q8_K", 292, 256}, {24, "I8", 1, 1},       {25, "I16", 2, 1},
              {26, "I32", 4, 1},      {27, "I64", 8, 1},      {28, "F64", 8, 1},      {30, "BF16", 2, 1}};

/* The values, which are looked up again and again, stay in memory as the file has them: in a range of addresses as
 * long as the file, of which only what has been read is there. Nothing moves as more is read. */
typedef struct gguf {
  file_input in;
  unsigned char *data; /* NULL: the file is empty */
  size_t filled;
  gguf_value *values; /* sorted by key */
  size_t count;
  char *names; /* of the tensors, each ended by a zero byte */
} gguf;

static void gguf_close(source *s) {
  gguf *g = s->state;
  if (g->data) munmap(g->data, g->in.bytes);
  file_input_close(&g->in);
  free(g->values);
  free(g->names);
  free(g);
}

static clm_status gguf_read(clm_context *ctx, const source_tensor *t, size_t begin, size_t bytes, void *out) {
  const gguf *g = t->from->state;
  return file_read_at(ctx, t->from->path, &g->in, t->place + t->first + begin, bytes, out);
}

static const source_format gguf_format = {.close = gguf_close, .read = gguf_read};

static clm_status bad(clm_context *ctx, const source *s, const char *what) {
  return context_fail(ctx, CLM_BAD_FORMAT, "%s is not a valid GGUF file: %s", s->path, what);
}

static clm_status bad_tensor(clm_context *ctx, const source *s, const char *name, const char *what) {
  return context_fail(ctx, CLM_BAD_FORMAT, "%s is not a valid GGUF file: tensor \"%.100s\" %s", s->path, name, what);
}

static uint64_t number_at(const void *data, size_t bytes) {
  const unsigned char *at = data;
  uint64_t number = 0;
  while (bytes-- > 0) number = number << 8 | at[bytes];
  return number;
}

/* What is left of the file. */
typedef struct cursor {
  clm_context *context;
  const source *file;
  const unsigned char *begin, *at, *end;
} cursor;

static size_t left(const cursor *c) { return (size_t)(c->end - c->at); }

static clm_status open_file(clm_context *ctx, const char *path, gguf *g) {
  TRY(file_open(ctx, path, &g->in));
  if (g->in.bytes == 0) return CLM_OK;
  void *range = mmap(NULL, g->in.bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (range == MAP_FAILED) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  g->data = range;
  return CLM_OK;
}

/* Reads on until `needed` bytes of the file are there, or more. */
static clm_status fill(const cursor *c, size_t needed) {
  gguf *g = c->file->state;
  if (needed <= g->filled) return CLM_OK;
  size_t to = (size_t)round_up((int64_t)needed, (int64_t)FILL_BYTES);
  if (to > g->in.bytes) to = g->in.bytes;
  if (mprotect(g->data + g->filled, to - g->filled, PROT_READ | PROT_WRITE) != 0)
    return context_fail(c->context, CLM_OUT_OF_MEMORY, "out of host memory for %s", c->file->path);
  TRY(file_read_at(c->context, c->file->path, &g->in, g->filled, to - g->filled, g->data + g->filled));
  g->filled = to;
  return CLM_OK;
}

static clm_status take(cursor *c, uint64_t bytes, const void **data) {
  *data = c->at;
  if (bytes > left(c)) return bad(c->context, c->file, "it ends too early, it may be truncated");
  TRY(fill(c, (size_t)(c->end - c->begin) - left(c) + (size_t)bytes));
  c->at += bytes;
  return CLM_OK;
}

static clm_status take_number(cursor *c, size_t bytes, uint64_t *number) {
  const void *data;
  TRY(take(c, bytes, &data));
  *number = number_at(data, bytes);
  return CLM_OK;
}

static clm_status take_text(cursor *c, gguf_text *text) {
  uint64_t bytes;
  const void *data;
  TRY(take_number(c, 8, &bytes));
  TRY(take(c, bytes, &data));
  *text = (gguf_text){data, (size_t)bytes};
  return CLM_OK;
}

/* ---- Values ---- */

static clm_status take_elements(cursor *c, gguf_value *v) {
  const void *data;
  gguf_text text;
  v->data = c->at;
  if (v->type != GGUF_STRING) {
    if (v->count > left(c) / type_bytes[v->type]) return take(c, UINT64_MAX, &data);
    return take(c, v->count * type_bytes[v->type], &data);
  }
  for (size_t i = 0; i < v->count; i++) TRY(take_text(c, &text));
  return CLM_OK;
}

static clm_status take_value(cursor *c, gguf_value *v) {
  uint64_t type, count = 1;
  TRY(take_text(c, &v->key));
  TRY(take_number(c, 4, &type));
  v->array = type == GGUF_ARRAY;
  if (v->array) {
    TRY(take_number(c, 4, &type));
    TRY(take_number(c, 8, &count));
  }
  if (type >= GGUF_TYPES || type == GGUF_ARRAY)
    return bad(c->context, c->file, "a value is of an unknown type, or an array of arrays");
  v->type = (gguf_type)type;
  v->count = (size_t)count;
  return take_elements(c, v);
}

static int compare_text(gguf_text a, gguf_text b) {
  size_t common = a.bytes < b.bytes ? a.bytes : b.bytes;
  int order = common ? memcmp(a.text, b.text, common) : 0;
  return order ? order : a.bytes < b.bytes ? -1 : a.bytes > b.bytes;
}

static int by_key(const void *a, const void *b) {
  return compare_text(((const gguf_value *)a)->key, ((const gguf_value *)b)->key);
}

static clm_status read_values(cursor *c, gguf *g, uint64_t count) {
  if (count > left(c) / MIN_VALUE) return bad(c->context, c->file, "it counts more values than it can hold");
  g->values = calloc((size_t)count + 1, sizeof *g->values);
  if (!g->values) return context_fail(c->context, CLM_OUT_OF_MEMORY, "out of host memory for %s", c->file->path);
  for (; g->count < count; g->count++) TRY(take_value(c, &g->values[g->count]));
  qsort(g->values, g->count, sizeof *g->values, by_key);
  for (size_t i = 1; i < g->count; i++)
    if (by_key(&g->values[i - 1], &g->values[i]) == 0)
      return context_fail(c->context, CLM_BAD_FORMAT, "%s is not a valid GGUF file: it has two values \"%.*s\"",
                          c->file->path, (int)(g->values[i].key.bytes < 100 ? g->values[i].key.bytes : 100),
                          g->values[i].key.text);
  return CLM_OK;
}

const gguf_value *gguf_find(const source *s, const char *key) {
  const gguf *g = s->state;
  const gguf_value wanted = {.key = {key, strlen(key)}};
  return g->count ? bsearch(&wanted, g->values, g->count, sizeof wanted, by_key) : NULL;
}

static const gguf_value *find_one(const source *s, const char *key) {
  const gguf_value *v = gguf_find(s, key);
  return v && !v->array ? v : NULL;
}

double gguf_element(const gguf_value *v, size_t i) {
  const size_t bytes = type_bytes[v->type];
  const uint64_t bits = number_at((const char *)v->data + i * bytes, bytes);
  const uint32_t low = (uint32_t)bits;
  float single;
  double real;
  switch (v->type) {
  case GGUF_I8: return (int8_t)bits;
  case GGUF_I16: return (int16_t)bits;
  case GGUF_I32: return (int32_t)bits;
  case GGUF_I64: return (double)(int64_t)bits;
  case GGUF_F32: memcpy(&single, &low, sizeof single); return (double)single;
  case GGUF_F64: memcpy(&real, &bits, sizeof real); return real;
  default: return (double)bits;
  }
}

static bool is_real(gguf_type type) { return type == GGUF_F32 || type == GGUF_F64; }

bool gguf_integer(const source *s, const char *key, int64_t *number) {
  const gguf_value *v = find_one(s, key);
  if (!v || is_real(v->type) || v->type == GGUF_STRING || v->type == GGUF_BOOL) return false;
  double value = gguf_element(v, 0);
  *number = value < -0x1p53 || value > 0x1p53 ? INT64_MAX : (int64_t)value;
  return true;
}

bool gguf_real(const source *s, const char *key, double *number) {
  const gguf_value *v = find_one(s, key);
  if (!v || !is_real(v->type)) return false;
  *number = gguf_element(v, 0);
  return true;
}

bool gguf_flag(const source *s, const char *key, bool *flag) {
  const gguf_value *v = find_one(s, key);
  if (!v || v->type != GGUF_BOOL) return false;
  *flag = *(const unsigned char *)v->data != 0;
  return true;
}

gguf_text gguf_next_text(const void **at) {
  gguf_text text = {(const char *)*at + 8, (size_t)number_at(*at, 8)};
  *at = text.text + text.bytes;
  return text;
}

bool gguf_string(const source *s, const char *key, gguf_text *text) {
  const gguf_value *v = find_one(s, key);
  if (!v || v->type != GGUF_STRING) return false;
  const void *at = v->data;
  *text = gguf_next_text(&at);
  return true;
}

/* ---- Tensors ---- */

static clm_status take_dtype(cursor *c, source_tensor *t, uint64_t number) {
  const size_t count = sizeof dtypes / sizeof *dtypes;
  size_t i = 0;
  while (i < count && (uint64_t)dtypes[i].number != number) i++;
  if (i == count) return bad_tensor(c->context, c->file, t->name, "has an unknown dtype");
  t->dtype_name = dtypes[i].name;
  t->dtype = source_dtype_named(dtypes[i].name);
  uint64_t elements = 1;
  for (int d = 0; d < t->rank; d++) {
    if (t->shape[d] && elements > (uint64_t)INT64_MAX / 16 / (uint64_t)t->shape[d])
      return bad_tensor(c->context, c->file, t->name, "has an impossible shape");
    elements *= (uint64_t)t->shape[d];
  }
  if (t->rank && (uint64_t)t->shape[t->rank - 1] % dtypes[i].elements)
    return bad_tensor(c->context, c->file, t->name, "has rows that are no whole blocks of its dtype");
  t->bytes = (size_t)(elements / dtypes[i].elements * dtypes[i].bytes);
  return CLM_OK;
}

/* ggml counts dimensions from the innermost. `place` is the offset until all are known. */
static clm_status take_tensor(cursor *c, char **names, source *s, source_tensor *t) {
  gguf_text name;
  uint64_t rank, size, dtype;
  TRY(take_text(c, &name));
  if (memchr(name.text, 0, name.bytes)) return bad(c->context, c->file, "a name has a zero byte in it");
  *t = (source_tensor){.name = *names, .from = s};
  memcpy(*names, name.text, name.bytes);
  *names += name.bytes;
  *(*names)++ = '\0';
  TRY(take_number(c, 4, &rank));
  t->rank = (int)rank;
  for (int d = t->rank - 1; d >= 0; d--) {
    TRY(take_number(c, 8, &size));
    if (size > INT64_MAX) return bad_tensor(c->context, c->file, t->name, "has an impossible shape");
    t->shape[d] = (int64_t)size;
  }
  TRY(take_number(c, 4, &dtype));
  TRY(take_dtype(c, t, dtype));
  return take_number(c, 8, &t->place);
}

/* Bytes of all names, each with a zero byte; that no rank is too large is known then. */
static clm_status measure_names(cursor c, uint64_t count, size_t *bytes) {
  *bytes = 0;
  for (uint64_t i = 0; i < count; i++) {
    gguf_text name;
    uint64_t rank;
    const void *rest;
    TRY(take_text(&c, &name));
    TRY(take_number(&c, 4, &rank));
    if (rank > CLM_MAX_RANK) return bad(c.context, c.file, "a tensor has more than 5 dimensions");
    TRY(take(&c, 8 * rank + 12, &rest));
    *bytes += name.bytes + 1;
  }
  return CLM_OK;
}

static int by_place(const void *a, const void *b) {
  const source_tensor *x = a, *y = b;
  if (x->place != y->place) return x->place < y->place ? -1 : 1;
  return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* Inside the file, aligned, none on another. */
static clm_status place_tensors(cursor *c, source *s, const gguf *g) {
  int64_t alignment = DEFAULT_ALIGNMENT;
  if (gguf_find(s, "general.alignment") &&
      (!gguf_integer(s, "general.alignment", &alignment) || alignment < 8 || alignment > 1 << 20 || alignment % 8))
    return bad(c->context, s, "general.alignment is not a multiple of 8");
  const size_t step = (size_t)alignment;
  size_t begin = (size_t)round_up(c->at - c->begin, alignment);
  size_t bytes = begin < g->in.bytes ? g->in.bytes - begin : 0;
  uint64_t end = 0;
  qsort(s->tensors, s->count, sizeof *s->tensors, by_place);
  for (size_t i = 0; i < s->count; i++) {
    source_tensor *t = &s->tensors[i];
    if (t->place % step) return bad_tensor(c->context, s, t->name, "is not aligned");
    if (t->place < end) return bad_tensor(c->context, s, t->name, "overlaps another one");
    if (t->place > bytes || t->bytes > bytes - t->place)
      return bad_tensor(c->context, s, t->name, "lies outside the file, which may be truncated");
    end = t->place + t->bytes;
    t->place += begin;
  }
  return CLM_OK;
}

static clm_status read_file(clm_context *ctx, source *s, gguf *g) {
  cursor c = {ctx, s, g->data, g->data, g->data ? g->data + g->in.bytes : NULL};
  uint64_t version, tensors, values;
  size_t name_bytes;
  const void *magic;
  if (left(&c) >= 4) TRY(take(&c, 4, &magic));
  else magic = "none";
  if (memcmp(magic, MAGIC, 4) != 0) return bad(ctx, s, "it does not begin with \"GGUF\"");
  TRY(take_number(&c, 4, &version));
  if (version != 2 && version != 3)
    return context_fail(ctx, CLM_UNSUPPORTED, "%s is a GGUF file of version %" PRIu64 "%s, expected 2 or 3", s->path,
                        version, version > 0xffff ? " (big endian)" : "");
  TRY(take_number(&c, 8, &tensors));
  TRY(take_number(&c, 8, &values));
  TRY(read_values(&c, g, values));
  if (tensors > left(&c) / MIN_TENSOR) return bad(ctx, s, "it counts more tensors than it can hold");
  TRY(source_reserve(ctx, s, (size_t)tensors));
  TRY(measure_names(c, tensors, &name_bytes));
  char *names = g->names = malloc(name_bytes + 1);
  if (!names) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", s->path);
  for (; s->count < tensors; s->count++) TRY(take_tensor(&c, &names, s, &s->tensors[s->count]));
  return place_tensors(&c, s, g);
}

bool gguf_is(const char *path) { return file_begins_with(path, MAGIC); }

clm_status gguf_open(clm_context *ctx, const char *path, source *s) {
  gguf *state = calloc(1, sizeof *state);
  if (!state) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  state->in = FILE_INPUT_CLOSED;
  clm_status status = source_begin(ctx, path, &gguf_format, state, s);
  s->naming = NAMING_GGUF;
  if (status == CLM_OK) status = open_file(ctx, path, state);
  if (status == CLM_OK) status = read_file(ctx, s, state);
  return source_opened(ctx, s, status);
}
