#include "files/pickle.h"
#include "core/context.h"
#include "core/try.h"
#include <stdlib.h>
#include <string.h>

/* clang-format off */
/* The opcodes of tensor files, as pickletools names them; the second list only makes messages. */
#define OPCODES(X)                                                                                                    \
  X(PROTO, 0x80) X(STOP, '.') X(MARK, '(') X(NONE, 'N') X(NEWTRUE, 0x88) X(NEWFALSE, 0x89)                              \
  X(BININT, 'J') X(BININT1, 'K') X(BININT2, 'M') X(LONG1, 0x8a) X(BINFLOAT, 'G') X(BINUNICODE, 'X')                    \
  X(EMPTY_TUPLE, ')') X(TUPLE, 't') X(TUPLE1, 0x85) X(TUPLE2, 0x86) X(TUPLE3, 0x87)                                    \
  X(EMPTY_LIST, ']') X(APPEND, 'a') X(APPENDS, 'e') X(EMPTY_DICT, '}') X(SETITEM, 's') X(SETITEMS, 'u')                \
  X(BINPUT, 'q') X(LONG_BINPUT, 'r') X(BINGET, 'h') X(LONG_BINGET, 'j')                                                \
  X(GLOBAL, 'c') X(REDUCE, 'R') X(BUILD, 'b') X(BINPERSID, 'Q')
#define REFUSED_OPCODES(X)                                                                                            \
  X(POP, '0') X(POP_MARK, '1') X(DUP, '2') X(FLOAT, 'F') X(INT, 'I') X(LONG, 'L') X(PERSID, 'P') X(STRING, 'S')        \
  X(BINSTRING, 'T') X(SHORT_BINSTRING, 'U') X(UNICODE, 'V') X(BINBYTES, 'B') X(SHORT_BINBYTES, 'C') X(DICT, 'd')       \
  X(GET, 'g') X(INST, 'i') X(LIST, 'l') X(OBJ, 'o') X(PUT, 'p') X(NEWOBJ, 0x81) X(EXT1, 0x82) X(EXT2, 0x83)            \
  X(EXT4, 0x84) X(LONG4, 0x8b) X(SHORT_BINUNICODE, 0x8c) X(BINUNICODE8, 0x8d) X(BINBYTES8, 0x8e) X(EMPTY_SET, 0x8f)    \
  X(ADDITEMS, 0x90) X(FROZENSET, 0x91) X(NEWOBJ_EX, 0x92) X(STACK_GLOBAL, 0x93) X(MEMOIZE, 0x94) X(FRAME, 0x95)        \
  X(BYTEARRAY8, 0x96) X(NEXT_BUFFER, 0x97) X(READONLY_BUFFER, 0x98)
/* clang-format on */

enum {
#define X(name, code) OP_##name = code,
  OPCODES(X)
#undef X
};

const pickle_dtype pickle_dtypes[] = {{"FloatStorage", "F32", 4},     {"HalfStorage", "F16", 2},
                                      {"BFloat16Storage", "BF16", 2}, {"DoubleStorage", "F64", 8},
                                      {"LongStorage", "I64", 8},      {"IntStorage", "I32", 4},
                                      {"ShortStorage", "I16", 2},     {"CharStorage", "I8", 1},
                                      {"ByteStorage", "U8", 1},       {"BoolStorage", "BOOL", 1}};
#define DTYPES ((int)(sizeof pickle_dtypes / sizeof *pickle_dtypes))

/* The names that a file of tensors may ask for; besides these, torch's storage types. */
static const struct {
  const char *module, *name;
  enum callable { ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER, STORAGE_TYPE } does;
} globals[] = {{"collections", "OrderedDict", ORDERED_DICT},
               {"torch._utils", "_rebuild_tensor_v2", REBUILD_TENSOR},
               {"torch._utils", "_rebuild_tensor", REBUILD_TENSOR},
               {"torch._utils", "_rebuild_parameter", REBUILD_PARAMETER}};

typedef enum kind { A_MARK, A_NONE, A_NUMBER, A_TEXT, A_TUPLE, A_LIST, A_DICT, A_GLOBAL, A_STORAGE, A_TENSOR } kind;

/* Fixed in size: what it holds lies in one of the machine's lists, from `at` on. */
typedef struct value {
  kind kind;
  uint32_t count; /* of a tuple; of a storage type its dtype */
  int64_t at;     /* or the number itself, or of a global what it does */
} value;

typedef struct entry {
  int64_t dict;
  value key, value;
} entry;

typedef struct list {
  void *items;
  size_t count, capacity;
} list;

typedef struct machine {
  clm_context *context;
  const char *path;
  const unsigned char *data, *end;
  list stack, memo, items; /* of value; items are what tuples hold */
  list entries;            /* of entry                             */
  list tensors;            /* of pickle_tensor; a storage is one without a shape */
  int64_t dicts;
  char *texts;
  size_t text_bytes;
} machine;

static clm_status bad(const machine *m, const char *what) {
  return context_fail(m->context, CLM_BAD_FORMAT, "%s is not a valid file of tensors: %s", m->path, what);
}

/* Room for one more at the end. */
static clm_status append(const machine *m, list *l, size_t size, const void *item) {
  if (l->count == l->capacity) {
    size_t capacity = l->capacity ? 2 * l->capacity : 64;
    void *larger = realloc(l->items, capacity * size);
    if (!larger) return context_fail(m->context, CLM_OUT_OF_MEMORY, "out of host memory for %s", m->path);
    l->items = larger;
    l->capacity = capacity;
  }
  memcpy((char *)l->items + l->count++ * size, item, size);
  return CLM_OK;
}

static clm_status push(machine *m, value v) { return append(m, &m->stack, sizeof v, &v); }

static clm_status push_kind(machine *m, kind k, int64_t at) { return push(m, (value){.kind = k, .at = at}); }

static clm_status pop(machine *m, value *v) {
  *v = (value){.kind = A_MARK};
  if (m->stack.count == 0) return bad(m, "its pickle takes from an empty stack");
  *v = ((const value *)m->stack.items)[--m->stack.count];
  return v->kind == A_MARK ? bad(m, "its pickle takes a mark for a value") : CLM_OK;
}

static clm_status pop_kind(machine *m, kind k, const char *what, value *v) {
  TRY(pop(m, v));
  return v->kind == k ? CLM_OK : bad(m, what);
}

/* The values above the last mark, which is taken away with them: they stay where they are until the next push. */
static clm_status pop_marked(machine *m, const value **values, size_t *count) {
  const value *stack = m->stack.items;
  size_t at = m->stack.count;
  while (at > 0 && stack[at - 1].kind != A_MARK) at--;
  if (at == 0) return bad(m, "its pickle lacks a mark");
  *values = stack + at;
  *count = m->stack.count - at;
  m->stack.count = at - 1;
  return CLM_OK;
}

static clm_status push_tuple(machine *m, const value *values, size_t count) {
  value tuple = {.kind = A_TUPLE, .count = (uint32_t)count, .at = (int64_t)m->items.count};
  for (size_t i = 0; i < count; i++) TRY(append(m, &m->items, sizeof *values, &values[i]));
  return push(m, tuple);
}

static clm_status push_small_tuple(machine *m, size_t count) {
  value values[3];
  for (size_t i = count; i-- > 0;) TRY(pop(m, &values[i]));
  return push_tuple(m, values, count);
}

static const value *item(const machine *m, const value *tuple, uint32_t i) {
  return tuple->kind == A_TUPLE && i < tuple->count ? (const value *)m->items.items + tuple->at + i : NULL;
}

/* A number of a tuple, not negative. */
static clm_status number_of(const machine *m, const value *tuple, uint32_t i, int64_t *number) {
  const value *v = item(m, tuple, i);
  if (!v || v->kind != A_NUMBER || v->at < 0) return bad(m, "a tensor's sizes are not whole numbers");
  *number = v->at;
  return CLM_OK;
}

static const pickle_tensor *tensor_at(const machine *m, const value *v) {
  return (const pickle_tensor *)m->tensors.items + v->at;
}

/* Little-endian bytes of the code. */
static clm_status take(machine *m, size_t bytes, const unsigned char **at) {
  *at = m->data;
  if ((size_t)(m->end - m->data) < bytes) return bad(m, "its pickle is cut off, the file may be truncated");
  m->data += bytes;
  return CLM_OK;
}

static clm_status take_number(machine *m, size_t bytes, uint64_t *number) {
  const unsigned char *at;
  *number = 0;
  TRY(take(m, bytes, &at));
  while (bytes-- > 0) *number = *number << 8 | at[bytes];
  return CLM_OK;
}

/* A copy that ends with a zero byte; all of them fit into what the code itself takes. */
static clm_status keep_text(machine *m, const unsigned char *text, size_t bytes, int64_t *at) {
  if (memchr(text, 0, bytes)) return bad(m, "a name has a zero byte in it");
  *at = (int64_t)m->text_bytes;
  memcpy(m->texts + m->text_bytes, text, bytes);
  m->text_bytes += bytes;
  m->texts[m->text_bytes++] = '\0';
  return CLM_OK;
}

static clm_status do_unicode(machine *m) {
  uint64_t bytes;
  const unsigned char *text;
  int64_t at = 0;
  TRY(take_number(m, 4, &bytes));
  TRY(take(m, (size_t)bytes, &text));
  TRY(keep_text(m, text, (size_t)bytes, &at));
  return push_kind(m, A_TEXT, at);
}

static clm_status do_long(machine *m) {
  uint64_t bytes, bits;
  TRY(take_number(m, 1, &bytes));
  if (bytes > 8) return bad(m, "its pickle has a number of more than 64 bits");
  TRY(take_number(m, (size_t)bytes, &bits));
  if (bytes > 0 && bytes < 8 && bits >> (8 * bytes - 1)) bits |= UINT64_MAX << (8 * bytes);
  return push_kind(m, A_NUMBER, (int64_t)bits);
}

/* ---- Memo ---- */

static clm_status do_put(machine *m, size_t index_bytes) {
  uint64_t index;
  TRY(take_number(m, index_bytes, &index));
  if (m->stack.count == 0) return bad(m, "its pickle takes from an empty stack");
  const value *top = &((const value *)m->stack.items)[m->stack.count - 1];
  if (index > m->memo.count) return bad(m, "its pickle does not number its values one after another");
  if (index == m->memo.count) return append(m, &m->memo, sizeof *top, top);
  ((value *)m->memo.items)[index] = *top;
  return CLM_OK;
}

static clm_status do_get(machine *m, size_t index_bytes) {
  uint64_t index;
  TRY(take_number(m, index_bytes, &index));
  if (index >= m->memo.count) return bad(m, "its pickle asks for a value that it does not have");
  return push(m, ((const value *)m->memo.items)[index]);
}

/* ---- Names and calls ---- */

static clm_status take_line(machine *m, const char **line, size_t *bytes) {
  *line = (const char *)m->data;
  *bytes = 0;
  const unsigned char *end = memchr(m->data, '\n', (size_t)(m->end - m->data));
  if (!end) return bad(m, "its pickle is cut off, the file may be truncated");
  *bytes = (size_t)(end - m->data);
  m->data = end + 1;
  return CLM_OK;
}

static bool is(const char *line, size_t bytes, const char *text) {
  return strlen(text) == bytes && memcmp(line, text, bytes) == 0;
}

static clm_status do_global(machine *m) {
  const char *module, *name;
  size_t module_bytes, name_bytes;
  TRY(take_line(m, &module, &module_bytes));
  TRY(take_line(m, &name, &name_bytes));
  for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
    if (is(module, module_bytes, globals[i].module) && is(name, name_bytes, globals[i].name))
      return push_kind(m, A_GLOBAL, globals[i].does);
  for (int i = 0; i < DTYPES && is(module, module_bytes, "torch"); i++)
    if (is(name, name_bytes, pickle_dtypes[i].storage))
      return push(m, (value){.kind = A_GLOBAL, .at = STORAGE_TYPE, .count = (uint32_t)i});
  return context_fail(
      m->context, CLM_UNSUPPORTED, "%s asks for %.*s.%.*s: only tensors are read, nothing in a file is ever called",
      m->path, (int)(module_bytes < 80 ? module_bytes : 80), module, (int)(name_bytes < 80 ? name_bytes : 80), name);
}

/* ('storage', torch.FloatStorage, '0', 'cpu', 1000) */
static clm_status do_storage(machine *m) {
  value id;
  TRY(pop_kind(m, A_TUPLE, "a storage is not named by a tuple", &id));
  const value *type = item(m, &id, 1), *key = item(m, &id, 2);
  if (!type || type->kind != A_GLOBAL || type->at != STORAGE_TYPE || !key || key->kind != A_TEXT)
    return bad(m, "a storage lacks its type or its key");
  pickle_tensor storage = {.storage = m->texts + key->at, .dtype = (int)type->count};
  TRY(number_of(m, &id, 4, &storage.numel));
  value v = {.kind = A_STORAGE, .at = (int64_t)m->tensors.count};
  TRY(append(m, &m->tensors, sizeof storage, &storage));
  return push(m, v);
}

/* Sizes and strides, and what follows of them. */
static clm_status read_strides(const machine *m, const value *shape, const value *strides, pickle_tensor *t) {
  int64_t expected = 1;
  t->contiguous = true;
  t->span = 1;
  for (int i = t->rank - 1; i >= 0; i--) {
    TRY(number_of(m, shape, (uint32_t)i, &t->shape[i]));
    TRY(number_of(m, strides, (uint32_t)i, &t->stride[i]));
    const int64_t steps = t->shape[i] - 1;
    if (t->shape[i] && expected > INT64_MAX / 16 / t->shape[i]) return bad(m, "a tensor has an impossible shape");
    if (steps > 0 && t->stride[i] > t->numel / steps) return bad(m, "a tensor lies outside its storage");
    if (steps > 0 && t->stride[i] != expected) t->contiguous = false;
    if (steps > 0) t->span += steps * t->stride[i];
    expected *= t->shape[i];
  }
  if (expected == 0) t->span = 0;
  return CLM_OK;
}

/* (storage, offset, shape, strides, ...) */
static clm_status rebuild_tensor(machine *m, const value *args) {
  const value *storage = item(m, args, 0), *shape = item(m, args, 2), *strides = item(m, args, 3);
  if (!storage || storage->kind != A_STORAGE || !shape || shape->kind != A_TUPLE || !strides ||
      strides->kind != A_TUPLE || strides->count != shape->count)
    return bad(m, "a tensor lacks its storage, shape or strides");
  if (shape->count > CLM_MAX_RANK) return bad(m, "a tensor has more than 5 dimensions");
  pickle_tensor t = *tensor_at(m, storage);
  TRY(number_of(m, args, 1, &t.offset));
  t.rank = (int)shape->count;
  TRY(read_strides(m, shape, strides, &t));
  if (t.offset > t.numel || t.span > t.numel - t.offset) return bad(m, "a tensor lies outside its storage");
  value v = {.kind = A_TENSOR, .at = (int64_t)m->tensors.count};
  TRY(append(m, &m->tensors, sizeof t, &t));
  return push(m, v);
}

static clm_status do_reduce(machine *m) {
  value args, function;
  TRY(pop_kind(m, A_TUPLE, "its pickle calls something without a tuple", &args));
  TRY(pop_kind(m, A_GLOBAL, "its pickle calls what is not a name", &function));
  const value *first = item(m, &args, 0);
  switch (function.at) {
  case ORDERED_DICT: return push_kind(m, A_DICT, m->dicts++); /* torch fills it afterwards */
  case REBUILD_TENSOR: return rebuild_tensor(m, &args);
  case REBUILD_PARAMETER:
    return first && first->kind == A_TENSOR ? push(m, *first) : bad(m, "a parameter has no tensor");
  default: return bad(m, "its pickle calls what cannot be called");
  }
}

static clm_status set_items(machine *m, const value *values, size_t count) {
  if (count % 2) return bad(m, "its pickle has a key without a value");
  if (m->stack.count == 0 || ((const value *)m->stack.items)[m->stack.count - 1].kind != A_DICT)
    return bad(m, "its pickle fills what is not a dictionary");
  int64_t dict = ((const value *)m->stack.items)[m->stack.count - 1].at;
  for (size_t i = 0; i < count; i += 2) {
    entry e = {dict, values[i], values[i + 1]};
    TRY(append(m, &m->entries, sizeof e, &e));
  }
  return CLM_OK;
}

static clm_status do_setitem(machine *m) {
  value pair[2];
  TRY(pop(m, &pair[1]));
  TRY(pop(m, &pair[0]));
  return set_items(m, pair, 2);
}

/* What a list holds, and what an object is told by BUILD, is of no use here. */
static clm_status drop(machine *m, kind k, const char *what) {
  if (m->stack.count == 0) return bad(m, "its pickle takes from an empty stack");
  return ((const value *)m->stack.items)[m->stack.count - 1].kind == k ? CLM_OK : bad(m, what);
}

static clm_status refuse(const machine *m, int code) {
  const char *name = "unknown";
  switch (code) {
#define X(opcode, byte)                                                                                              \
  case byte: name = #opcode; break;
    REFUSED_OPCODES(X)
#undef X
  default: break;
  }
  return context_fail(m->context, CLM_UNSUPPORTED,
                      "%s: its pickle has opcode %s (0x%02x), which no file of tensors needs", m->path, name,
                      (unsigned)code);
}

static clm_status step(machine *m, int code) {
  uint64_t number;
  const unsigned char *bytes;
  const value *values = NULL;
  size_t count = 0;
  value v;
  switch (code) {
  case OP_PROTO:
    TRY(take_number(m, 1, &number));
    return number == 2 ? CLM_OK : bad(m, "its pickle is not of protocol 2");
  case OP_MARK: return push_kind(m, A_MARK, 0);
  case OP_NONE: return push_kind(m, A_NONE, 0);
  case OP_NEWTRUE: return push_kind(m, A_NUMBER, 1);
  case OP_NEWFALSE: return push_kind(m, A_NUMBER, 0);
  case OP_BININT: TRY(take_number(m, 4, &number)); return push_kind(m, A_NUMBER, (int32_t)number);
  case OP_BININT1: TRY(take_number(m, 1, &number)); return push_kind(m, A_NUMBER, (int64_t)number);
  case OP_BININT2: TRY(take_number(m, 2, &number)); return push_kind(m, A_NUMBER, (int64_t)number);
  case OP_LONG1: return do_long(m);
  case OP_BINFLOAT: TRY(take(m, 8, &bytes)); return push_kind(m, A_NONE, 0);
  case OP_BINUNICODE: return do_unicode(m);
  case OP_EMPTY_TUPLE: return push_tuple(m, NULL, 0);
  case OP_TUPLE: TRY(pop_marked(m, &values, &count)); return push_tuple(m, values, count);
  case OP_TUPLE1: return push_small_tuple(m, 1);
  case OP_TUPLE2: return push_small_tuple(m, 2);
  case OP_TUPLE3: return push_small_tuple(m, 3);
  case OP_EMPTY_LIST: return push_kind(m, A_LIST, 0);
  case OP_APPEND: TRY(pop(m, &v)); return drop(m, A_LIST, "its pickle fills what is not a list");
  case OP_APPENDS: TRY(pop_marked(m, &values, &count)); return drop(m, A_LIST, "its pickle fills what is not a list");
  case OP_EMPTY_DICT: return push_kind(m, A_DICT, m->dicts++);
  case OP_SETITEM: return do_setitem(m);
  case OP_SETITEMS: TRY(pop_marked(m, &values, &count)); return set_items(m, values, count);
  case OP_BINPUT: return do_put(m, 1);
  case OP_LONG_BINPUT: return do_put(m, 4);
  case OP_BINGET: return do_get(m, 1);
  case OP_LONG_BINGET: return do_get(m, 4);
  case OP_GLOBAL: return do_global(m);
  case OP_REDUCE: return do_reduce(m);
  case OP_BUILD: TRY(pop(m, &v)); return drop(m, A_DICT, "its pickle sets members of what is not a dictionary");
  case OP_BINPERSID: return do_storage(m);
  default: return refuse(m, code);
  }
}

/* The dictionary's tensors, by name. What else it holds is passed over. */
static clm_status collect(machine *m, const value *root, pickle *out) {
  const entry *entries = m->entries.items;
  out->tensors = calloc(m->entries.count + 1, sizeof *out->tensors);
  if (!out->tensors) return context_fail(m->context, CLM_OUT_OF_MEMORY, "out of host memory for %s", m->path);
  for (size_t i = 0; i < m->entries.count; i++) {
    const entry *e = &entries[i];
    if (e->dict != root->at || e->key.kind != A_TEXT || e->value.kind != A_TENSOR) continue;
    pickle_tensor *t = &out->tensors[out->count++];
    *t = *tensor_at(m, &e->value);
    t->name = m->texts + e->key.at;
  }
  return out->count ? CLM_OK : bad(m, "it holds no tensors by name");
}

static clm_status run(machine *m, pickle *out) {
  for (;;) {
    const unsigned char *code;
    TRY(take(m, 1, &code));
    if (*code != OP_STOP) {
      TRY(step(m, *code));
      continue;
    }
    value root;
    TRY(pop_kind(m, A_DICT, "it is not a dictionary of tensors", &root));
    return collect(m, &root, out);
  }
}

clm_status pickle_read(clm_context *ctx, const char *path, const unsigned char *data, size_t bytes, pickle *out) {
  *out = (pickle){.texts = malloc(bytes + 1)};
  if (!out->texts) return context_fail(ctx, CLM_OUT_OF_MEMORY, "out of host memory for %s", path);
  machine m = {.context = ctx, .path = path, .data = data, .end = data + bytes, .texts = out->texts};
  clm_status status = run(&m, out);
  list *const lists[] = {&m.stack, &m.memo, &m.items, &m.entries, &m.tensors};
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) free(lists[i]->items);
  if (status) pickle_free(out);
  return status;
}

void pickle_free(pickle *p) {
  free(p->tensors);
  free(p->texts);
  *p = (pickle){0};
}
