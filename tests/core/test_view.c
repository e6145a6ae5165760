/* Geometry of strided views: extent, repetition, overlap, against counting bytes. */
#include "ops/view.h"
#include "problem.h"
#include <string.h>

enum { BYTES = 4096 };
static clm_buffer *const buffer = (clm_buffer *)(void *)&(char){0}; /* only compared, never used */

/* How often each byte is named. */
static void count_bytes(const clm_tensor *t, unsigned char *counts) {
  memset(counts, 0, BYTES);
  const size_t size = clm_dtype_size(t->dtype);
  for (int64_t i = 0; i < clm_tensor_count(*t); i++) {
    int64_t rest = i, at = 0;
    for (int dim = t->rank - 1; dim >= 0; dim--) {
      at += rest % t->shape[dim] * t->stride[dim];
      rest /= t->shape[dim];
    }
    for (size_t byte = 0; byte < size; byte++) counts[t->offset + (size_t)at * size + byte]++;
  }
}

static clm_tensor random_view(test_random *r, bool distinct) {
  static const clm_dtype dtypes[] = {CLM_F32, CLM_F16, CLM_F64};
  clm_tensor t = {.buffer = buffer, .dtype = dtypes[random_below(r, 3)], .rank = (int)random_below(r, 3) + 1};
  t.offset = (size_t)random_below(r, 12) * 8;
  int64_t stride = random_below(r, 3) + (distinct ? 1 : 0);
  for (int i = t.rank - 1; i >= 0; i--) {
    t.shape[i] = random_below(r, 4) + 1;
    t.stride[i] = stride;
    stride = distinct ? stride * t.shape[i] + random_below(r, 4) : random_below(r, 9);
  }
  return random_below(r, 2) ? clm_tensor_transpose(t, 0, t.rank - 1) : t;
}

static void test_overlap(const test_device *device, const void *data) {
  (void)device, (void)data;
  static unsigned char x_counts[BYTES], y_counts[BYTES];
  test_random r = random_seeded(1, "views");
  int meet = 0;
  for (int i = 0; i < 20000; i++) {
    const clm_tensor x = random_view(&r, true), y = random_view(&r, i % 2);
    count_bytes(&x, x_counts);
    count_bytes(&y, y_counts);
    bool want = false;
    for (int k = 0; k < BYTES; k++) want |= x_counts[k] && y_counts[k];
    if (view_overlap(&x, &y) != want || view_overlap(&y, &x) != want) fail_msg("pair %d: expected %d", i, want);
    meet += want;
  }
  assert_in_range(meet, 2000, 18000);
}

/* Never misses a repetition; and views made by slicing and transposing are never called repeating. */
static void test_repeats(const test_device *device, const void *data) {
  (void)device, (void)data;
  static unsigned char counts[BYTES];
  test_random r = random_seeded(2, "views");
  for (int i = 0; i < 20000; i++) {
    const clm_tensor t = random_view(&r, i % 2);
    count_bytes(&t, counts);
    bool repeats = false;
    for (int k = 0; k < BYTES; k++) repeats |= counts[k] > 1;
    if (repeats && !view_repeats(&t)) fail_msg("view %d repeats", i);
    if (i % 2 && view_repeats(&t)) fail_msg("view %d does not repeat", i);
  }
}

static void test_extent(const test_device *device, const void *data) {
  (void)device, (void)data;
  int64_t bytes = 0;
  clm_tensor t = clm_tensor_of(buffer, 0, CLM_F32, 3, (int64_t[]){2, 3, 5});
  assert_true(view_extent(&t, &bytes));
  assert_int_equal(bytes, 120);
  t.stride[0] = 100;
  assert_true(view_extent(&t, &bytes));
  assert_int_equal(bytes, 4 * (100 + 14 + 1));
  t.stride[0] = INT64_MAX;
  assert_false(view_extent(&t, &bytes));
  t.stride[0] = INT64_MAX / 4;
  assert_false(view_extent(&t, &bytes));
  t.shape[0] = 1; /* never stepped along */
  t.stride[0] = INT64_MAX;
  assert_true(view_extent(&t, &bytes));
  assert_int_equal(bytes, 60);
  assert_false(view_repeats(&t));
  t.shape[0] = INT64_MAX;
  t.stride[0] = 0;
  assert_true(view_extent(&t, &bytes));
  assert_int_equal(bytes, 60);
}

static void test_same(const test_device *device, const void *data) {
  (void)device, (void)data;
  const clm_tensor t = clm_tensor_of(buffer, 0, CLM_F32, 2, (int64_t[]){1, 5});
  clm_tensor other = t;
  other.stride[0] = 77; /* of a dimension of size 1 */
  assert_true(view_same(&t, &other));
  other.offset = 4;
  assert_false(view_same(&t, &other));
}

static void add(void) {
  test_add(NULL, test_overlap, NULL, "overlap");
  test_add(NULL, test_repeats, NULL, "repetition");
  test_add(NULL, test_extent, NULL, "extent");
  test_add(NULL, test_same, NULL, "the same view");
}

int main(void) { return test_main_reference("view", add); }
