/* Status strings, dtypes, tensor views and their transfers. */
#include "problem.h"
#include <float.h>
#include <stdio.h>
#include <string.h>

static void test_status(const test_device *device, const void *data) {
  (void)device, (void)data;
#define X(name, text) assert_string_equal(clm_status_string(name), text);
  CLM_STATUS_LIST(X)
#undef X
  assert_int_equal(CLM_OK, 0);
  assert_string_equal(clm_status_string((clm_status)999), "unknown status");
  assert_string_equal(clm_status_string((clm_status)-1), "unknown status");
  char version[40];
  snprintf(version, sizeof version, "%d.%d.%d", CLM_VERSION_MAJOR, CLM_VERSION_MINOR, CLM_VERSION_PATCH);
  assert_string_equal(clm_version(), version);
}

static void test_dtypes(const test_device *device, const void *data) {
  (void)device, (void)data;
#define X(name, bytes, text)                                                                                         \
  assert_int_equal(clm_dtype_size(name), bytes);                                                                     \
  assert_string_equal(clm_dtype_name(name), text);
  CLM_DTYPE_LIST(X)
#undef X
  assert_int_equal(clm_dtype_size((clm_dtype)99), 0);
  assert_string_equal(clm_dtype_name((clm_dtype)99), "unknown");
}

static void assert_dims(clm_tensor t, int rank, const int64_t *shape, const int64_t *stride, size_t offset) {
  assert_int_equal(t.rank, rank);
  assert_int_equal(t.offset, offset);
  for (int i = 0; i < rank; i++) {
    assert_int_equal(t.shape[i], shape[i]);
    assert_int_equal(t.stride[i], stride[i]);
  }
}

static void test_views(const test_device *device, const void *data) {
  (void)device, (void)data;
  const clm_tensor t = clm_tensor_of(NULL, 8, CLM_F64, 3, (int64_t[]){2, 3, 5});
  assert_dims(t, 3, (int64_t[]){2, 3, 5}, (int64_t[]){15, 5, 1}, 8);
  assert_int_equal(clm_tensor_count(t), 30);
  const clm_tensor transposed = clm_tensor_transpose(t, 0, 2);
  assert_dims(transposed, 3, (int64_t[]){5, 3, 2}, (int64_t[]){1, 5, 15}, 8);
  assert_dims(clm_tensor_slice(transposed, 1, 1, 2), 3, (int64_t[]){5, 2, 2}, (int64_t[]){1, 5, 15}, 48);
  assert_dims(clm_tensor_reshape(t, 2, (int64_t[]){6, 5}), 2, (int64_t[]){6, 5}, (int64_t[]){5, 1}, 8);
}

/* What is not in the tensor gives rank 0; nothing overflows. */
static void test_hostile_views(const test_device *device, const void *data) {
  (void)device, (void)data;
  const clm_tensor t = clm_tensor_of(NULL, 0, CLM_F32, 2, (int64_t[]){4, 6});
  assert_int_equal(clm_tensor_transpose(t, 0, 2).rank, 0);
  assert_int_equal(clm_tensor_transpose(t, -1, 1).rank, 0);
  assert_int_equal(clm_tensor_slice(t, 2, 0, 1).rank, 0);
  assert_int_equal(clm_tensor_slice(t, 1, 5, 2).rank, 0);
  assert_int_equal(clm_tensor_slice(t, 1, -1, 2).rank, 0);
  assert_int_equal(clm_tensor_slice(t, 1, INT64_MAX, INT64_MAX).rank, 0);
  assert_int_equal(clm_tensor_slice(t, 1, 6, 0).rank, 2);
  assert_int_equal(clm_tensor_of(NULL, 0, CLM_F32, 9, (int64_t[9]){1, 1, 1, 1, 1, 1, 1, 1, 1}).rank, 9);
  const int64_t huge = (int64_t)1 << 40;
  assert_int_equal(clm_tensor_count(clm_tensor_of(NULL, 0, CLM_F32, 3, (int64_t[]){huge, huge, huge})), INT64_MAX);
}

/* A view with strides in one call; contiguous ones are the same. */
static void test_strided(const test_device *device, const void *data) {
  (void)device, (void)data;
  clm_buffer *buffer;
  assert_int_equal(clm_buffer_create(test_reference, 256, &buffer), CLM_OK);
  const int64_t shape[] = {2, 3, 4}, contiguous[] = {12, 4, 1}, swapped[] = {12, 1, 3};
  const clm_tensor a = clm_tensor_strided(buffer, 8, CLM_F32, 3, shape, contiguous),
                   b = clm_tensor_of(buffer, 8, CLM_F32, 3, shape);
  assert_memory_equal(&a, &b, sizeof a);
  /* (batch, channel, length) in memory, seen as (batch, length, channel) */
  const clm_tensor c = clm_tensor_strided(buffer, 0, CLM_F32, 3, shape, swapped),
                   d = clm_tensor_transpose(clm_tensor_of(buffer, 0, CLM_F32, 3, (int64_t[]){2, 4, 3}), 1, 2);
  assert_memory_equal(&c, &d, sizeof c);
  assert_int_equal(clm_tensor_strided(buffer, 0, CLM_F32, 3, NULL, swapped).rank, 0);
  assert_int_equal(clm_tensor_strided(buffer, 0, CLM_F32, 3, shape, NULL).rank, 0);
  assert_int_equal(clm_tensor_of(buffer, 0, CLM_F32, 3, NULL).rank, 0);
  const clm_tensor many = clm_tensor_strided(buffer, 0, CLM_F32, 9, shape, swapped); /* reads none of them */
  assert_int_equal(clm_axpby(test_reference, &(clm_axpby_args){.out = many}), CLM_INVALID_ARGUMENT);
  assert_string_equal(clm_context_error(test_reference), "axpby: out has rank 9, expected 1 to 5");
  const clm_tensor repeated = clm_tensor_strided(buffer, 0, CLM_F32, 1, (int64_t[]){5}, (int64_t[]){0});
  assert_int_equal(clm_axpby(test_reference, &(clm_axpby_args){.out = repeated}), CLM_INVALID_ARGUMENT);
  clm_buffer_destroy(&buffer);
}

/* Bits by the formats: IEEE 754 binary16 and the upper half of binary32, to nearest, ties to even. */
static void test_convert(const test_device *device, const void *data) {
  (void)device, (void)data;
  static const struct {
    float x;
    uint16_t f16, bf16;
  } pairs[] = {{0, 0, 0},
               {-0.0f, 0x8000, 0x8000},
               {1, 0x3c00, 0x3f80},
               {-2.5f, 0xc100, 0xc020},
               {0x1.002p0f, 0x3c00, 0x3f80}, /* halfway between 1 and its f16 successor: even */
               {0x1.006p0f, 0x3c02, 0x3f80}, /* halfway, the other way */
               {0x1.01p0f, 0x3c04, 0x3f80},  /* halfway in bf16 */
               {0x1.03p0f, 0x3c0c, 0x3f82},
               {65504, 0x7bff, 0x4780},
               {65520, 0x7c00, 0x4780}, /* too large for f16 */
               {0x1p-24f, 0x0001, 0x3380},
               {0x1p-26f, 0x0000, 0x3280},
               {INFINITY, 0x7c00, 0x7f80},
               {FLT_MAX, 0x7c00, 0x7f80}};
  enum { COUNT = sizeof pairs / sizeof pairs[0] };
  float x[COUNT], back[COUNT];
  uint16_t f16[COUNT], bf16[COUNT];
  double wide[COUNT];
  for (int i = 0; i < COUNT; i++) x[i] = pairs[i].x;
  assert_int_equal(clm_convert(CLM_F16, f16, CLM_F32, x, COUNT), CLM_OK);
  assert_int_equal(clm_convert(CLM_BF16, bf16, CLM_F32, x, COUNT), CLM_OK);
  for (int i = 0; i < COUNT; i++) {
    assert_int_equal(f16[i], pairs[i].f16);
    assert_int_equal(bf16[i], pairs[i].bf16);
  }
  /* From f64 it is one rounding: just above halfway is not even. */
  const double above = 0x1.0020000000001p0;
  uint16_t one;
  assert_int_equal(clm_convert(CLM_F16, &one, CLM_F64, &above, 1), CLM_OK);
  assert_int_equal(one, 0x3c01);
  /* Every number of a half there and back, through both wider dtypes, in place where the sizes are one. */
  static uint16_t all[65536], again[65536];
  static float singles[65536];
  static double doubles[65536];
  for (int i = 0; i < 65536; i++) all[i] = (uint16_t)i;
  const clm_dtype narrow[] = {CLM_F16, CLM_BF16};
  for (int k = 0; k < 2; k++) {
    assert_int_equal(clm_convert(CLM_F32, singles, narrow[k], all, 65536), CLM_OK);
    assert_int_equal(clm_convert(CLM_F64, doubles, narrow[k], all, 65536), CLM_OK);
    assert_int_equal(clm_convert(narrow[k], again, CLM_F64, doubles, 65536), CLM_OK);
    for (int i = 0; i < 65536; i++) {
      if (isnan(singles[i])) assert_true(isnan(doubles[i]));
      else assert_true((double)singles[i] == doubles[i] && again[i] == all[i]);
    }
  }
  assert_int_equal(clm_convert(CLM_F32, x, CLM_F32, x, COUNT), CLM_OK);
  assert_int_equal(clm_convert(CLM_F64, wide, CLM_F32, x, COUNT), CLM_OK);
  assert_int_equal(clm_convert(CLM_F32, back, CLM_F64, wide, COUNT), CLM_OK);
  assert_memory_equal(back, x, sizeof x);
  assert_int_equal(clm_convert(CLM_I32, x, CLM_F32, x, 1), CLM_INVALID_ARGUMENT);
  assert_int_equal(clm_convert(CLM_F32, NULL, CLM_F16, NULL, 0), CLM_OK);
}

static void test_transfers(const test_device *device, const void *data) {
  (void)data;
  clm_context *context = device ? device->context : test_reference;
  static const float values[6] = {1, 2, 3, 4, 5, 6};
  float back[6] = {0};
  clm_buffer *buffer;
  assert_int_equal(clm_buffer_create(context, 64, &buffer), CLM_OK);
  clm_tensor t = clm_tensor_of(buffer, 12, CLM_F32, 2, (int64_t[]){2, 3});
  assert_int_equal(clm_tensor_write(t, values, sizeof values), CLM_OK);
  assert_int_equal(clm_tensor_read(t, back, sizeof back), CLM_OK);
  assert_memory_equal(back, values, sizeof values);

  assert_int_equal(clm_tensor_write(t, values, 20), CLM_INVALID_ARGUMENT);
  assert_string_equal(clm_context_error(context), "tensor_write: 20 bytes given, the tensor has 24");
  assert_int_equal(clm_tensor_read(clm_tensor_transpose(t, 0, 1), back, sizeof back), CLM_INVALID_ARGUMENT);
  assert_non_null(strstr(clm_context_error(context), "contiguous"));
  t.offset = 44; /* 24 bytes from there leave the buffer */
  assert_int_equal(clm_tensor_read(t, back, sizeof back), CLM_INVALID_ARGUMENT);
  t.buffer = NULL;
  assert_int_equal(clm_tensor_read(t, back, sizeof back), CLM_INVALID_ARGUMENT);
  t = (clm_tensor){.buffer = buffer, .dtype = CLM_F32, .rank = 9};
  assert_int_equal(clm_tensor_read(t, back, sizeof back), CLM_INVALID_ARGUMENT);
  assert_memory_equal(back, values, sizeof values);
  clm_buffer_destroy(&buffer);
}

static void add(void) {
  test_add(NULL, test_status, NULL, "status strings");
  test_add(NULL, test_dtypes, NULL, "dtypes");
  test_add(NULL, test_views, NULL, "views");
  test_add(NULL, test_strided, NULL, "strided views");
  test_add(NULL, test_convert, NULL, "numbers of host memory");
  test_add(NULL, test_hostile_views, NULL, "views outside the tensor");
  test_add(NULL, test_transfers, NULL, "transfers on the reference");
  for (size_t d = 0; d < test_device_count; d++) test_add(&test_devices[d], test_transfers, NULL, "transfers");
}

int main(void) { return test_main("tensor", add); }
