#include "ops/check.h"
#include "ops/view.h"
#include <stdarg.h>
#include <stdio.h>

#define DTYPES 8
_Static_assert(CLM_I8 == DTYPES - 1 && OP_MAIN == 1 << DTYPES, "a set of dtypes has one bit for each");

/* The product of all dimensions of a call stays below this, so that no size in bytes overflows after this layer. Of
 * several weights' dimensions, each with the rest. */
#define MAX_ELEMENTS ((int64_t)1 << 58)

clm_status op_fail(const op_call *c, const char *format, ...) {
  char message[400];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof message, format, args);
  va_end(args);
  return context_fail(c->context, CLM_INVALID_ARGUMENT, "%s: %s", c->table->name, message);
}

/* ---- Names ---- */

static const clm_tensor *tensor_at(const op_call *c, size_t i) {
  return (const clm_tensor *)(const void *)((const char *)c->args + c->rows[i]->member);
}

static bool present(const op_call *c, size_t i) { return op_present(tensor_at(c, i)); }

const clm_tensor *op_tensor_of(const op_call *c, const char *name) {
  size_t i = 0;
  while (strcmp(c->rows[i]->name, name) != 0) i++; /* tables name their own tensors */
  return tensor_at(c, i);
}

static bool is_given(const op_call *c, const char *name) { return op_present(op_tensor_of(c, name)); }

static const op_scalar *scalar_named(const op_call *c, const char *name) {
  const op_scalar *s = c->table->scalars;
  while (strcmp(s->name, name) != 0) s++;
  return s;
}

/* Which of the table's dimensions this one is in the call; OP_DIMS where there is none. */
static unsigned char place_of(const op_call *c, unsigned char i) {
  const op_dim *dims = c->table->dims, *dim = &dims[i];
  if (op_lacks(c, dim->letter)) return OP_DIMS;
  if (!(dim->with && !is_given(c, dim->with)) && !(dim->along && op_lacks(c, dim->along))) return i;
  unsigned char other = 0;
  while (dims[other].letter != dim->otherwise) other++;
  return other;
}

/* The dimensions of a shape that the call has; the rank. */
static int sizes_of(const op_call *c, const char *shape, const op_size *sizes[CLM_MAX_RANK]) {
  int rank = 0;
  for (char letter; (letter = op_next(&shape)) != '\0';) {
    const op_size *s = op_size_of(c, letter);
    if (s->dim) sizes[rank++] = s;
  }
  return rank;
}

/* ---- Dtypes ---- */

/* "f32, f16 or bf16" */
static void dtype_list(char *text, size_t size, unsigned dtypes) {
  text[0] = '\0';
  for (int i = 0; i < DTYPES; i++) {
    if (!(dtypes & OP_DTYPE(i))) continue;
    dtypes &= ~OP_DTYPE(i);
    size_t used = strlen(text);
    const char *join = used == 0 ? "" : dtypes ? ", " : " or ";
    snprintf(text + used, size - used, "%s%s", join, clm_dtype_name((clm_dtype)i));
  }
}

static int rank_of(const char *shape) {
  int rank = 0;
  while (op_next(&shape)) rank++;
  return rank;
}

bool op_has_second(const op_tensor *row, const clm_tensor *t) {
  const char *second = op_second(row);
  return second && t->rank == rank_of(second);
}

static clm_status check_dtype(const op_call *c, const op_tensor *row, const clm_tensor *t) {
  if ((unsigned)t->dtype >= DTYPES) return op_fail(c, "%s has the unknown dtype %d", row->name, (int)t->dtype);
  const clm_tensor *as = row->dtypes.as ? op_tensor_of(c, row->dtypes.as) : NULL;
  if (as && !row->dtypes.set) {
    if (t->dtype == as->dtype || !op_present(as)) return CLM_OK;
    return op_fail(c, "%s is %s, expected %s as %s", row->name, clm_dtype_name(t->dtype), clm_dtype_name(as->dtype),
                   row->dtypes.as);
  }
  const bool second = row->dtypes.second && op_has_second(row, t);
  const unsigned set =
      op_dtype_set(&row->dtypes, c->main, c->complex, second) | (as && op_present(as) ? OP_DTYPE(as->dtype) : 0);
  if (set & OP_DTYPE(t->dtype)) return CLM_OK;
  char expected[64];
  dtype_list(expected, sizeof expected, set);
  return op_fail(c, "%s is %s, expected %s", row->name, clm_dtype_name(t->dtype), expected);
}

/* ---- Shapes ---- */

/* "(batch, length, d_inner)" */
static void dim_list(const op_call *c, char *text, size_t size, const char *shape) {
  const op_size *sizes[CLM_MAX_RANK];
  const int rank = sizes_of(c, shape, sizes);
  size_t used = 0;
  for (int i = 0; i < rank && used < size; i++)
    used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "(", sizes[i]->dim->name);
  if (used < size) snprintf(text + used, size - used, ")");
}

/* A shape that can be walked and a view that lies inside its buffer, whatever the numbers in the descriptor are. */
static clm_status check_view(const op_call *c, const char *name, const clm_tensor *t) {
  if (t->buffer->context != c->context) return op_fail(c, "%s belongs to another context", name);
  int64_t elements = 1;
  for (int i = 0; i < t->rank; i++) {
    if (t->shape[i] < 1)
      return op_fail(c, "%s has size %lld in dimension %d, expected at least 1", name, (long long)t->shape[i], i);
    if (t->stride[i] < 0)
      return op_fail(c, "%s has stride %lld in dimension %d, expected at least 0", name, (long long)t->stride[i], i);
    if (__builtin_mul_overflow(elements, t->shape[i], &elements) || elements > MAX_ELEMENTS)
      return op_fail(c, "%s has too many elements", name);
  }
  size_t size = clm_dtype_size(t->dtype), have = t->buffer->bytes;
  if (t->offset % size) return op_fail(c, "%s has offset %zu, expected a multiple of %zu", name, t->offset, size);
  const size_t number = op_is_complex(t->dtype) ? size / 2 : size;
  if (t->buffer->host && ((uintptr_t)t->buffer->host + t->offset) % number) /* memory that the caller wrapped */
    return op_fail(c, "%s lies at an address that is not a multiple of %zu", name, number);
  int64_t bytes;
  if (!view_extent(t, &bytes) || t->offset > have || (uint64_t)bytes > have - t->offset)
    return op_fail(c, "%s reaches past its buffer of %zu bytes", name, have);
  return CLM_OK;
}

static clm_status set_size(op_call *c, op_size *s, int64_t size, const char *name) {
  int64_t elements;
  s->size = size;
  s->from = name;
  bool fits = !__builtin_mul_overflow(c->elements, size, &elements) && elements <= MAX_ELEMENTS;
  if (!s->dim->apart) c->elements = elements;
  if (fits) return CLM_OK;
  return op_fail(c, "%s has %s %lld, the sizes together are too large", name, s->dim->name, (long long)size);
}

static clm_status check_size(op_call *c, const char *name, const op_size *s, int64_t size) {
  const op_dim *dim = s->dim;
  if (dim->of) {
    const op_size *of = op_size_of(c, dim->of);
    const int64_t expected = of->size + dim->plus;
    if (size == expected) return CLM_OK;
    return op_fail(c, "%s has %s %lld, expected %lld as %s has %s %lld", name, dim->name, (long long)size,
                   (long long)expected, of->from, of->dim->name, (long long)of->size);
  }
  if (s->size == 0) return set_size(c, &c->sizes[s - c->sizes], size, name);
  if (size == s->size) return CLM_OK;
  if (!s->from)
    return op_fail(c, "%s has %s %lld, expected %lld", name, dim->name, (long long)size, (long long)s->size);
  return op_fail(c, "%s has %s %lld, expected %lld as in %s", name, dim->name, (long long)size, (long long)s->size,
                 s->from);
}

static clm_status check_shape(op_call *c, const op_tensor *row, const clm_tensor *t) {
  if (t->rank < 1 || t->rank > CLM_MAX_RANK)
    return op_fail(c, "%s has rank %d, expected 1 to %d", row->name, t->rank, CLM_MAX_RANK);
  TRY(check_view(c, row->name, t));
  if (!row->shape) return CLM_OK;
  const op_size *sizes[CLM_MAX_RANK];
  if (t->rank != sizes_of(c, row->shape, sizes) &&
      !(op_has_second(row, t) && t->rank == sizes_of(c, op_second(row), sizes))) {
    char expected[80], or_expected[80] = "";
    dim_list(c, expected, sizeof expected, row->shape);
    if (op_second(row)) dim_list(c, or_expected, sizeof or_expected, op_second(row));
    return op_fail(c, "%s has rank %d, expected %s%s%s", row->name, t->rank, expected, *or_expected ? " or " : "",
                   or_expected);
  }
  for (int i = 0; i < t->rank; i++) TRY(check_size(c, row->name, sizes[i], t->shape[i]));
  return CLM_OK;
}

static clm_status check_same_shape(const op_call *c, const op_tensor *row, const clm_tensor *t) {
  if (!row->shape_as) return CLM_OK;
  const clm_tensor *expected = op_tensor_of(c, row->shape_as);
  if (t->rank != expected->rank)
    return op_fail(c, "%s has rank %d, expected %d as %s", row->name, t->rank, expected->rank, row->shape_as);
  for (int i = 0; i < t->rank; i++)
    if (t->shape[i] != expected->shape[i])
      return op_fail(c, "%s has size %lld in dimension %d, expected %lld as in %s", row->name, (long long)t->shape[i],
                     i, (long long)expected->shape[i], row->shape_as);
  return CLM_OK;
}

/* ---- Between tensors ---- */

static clm_status check_written(op_call *c, size_t i) {
  const op_tensor *row = c->rows[i];
  const clm_tensor *t = tensor_at(c, i);
  c->written++;
  t->buffer->version++;
  if (view_repeats(t)) return op_fail(c, "%s is written, but its strides let elements share memory", row->name);
  for (size_t j = 0; j < c->count; j++) {
    const bool seen = j == i || (j < i && c->rows[j]->role != OP_IN); /* each pair of outputs once */
    const clm_tensor *other = tensor_at(c, j);
    if (seen || !op_present(other) || !view_overlap(t, other)) continue;
    if (!op_lists(row->may_be, c->rows[j]->name) || !view_same(t, other))
      return op_fail(c, "%s overlaps %s", row->name, c->rows[j]->name);
  }
  return CLM_OK;
}

/* What is given only with another tensor or a scalar, and scales of matrices in i8. */
static clm_status check_company(const op_call *c, const op_tensor *row, const clm_tensor *t) {
  if (row->scale_of) {
    const clm_tensor *matrix = op_tensor_of(c, row->scale_of);
    const bool wanted = op_present(matrix) && matrix->dtype == CLM_I8;
    if (wanted && !op_present(t))
      return op_fail(c, "%s is missing, expected it as %s is i8", row->name, row->scale_of);
    if (!wanted && op_present(t)) return op_fail(c, "%s is given, but %s is not i8", row->name, row->scale_of);
  }
  if (!op_present(t)) return CLM_OK;
  if (row->with && !is_given(c, row->with)) return op_fail(c, "%s is given, but %s is missing", row->name, row->with);
  if (row->when && !*((const bool *)c->args + scalar_named(c, row->when)->member))
    return op_fail(c, "%s is given, but %s is not set", row->name, row->when);
  if (!(row->flags & OP_ROWS) || t->shape[0] == 1 || t->shape[1] == 1 || t->stride[0] == t->shape[1] * t->stride[1])
    return CLM_OK;
  return op_fail(c, "%s has stride %lld between its batch rows, expected %lld: contiguous rows", row->name,
                 (long long)t->stride[0], (long long)(t->shape[1] * t->stride[1]));
}

static clm_status check_tensors(op_call *c) {
  for (size_t i = 0; i < c->count; i++) {
    if (present(c, i)) TRY(check_dtype(c, c->rows[i], tensor_at(c, i)));
    else if (!(c->rows[i]->flags & OP_OPTIONAL)) return op_fail(c, "%s is missing", c->rows[i]->name);
  }
  for (size_t i = 0; i < c->count; i++)
    if (present(c, i)) TRY(check_shape(c, c->rows[i], tensor_at(c, i)));
  for (size_t i = 0; i < c->count; i++)
    if (present(c, i)) TRY(check_same_shape(c, c->rows[i], tensor_at(c, i)));
  for (size_t i = 0; i < c->count; i++)
    if (present(c, i) && c->rows[i]->role != OP_IN) TRY(check_written(c, i));
  for (size_t i = 0; i < c->count; i++) TRY(check_company(c, c->rows[i], tensor_at(c, i)));
  return CLM_OK;
}

/* ---- Scalars ---- */

static clm_status check_scalar(const op_call *c, const op_scalar *s) {
  const void *at = (const char *)c->args + s->member;
  if (!s->expected && s->kind != OP_CHOICE) return CLM_OK;
  if (s->with && !is_given(c, s->with)) return CLM_OK;
  switch (s->kind) {
  case OP_CHOICE: {
    const int value = *(const int *)at;
    if (value >= 0 && value < s->high) return CLM_OK;
    return op_fail(c, "%s is %d, expected 0 to %d", s->name, value, (int)s->high - 1);
  }
  case OP_COUNT: {
    const int64_t value = *(const int64_t *)at;
    if ((double)value >= s->low && (double)value < s->high) return CLM_OK;
    return op_fail(c, "%s is %lld, expected %s", s->name, (long long)value, s->expected);
  }
  default: {
    const double value = (double)*(const float *)at; /* not a number is outside */
    if (value >= s->low && value < s->high) return CLM_OK;
    return op_fail(c, "%s is %g, expected %s", s->name, value, s->expected);
  }
  }
}

/* ---- The call ---- */

static clm_status begin(op_call *c, clm_context *context, const op_table *table, const void *args) {
  c->context = context; /* not all of it: every call of every operation comes by here */
  c->table = table;
  c->args = args;
  c->lacks = "";
  c->count = 0;
  c->main = CLM_F32;
  c->elements = 1;
  c->written = 0;
  c->sizes[OP_DIMS] = (op_size){0};
  if (!context) return CLM_INVALID_ARGUMENT;
  context->error[0] = '\0';
  context->explain[0] = '\0';
  if (!args) return op_fail(c, "args is NULL");
  for (size_t part = 0; part < OP_PARTS; part++)
    for (size_t i = 0; i < table->parts[part].count; i++) c->rows[c->count++] = &table->parts[part].tensors[i];
  if (table->main) c->main = op_tensor_of(c, table->main)->dtype;
  c->complex = table->rate && op_is_complex(op_tensor_of(c, table->rate)->dtype);
  if (table->form) TRY(table->form(c));
  for (unsigned char i = 0; table->dims && table->dims[i].letter; i++) {
    c->sizes[i] = (op_size){.size = table->dims[i].size, .dim = &table->dims[i]};
    c->at[(int)table->dims[i].letter] = place_of(c, i);
  }
  return CLM_OK;
}

clm_status op_check(op_call *c, clm_context *context, const op_table *table, const void *args) {
  TRY(begin(c, context, table, args));
  TRY(check_tensors(c));
  for (const op_scalar *s = table->scalars; s && s->name; s++) TRY(check_scalar(c, s));
  return CLM_OK;
}

/* ---- The backend ---- */

const backend_ops *op_slots(const clm_context *context) {
  switch (context->calls) {
  case CALLS_CHECK: return &context->supports;
  case CALLS_RECORD: return &context->record;
  default: return &context->ops;
  }
}

clm_status op_without_slot(const clm_context *context) {
  return context->calls == CALLS_CHECK ? CLM_OK : CLM_UNSUPPORTED;
}

clm_status op_finished(const op_call *c, clm_status status) {
  if (status == CLM_UNSUPPORTED && c->context->error[0] == '\0')
    return context_fail(c->context, status, "%s: the %s backend does not have this operation for these arguments",
                        c->table->name, c->context->backend->name);
  return status;
}
