#include "ops/check.h"
#include "ops/view.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define DTYPES 8
_Static_assert(CLM_I8 == DTYPES - 1, "a set of dtypes has one bit for each");

/* The product of all dimensions of a call stays below this, so that no size in bytes overflows after this layer. Of
 * several weights' dimensions, each with the rest. */
#define MOST_ELEMENTS ((int64_t)1 << 58)

clm_status check_fail(checker *c, const char *format, ...) {
  char sentence[400];
  va_list args;
  va_start(args, format);
  vsnprintf(sentence, sizeof sentence, format, args);
  va_end(args);
  return context_fail(c->context, CLM_INVALID_ARGUMENT, "%s: %s", c->op, sentence);
}

clm_status check_begin(checker *c, clm_context *context, const char *op, const void *args) {
  *c = (checker){.context = context, .op = op, .elements = 1};
  if (!context) return CLM_INVALID_ARGUMENT;
  context->error[0] = '\0';
  context->explain[0] = '\0';
  return args ? CLM_OK : check_fail(c, "args is NULL");
}

clm_dtype check_real_of(clm_dtype dtype) { return dtype == CLM_F64 || dtype == CLM_C128 ? CLM_F64 : CLM_F32; }
clm_dtype check_complex_of(clm_dtype dtype) { return dtype == CLM_F64 || dtype == CLM_C128 ? CLM_C128 : CLM_C64; }
unsigned check_storage_of(clm_dtype dtype) {
  return check_real_of(dtype) == CLM_F64 ? CHECK_DTYPE(CLM_F64) : CHECK_FLOAT & ~CHECK_DTYPE(CLM_F64);
}
bool check_is_complex(clm_dtype dtype) { return dtype == CLM_C64 || dtype == CLM_C128; }
unsigned check_weight_of(clm_dtype storage) { return CHECK_DTYPE(check_real_of(storage)) | CHECK_DTYPE(storage); }
unsigned check_number_beside(clm_dtype storage, clm_dtype A) {
  return CHECK_DTYPE(check_is_complex(A) ? check_complex_of(storage) : check_real_of(storage));
}
unsigned check_weight_beside(clm_dtype storage, clm_dtype A) {
  return check_is_complex(A) ? check_number_beside(storage, A) : check_weight_of(storage);
}
bool check_present(const clm_tensor *tensor) { return tensor->buffer != NULL; }

/* ---- One row ---- */

static int rank_of(check_dim *const *dims) {
  int rank = 0;
  while (rank < CLM_MAX_RANK && dims[rank]) rank++;
  return rank;
}

static const char *name_of(const clm_tensor *tensor, const check_tensor *rows, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (rows[i].tensor == tensor) return rows[i].name;
  return "?";
}

/* "f32, f16 or bf16" */
static void dtype_list(char *text, size_t size, unsigned dtypes) {
  text[0] = '\0';
  for (int i = 0; i < DTYPES; i++) {
    if (!(dtypes & CHECK_DTYPE(i))) continue;
    dtypes &= ~CHECK_DTYPE(i);
    size_t used = strlen(text);
    const char *join = used == 0 ? "" : dtypes ? ", " : " or ";
    snprintf(text + used, size - used, "%s%s", join, clm_dtype_name((clm_dtype)i));
  }
}

/* "(batch, length, d_inner)" */
static void dim_list(char *text, size_t size, check_dim *const *dims) {
  size_t used = 0;
  for (int i = 0; i < rank_of(dims) && used < size; i++)
    used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "(", dims[i]->name);
  if (used < size) snprintf(text + used, size - used, ")");
}

static clm_status check_dtype(checker *c, const check_tensor *row, const check_tensor *rows, size_t count) {
  clm_dtype dtype = row->tensor->dtype;
  if ((unsigned)dtype >= DTYPES) return check_fail(c, "%s has the unknown dtype %d", row->name, (int)dtype);
  if (row->as) {
    if (dtype == row->as->dtype) return CLM_OK;
    return check_fail(c, "%s is %s, expected %s as %s", row->name, clm_dtype_name(dtype),
                      clm_dtype_name(row->as->dtype), name_of(row->as, rows, count));
  }
  if (row->dtypes & CHECK_DTYPE(dtype)) return CLM_OK;
  char expected[64];
  dtype_list(expected, sizeof expected, row->dtypes);
  return check_fail(c, "%s is %s, expected %s", row->name, clm_dtype_name(dtype), expected);
}

/* A shape that can be walked and a view that lies inside its buffer, whatever the numbers in the descriptor are. */
static clm_status check_view(checker *c, const char *name, const clm_tensor *t) {
  if (t->buffer->context != c->context) return check_fail(c, "%s belongs to another context", name);
  int64_t elements = 1;
  for (int i = 0; i < t->rank; i++) {
    if (t->shape[i] < 1)
      return check_fail(c, "%s has size %lld in dimension %d, expected at least 1", name, (long long)t->shape[i], i);
    if (t->stride[i] < 0)
      return check_fail(c, "%s has stride %lld in dimension %d, expected at least 0", name, (long long)t->stride[i],
                        i);
    if (__builtin_mul_overflow(elements, t->shape[i], &elements) || elements > MOST_ELEMENTS)
      return check_fail(c, "%s has too many elements", name);
  }
  size_t size = clm_dtype_size(t->dtype), have = t->buffer->bytes;
  if (t->offset % size) return check_fail(c, "%s has offset %zu, expected a multiple of %zu", name, t->offset, size);
  const size_t number = check_is_complex(t->dtype) ? size / 2 : size;
  if (t->buffer->host && ((uintptr_t)t->buffer->host + t->offset) % number) /* memory that the caller wrapped */
    return check_fail(c, "%s lies at an address that is not a multiple of %zu", name, number);
  int64_t bytes;
  if (!view_extent(t, &bytes) || t->offset > have || (uint64_t)bytes > have - t->offset)
    return check_fail(c, "%s reaches past its buffer of %zu bytes", name, have);
  return CLM_OK;
}

static clm_status bind(checker *c, check_dim *dim, int64_t size, const char *name) {
  int64_t elements;
  dim->size = size;
  dim->from = name;
  bool fits = !__builtin_mul_overflow(c->elements, size, &elements) && elements <= MOST_ELEMENTS;
  if (!dim->beside) c->elements = elements;
  if (!fits)
    return check_fail(c, "%s has %s %lld, the sizes together are too large", name, dim->name, (long long)size);
  return CLM_OK;
}

static clm_status check_size(checker *c, const char *name, check_dim *dim, int64_t size) {
  if (dim->of) {
    int64_t expected = dim->of->size + dim->plus;
    if (size == expected) return CLM_OK;
    return check_fail(c, "%s has %s %lld, expected %lld as %s has %s %lld", name, dim->name, (long long)size,
                      (long long)expected, dim->of->from, dim->of->name, (long long)dim->of->size);
  }
  if (dim->size == 0) return bind(c, dim, size, name);
  if (size == dim->size) return CLM_OK;
  if (!dim->from)
    return check_fail(c, "%s has %s %lld, expected %lld", name, dim->name, (long long)size, (long long)dim->size);
  return check_fail(c, "%s has %s %lld, expected %lld as in %s", name, dim->name, (long long)size,
                    (long long)dim->size, dim->from);
}

static clm_status check_shape(checker *c, const check_tensor *row) {
  const clm_tensor *t = row->tensor;
  if (t->rank < 1 || t->rank > CLM_MAX_RANK)
    return check_fail(c, "%s has rank %d, expected 1 to %d", row->name, t->rank, CLM_MAX_RANK);
  clm_status status = check_view(c, row->name, t);
  if (status || !row->dims[0]) return status;
  check_dim *const *dims = row->or_dims[0] && t->rank == rank_of(row->or_dims) ? row->or_dims : row->dims;
  if (t->rank != rank_of(dims)) {
    char expected[80], or_expected[80] = "";
    dim_list(expected, sizeof expected, row->dims);
    if (row->or_dims[0]) dim_list(or_expected, sizeof or_expected, row->or_dims);
    return check_fail(c, "%s has rank %d, expected %s%s%s", row->name, t->rank, expected,
                      row->or_dims[0] ? " or " : "", or_expected);
  }
  for (int i = 0; i < t->rank && !status; i++) status = check_size(c, row->name, dims[i], t->shape[i]);
  return status;
}

static clm_status check_same_shape(checker *c, const check_tensor *row, const char *expected_name) {
  const clm_tensor *t = row->tensor, *expected = row->shape_as;
  if (t->rank != expected->rank)
    return check_fail(c, "%s has rank %d, expected %d as %s", row->name, t->rank, expected->rank, expected_name);
  for (int i = 0; i < t->rank; i++)
    if (t->shape[i] != expected->shape[i])
      return check_fail(c, "%s has size %lld in dimension %d, expected %lld as in %s", row->name,
                        (long long)t->shape[i], i, (long long)expected->shape[i], expected_name);
  return CLM_OK;
}

/* ---- The table ---- */

static bool allowed(const check_tensor *written, const clm_tensor *other) {
  for (int i = 0; i < 2; i++)
    if (written->may_be[i] == other && view_same(written->tensor, other)) return true;
  return false;
}

static clm_status check_overlap(checker *c, const check_tensor *rows, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (!(rows[i].flags & CHECK_WRITTEN) || !check_present(rows[i].tensor)) continue;
    c->written++;
    rows[i].tensor->buffer->version++;
    if (view_repeats(rows[i].tensor))
      return check_fail(c, "%s is written, but its strides let elements share memory", rows[i].name);
    for (size_t j = 0; j < count; j++) {
      bool seen = j == i || (j < i && (rows[j].flags & CHECK_WRITTEN)); /* each pair of outputs once */
      if (seen || !check_present(rows[j].tensor) || allowed(&rows[i], rows[j].tensor)) continue;
      if (view_overlap(rows[i].tensor, rows[j].tensor))
        return check_fail(c, "%s overlaps %s", rows[i].name, rows[j].name);
    }
  }
  return CLM_OK;
}

clm_status check_tensors(checker *c, const check_tensor *rows, size_t count) {
  clm_status status = CLM_OK;
  for (size_t i = 0; i < count && !status; i++) {
    if (check_present(rows[i].tensor)) status = check_dtype(c, &rows[i], rows, count);
    else if (!(rows[i].flags & CHECK_OPTIONAL)) status = check_fail(c, "%s is missing", rows[i].name);
  }
  for (size_t i = 0; i < count && !status; i++)
    if (check_present(rows[i].tensor)) status = check_shape(c, &rows[i]);
  for (size_t i = 0; i < count && !status; i++)
    if (check_present(rows[i].tensor) && rows[i].shape_as)
      status = check_same_shape(c, &rows[i], name_of(rows[i].shape_as, rows, count));
  return status ? status : check_overlap(c, rows, count);
}

/* ---- What is not a tensor ---- */

clm_status check_number(checker *c, const char *name, double value, double low, double high, const char *expected) {
  if (value >= low && value < high) return CLM_OK;
  return check_fail(c, "%s is %g, expected %s", name, value, expected);
}

clm_status check_choice(checker *c, const char *name, int value, int count) {
  if (value >= 0 && value < count) return CLM_OK;
  return check_fail(c, "%s is %d, expected 0 to %d", name, value, count - 1);
}

clm_status check_scale(checker *c, const char *name, const clm_tensor *scale, const char *matrix_name,
                       const clm_tensor *matrix) {
  const bool wanted = check_present(matrix) && matrix->dtype == CLM_I8;
  if (wanted == check_present(scale)) return CLM_OK;
  if (wanted) return check_fail(c, "%s is missing, expected it as %s is i8", name, matrix_name);
  return check_fail(c, "%s is given, but %s is not i8", name, matrix_name);
}

bool ops_only_rehearsed(const clm_context *context) { return context->rehearsing && !context->backend->rehearses; }

clm_status ops_finished(clm_context *context, const char *op, clm_status status) {
  if (status == CLM_UNSUPPORTED && context->error[0] == '\0')
    return context_fail(context, status, "%s: the %s backend does not have this operation for these arguments", op,
                        context->backend->name);
  return status;
}
