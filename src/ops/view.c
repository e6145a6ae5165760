#include "ops/view.h"
#include "core/arith.h"

bool view_extent(const clm_tensor *t, int64_t *bytes) {
  int64_t last = 0;
  for (int i = 0; i < t->rank; i++) {
    int64_t reach;
    if (__builtin_mul_overflow(t->shape[i] - 1, t->stride[i], &reach) || __builtin_add_overflow(last, reach, &last))
      return false;
  }
  int64_t size = (int64_t)clm_dtype_size(t->dtype);
  return !__builtin_mul_overflow(last, size, bytes) && !__builtin_add_overflow(*bytes, size, bytes);
}

/* A step in bytes that may be taken 0 to `most` times. */
typedef struct span {
  int64_t step, most;
} span;

/* Keeps the spans sorted by falling step, equal ones merged. */
static int add_span(span *spans, int count, int64_t step, int64_t most) {
  if (step == 0 || most == 0) return count;
  int i = 0;
  while (i < count && spans[i].step > step) i++;
  if (i < count && spans[i].step == step) {
    spans[i].most += most;
    return count;
  }
  for (int j = count; j > i; j--) spans[j] = spans[j - 1];
  spans[i] = (span){step, most};
  return count + 1;
}

static int add_view(span *spans, int count, const clm_tensor *t) {
  int64_t size = (int64_t)clm_dtype_size(t->dtype);
  for (int i = 0; i < t->rank; i++) /* of a dimension of size 1 the stride may be anything */
    if (t->shape[i] > 1) count = add_span(spans, count, t->stride[i] * size, t->shape[i] - 1);
  return count;
}

bool view_repeats(const clm_tensor *t) {
  span spans[CLM_MAX_RANK];
  int count = add_view(spans, 0, t);
  int64_t elements = 1;
  for (int i = 0; i < t->rank; i++) elements *= t->shape[i];
  /* Two dimensions of equal stride were merged, one of stride 0 left out: the merged box is then too small. */
  int64_t distinct = 1, inner = (int64_t)clm_dtype_size(t->dtype);
  for (int i = count - 1; i >= 0; i--) {
    if (spans[i].step < inner) return true;
    inner = spans[i].step * (spans[i].most + 1);
    distinct *= spans[i].most + 1;
  }
  return distinct < elements;
}

/* Whether some choice of steps adds up to `target`; `total` is the sum of all of them taken as often as they may. */
static bool reaches(const span *spans, int count, int64_t target, int64_t total, int *budget) {
  if (target < 0 || target > total) return false;
  if (target == 0 || target == total) return true;
  if (count == 0) return false;
  int64_t step = spans->step, rest = total - step * spans->most;
  int64_t high = target / step < spans->most ? target / step : spans->most;
  int64_t low = target > rest ? div_up(target - rest, step) : 0;
  for (int64_t n = high; n >= low; n--) {
    if (--*budget < 0) return true;
    if (reaches(spans + 1, count - 1, target - n * step, rest, budget)) return true;
  }
  return false;
}

bool view_overlap(const clm_tensor *x, const clm_tensor *y) {
  int64_t x_bytes, y_bytes;
  if (x->buffer != y->buffer || !view_extent(x, &x_bytes) || !view_extent(y, &y_bytes)) return false;
  int64_t x_begin = (int64_t)x->offset, y_begin = (int64_t)y->offset;
  if (x_begin + x_bytes <= y_begin || y_begin + y_bytes <= x_begin) return false;
  /* A shared byte: begin + steps is equal on both sides. Steps of y counted from its end are positive too, which
   * makes it one sum of positive steps; the bytes of an element are a step of 1. */
  span spans[2 * CLM_MAX_RANK + 1];
  int count = add_view(spans, add_view(spans, 0, x), y);
  count = add_span(spans, count, 1, (int64_t)(clm_dtype_size(x->dtype) + clm_dtype_size(y->dtype)) - 2);
  int budget = 10000;
  return reaches(spans, count, y_begin - x_begin + y_bytes - 1, x_bytes + y_bytes - 2, &budget);
}

bool view_same(const clm_tensor *x, const clm_tensor *y) {
  if (x->buffer != y->buffer || x->offset != y->offset || x->dtype != y->dtype || x->rank != y->rank) return false;
  for (int i = 0; i < x->rank; i++)
    if (x->shape[i] != y->shape[i] || (x->shape[i] > 1 && x->stride[i] != y->stride[i])) return false;
  return true;
}

void view_reverse(clm_tensor *t, int dim) {
  if (!t->buffer) return;
  t->offset += (size_t)((t->shape[dim] - 1) * t->stride[dim]) * clm_dtype_size(t->dtype);
  t->stride[dim] = -t->stride[dim];
}

void view_take(clm_tensor *t, int dim, int64_t index) {
  t->offset += (size_t)(index * t->stride[dim]) * clm_dtype_size(t->dtype);
  t->rank--;
  for (int i = dim; i < t->rank; i++) {
    t->shape[i] = t->shape[i + 1];
    t->stride[i] = t->stride[i + 1];
  }
}

void view_insert(clm_tensor *t, int dim) {
  if (!t->buffer) return;
  for (int i = t->rank++; i > dim; i--) {
    t->shape[i] = t->shape[i - 1];
    t->stride[i] = t->stride[i - 1];
  }
  t->shape[dim] = 1;
  t->stride[dim] = 0;
}

clm_tensor view_columns(clm_tensor t, int64_t begin, int64_t count) {
  return t.buffer ? clm_tensor_slice(t, t.rank - 1, begin, count) : t;
}

clm_tensor view_parts(clm_tensor t, int64_t size) {
  const int last = t.rank - 1;
  t.shape[last + 1] = size;
  t.stride[last + 1] = t.stride[last];
  t.shape[last] /= size;
  t.stride[last] *= size;
  t.rank++;
  return t;
}
