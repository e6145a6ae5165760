/* Caches of keys and values, and attention from one. */
#include "problem.h"

TEST_OP(kv_append);
TEST_OP(attention);

enum { PACKED = 1, F16 = 2, BF16 = 4, F32_CACHE = 8 };

typedef struct kv_case {
  int64_t batch, length, keys, kv_heads, head_dim;
  unsigned flags;
  test_layout layout;
  const char *why;
} kv_case;

static const kv_case cases[] = {
    /* batch length keys kv_heads head_dim */
    {1, 1, 1, 1, 1, 0, TEST_CONTIGUOUS, "smallest"},
    {3, 1, 90, 2, 20, 0, TEST_CONTIGUOUS, "a step of rows of different lengths"},
    {3, 7, 90, 2, 300, 0, TEST_PADDED, "steps, past both ends"},
    {2, 5, 30, 3, 8, 0, TEST_TRANSPOSED, "dimensions exchanged"},
    {1, 40, 60, 2, 16, PACKED, TEST_CONTIGUOUS, "packed"},
    {3, 7, 90, 2, 20, F16, TEST_CONTIGUOUS, "f16"},
    {3, 7, 90, 2, 20, BF16 | F32_CACHE, TEST_WIDE, "bf16 into f32"},
};

static const int32_t offsets[] = {12, -3, 85, 0, 7, 59, 11, 50};

static int64_t rows_of(const kv_case *c) {
  assert_true(TEST_SEQUENCES <= TEST_COUNT(offsets));
  return c->flags & PACKED ? TEST_SEQUENCES : c->batch;
}

#define KEY                               c->batch, c->length, c->kv_heads, c->head_dim
#define CACHE                             rows_of(c), c->keys, c->kv_heads, c->head_dim
#define ADD(args, field, role, kind, ...) PROBLEM_ADD(p, TEST_ROW(args, field, role, kind, NULL, __VA_ARGS__))
#define ADD_SEQUENCES(args)                                                                                          \
  do {                                                                                                               \
    ADD(args, offsets, TEST_IN, TEST_INDEX, rows_of(c));                                                             \
    problem_find(p, "offsets")->values = offsets;                                                                    \
    if (c->flags & PACKED) {                                                                                         \
      ADD(args, cu_seqlens, TEST_IN, TEST_INDEX, TEST_SEQUENCES + 1);                                                \
      problem_find(p, "cu_seqlens")->values = test_ends(c->length);                                                  \
    }                                                                                                                \
  } while (0)

static void append_of(test_problem *p, const kv_case *c, const clm_kv_append_args *args) {
  const test_kind kind = c->flags & F32_CACHE ? TEST_PARAMETER : TEST_STORAGE;
  *p = (test_problem){.op = &op_kv_append, .args = args, .seed = 92, .layout = c->layout, .tolerance = 1e-7};
  p->storage = c->flags & F16 ? CLM_F16 : c->flags & BF16 ? CLM_BF16 : CLM_F32;
  ADD(clm_kv_append_args, k, TEST_IN, TEST_STORAGE, KEY);
  ADD(clm_kv_append_args, v, TEST_IN, TEST_STORAGE, KEY);
  ADD_SEQUENCES(clm_kv_append_args);
  ADD(clm_kv_append_args, k_cache, TEST_INOUT, kind, CACHE);
  ADD(clm_kv_append_args, v_cache, TEST_INOUT, kind, CACHE);
}

static void test_append(const test_device *device, const void *data) {
  const clm_kv_append_args args = {.k = {0}};
  test_problem p;
  append_of(&p, data, &args);
  problem_check(&p, device);
}

/* Packed queries, each sequence with a row of the cache. */
static void test_cached(const test_device *device, const void *data) {
  const kv_case *c = data;
  const clm_attention_args args = {.window = 25};
  test_problem problem = {.op = &op_attention, .args = &args, .seed = 93, .layout = c->layout, .tolerance = 1e-5},
               *p = &problem;
  ADD(clm_attention_args, q, TEST_IN, TEST_STORAGE, c->batch, c->length, 2 * c->kv_heads, c->head_dim);
  ADD(clm_attention_args, k, TEST_IN, TEST_STORAGE, CACHE);
  ADD(clm_attention_args, v, TEST_IN, TEST_STORAGE, CACHE);
  ADD_SEQUENCES(clm_attention_args);
  ADD(clm_attention_args, out, TEST_OUT, TEST_STORAGE, c->batch, c->length, 2 * c->kv_heads, c->head_dim);
  problem_check(p, device);
}

static void check_advance(const test_device *device, const clm_kv_advance_args *args, const int32_t *want) {
  enum { ROWS = 3 };
  static const int32_t before[ROWS] = {5, 0, INT32_MAX - 9}, ends[ROWS + 1] = {0, 4, 4, 9};
  int32_t after[ROWS];
  clm_kv_advance_args a = *args;
  clm_buffer *buffer;
  assert_int_equal(clm_buffer_create(device->context, 64, &buffer), CLM_OK);
  a.offsets = clm_tensor_of(buffer, 0, CLM_I32, 1, (int64_t[]){ROWS});
  assert_int_equal(clm_tensor_write(a.offsets, before, sizeof before), CLM_OK);
  if (!want) {
    a.cu_seqlens = clm_tensor_of(buffer, 32, CLM_I32, 1, (int64_t[]){ROWS + 1});
    assert_int_equal(clm_tensor_write(a.cu_seqlens, ends, sizeof ends), CLM_OK);
  }
  assert_int_equal(clm_kv_advance(device->context, &a), CLM_OK);
  assert_int_equal(clm_tensor_read(a.offsets, after, sizeof after), CLM_OK);
  for (int i = 0; i < ROWS; i++) assert_int_equal(after[i], want ? want[i] : before[i] + ends[i + 1] - ends[i]);
  clm_buffer_destroy(&buffer);
}

static void test_advance(const test_device *device, const void *data) {
  (void)data;
  check_advance(device, &(clm_kv_advance_args){.steps = 3}, (const int32_t[]){8, 3, INT32_MAX - 6});
  check_advance(device, &(clm_kv_advance_args){.steps = 0}, NULL);
}

static void add(void) {
  static const kv_case packed = {1, 40, 70, 2, 20, PACKED, TEST_CONTIGUOUS, ""};
  for (size_t d = 0; d < test_device_count; d++) {
    const test_device *device = &test_devices[d];
    for (size_t i = 0; i < TEST_COUNT(cases); i++)
      test_add(device, test_append, &cases[i], "kv_append: %s", cases[i].why);
    test_add(device, test_advance, NULL, "kv_advance");
    test_add(device, test_cached, &packed, "attention: packed queries, a cache for each sequence");
  }
}

int main(void) { return test_main("kv_cache", add); }
