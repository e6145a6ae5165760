/* Status strings, dtypes, tensor views and their transfers. */
#include "problem.h"
#include <string.h>

static void test_status(const test_device *device, const void *data) {
  (void)device, (void)data;
#define X(name, text) assert_string_equal(clm_status_string(name), text);
  CLM_STATUS_LIST(X)
#undef X
  assert_int_equal(CLM_OK, 0);
  assert_string_equal(clm_status_string((clm_status)999), "unknown status");
  assert_string_equal(clm_status_string((clm_status)-1), "unknown status");
  assert_true(strlen(clm_version()) >= 5);
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

static void test_transfers(const test_device *device, const void *data) {
  (void)data;
  clm_context *context = device ? device->context : test_judge;
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
  test_add(NULL, test_hostile_views, NULL, "views outside the tensor");
  test_add(NULL, test_transfers, NULL, "transfers on the reference");
  for (size_t d = 0; d < test_device_count; d++) test_add(&test_devices[d], test_transfers, NULL, "transfers");
}

int main(void) { return test_main("tensor", add); }
