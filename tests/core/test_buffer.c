/* Buffers on every device: ranges, mapping, wrapped host memory, accounting. */
#include "problem.h"
#include <string.h>

static void test_ranges(const test_device *device, const void *data) {
  (void)data;
  static const struct {
    size_t offset, bytes;
    clm_status status;
  } ranges[] = {
      {0, 16, CLM_OK},
      {15, 1, CLM_OK},
      {16, 0, CLM_OK},
      {0, 17, CLM_INVALID_ARGUMENT},
      {16, 1, CLM_INVALID_ARGUMENT},
      {17, 0, CLM_INVALID_ARGUMENT},
      {8, SIZE_MAX, CLM_INVALID_ARGUMENT},
      {SIZE_MAX, 2, CLM_INVALID_ARGUMENT},
  };
  clm_buffer *buffer;
  assert_int_equal(clm_buffer_create(device->context, 16, &buffer), CLM_OK);
  assert_int_equal(clm_buffer_size(buffer), 16);
  assert_ptr_equal(clm_buffer_context(buffer), device->context);
  unsigned char image[16], memory[32], back[32];
  memset(image, 7, sizeof image);
  assert_int_equal(clm_buffer_write(buffer, 0, 16, image), CLM_OK);
  for (size_t i = 0; i < TEST_COUNT(ranges); i++) {
    memset(memory, (int)i + 100, sizeof memory);
    memset(back, 0, sizeof back);
    assert_int_equal(clm_buffer_write(buffer, ranges[i].offset, ranges[i].bytes, memory), ranges[i].status);
    if (ranges[i].status == CLM_OK) memset(image + ranges[i].offset, (int)i + 100, ranges[i].bytes);
    else assert_non_null(strstr(clm_context_error(device->context), "the buffer has 16"));
    assert_int_equal(clm_buffer_read(buffer, ranges[i].offset, ranges[i].bytes, back), ranges[i].status);
    if (ranges[i].status == CLM_OK) assert_memory_equal(back, memory, ranges[i].bytes);
    else assert_int_equal(back[0], 0);
    assert_int_equal(clm_buffer_read(buffer, 0, 16, back), CLM_OK);
    assert_memory_equal(back, image, 16);
  }
  clm_buffer_destroy(&buffer);
  assert_null(buffer);
  clm_buffer_destroy(&buffer);
  clm_buffer_destroy(NULL);
}

static void test_map(const test_device *device, const void *data) {
  (void)data;
  clm_buffer *buffer;
  assert_int_equal(clm_buffer_create(device->context, 40, &buffer), CLM_OK);
  unsigned char image[40], back[40];
  for (int i = 0; i < 40; i++) image[i] = (unsigned char)(3 * i);
  assert_int_equal(clm_buffer_write(buffer, 0, 40, image), CLM_OK);
  void *memory = NULL;
  assert_int_equal(clm_buffer_map(buffer, &memory), CLM_OK);
  assert_memory_equal(memory, image, 40);
  memset((char *)memory + 10, 1, 20);
  memset(image + 10, 1, 20);
  assert_int_equal(clm_buffer_unmap(buffer), CLM_OK);
  assert_int_equal(clm_buffer_read(buffer, 0, 40, back), CLM_OK);
  assert_memory_equal(back, image, 40);
  clm_buffer_destroy(&buffer);
}

/* out = 2 x + out, all in the caller's own memory. */
static void test_wrapped(const test_device *device, const void *data) {
  (void)data;
  enum { COUNT = 100 };
  float *x = malloc(COUNT * sizeof *x), *out = malloc(COUNT * sizeof *out);
  assert_true(x && out);
  for (int i = 0; i < COUNT; i++) {
    x[i] = (float)i;
    out[i] = 1000;
  }
  clm_buffer *x_buffer, *out_buffer;
  assert_int_equal(clm_buffer_wrap_host(device->context, x, COUNT * sizeof *x, &x_buffer), CLM_OK);
  assert_int_equal(clm_buffer_wrap_host(device->context, out, COUNT * sizeof *out, &out_buffer), CLM_OK);
  const clm_axpby_args args = {.x = clm_tensor_of(x_buffer, 0, CLM_F32, 1, (int64_t[]){COUNT}),
                               .out = clm_tensor_of(out_buffer, 0, CLM_F32, 1, (int64_t[]){COUNT}),
                               .alpha = 2,
                               .beta = 1};
  for (int round = 1; round <= 3; round++) { /* mapped between calls: the host sees it and may change it */
    assert_int_equal(clm_axpby(device->context, &args), CLM_OK);
    void *memory;
    assert_int_equal(clm_buffer_map(out_buffer, &memory), CLM_OK);
    assert_ptr_equal(memory, out);
    for (int i = 0; i < COUNT; i++) assert_true(out[i] == 1000 * (float)round + 2 * (float)i);
    for (int i = 0; i < COUNT; i++) out[i] = 1000 * ((float)round + 1);
    assert_int_equal(clm_buffer_unmap(out_buffer), CLM_OK);
  }
  clm_buffer_destroy(&x_buffer);
  clm_buffer_destroy(&out_buffer);
  free(x);
  free(out);
}

/* Memory at every place that numbers may have: as any other. At another one the tensor is refused. */
static void test_misaligned(const test_device *device, const void *data) {
  (void)data;
  enum { COUNT = 64, BYTES = (int)(COUNT * sizeof(float)) };
  char *memory = aligned_alloc(64, BYTES + 64);
  assert_non_null(memory);
  for (size_t shift = 0; shift < 20; shift++) {
    char *at = memory + shift;
    for (int i = 0; i < COUNT; i++) memcpy(at + 4 * i, &(float){(float)i}, sizeof(float));
    clm_buffer *buffer = NULL;
    assert_int_equal(clm_buffer_wrap_host(device->context, at, BYTES, &buffer), CLM_OK);
    const clm_axpby_args args = {.out = clm_tensor_of(buffer, 0, CLM_F32, 1, (int64_t[]){COUNT}), .beta = 2};
    const clm_status status = clm_axpby(device->context, &args);
    if (shift % sizeof(float) && !device->opencl) { /* OpenCL's copy lies at a better place */
      assert_int_equal(status, CLM_INVALID_ARGUMENT);
      assert_non_null(
          strstr(clm_context_error(device->context), "out lies at an address that is not a multiple of 4"));
    } else {
      assert_int_equal(status, CLM_OK);
      for (int round = 1; round <= 2; round++) {
        void *mapped = NULL;
        assert_int_equal(clm_buffer_map(buffer, &mapped), CLM_OK);
        assert_ptr_equal(mapped, at);
        for (int i = 0; i < COUNT; i++) {
          float got;
          memcpy(&got, at + 4 * i, sizeof got);
          assert_true(got == (float)(2 * i * round));
          memcpy(at + 4 * i, &(float){(float)(2 * i)}, sizeof got);
        }
        assert_int_equal(clm_buffer_unmap(buffer), CLM_OK);
        assert_int_equal(clm_axpby(device->context, &args), CLM_OK);
      }
    }
    clm_buffer_destroy(&buffer);
  }
  free(memory);
}

static void test_map_twice(const test_device *device, const void *data) {
  (void)data;
  clm_buffer *buffer = NULL;
  void *first = NULL, *second = NULL;
  assert_int_equal(clm_buffer_create(device->context, 40, &buffer), CLM_OK);
  assert_int_equal(clm_buffer_unmap(buffer), CLM_INVALID_ARGUMENT);
  assert_string_equal(clm_context_error(device->context), "buffer_unmap: the buffer is not mapped");
  assert_int_equal(clm_buffer_map(buffer, &first), CLM_OK);
  assert_int_equal(clm_buffer_map(buffer, &second), CLM_INVALID_ARGUMENT);
  assert_null(second);
  assert_string_equal(clm_context_error(device->context), "buffer_map: the buffer is already mapped");
  memset(first, 7, 40);
  assert_int_equal(clm_buffer_unmap(buffer), CLM_OK);
  assert_int_equal(clm_buffer_unmap(buffer), CLM_INVALID_ARGUMENT);
  unsigned char back[40];
  assert_int_equal(clm_buffer_read(buffer, 0, 40, back), CLM_OK);
  for (int i = 0; i < 40; i++) assert_int_equal(back[i], 7);
  clm_buffer_destroy(&buffer);
}

static void test_refused(const test_device *device, const void *data) {
  (void)data;
  clm_buffer *buffer = (clm_buffer *)(void *)&buffer;
  assert_int_equal(clm_buffer_create(device->context, 0, &buffer), CLM_INVALID_ARGUMENT);
  assert_null(buffer);
  assert_non_null(strstr(clm_context_error(device->context), "0 bytes"));
  buffer = (clm_buffer *)(void *)&buffer;
  assert_int_equal(clm_buffer_wrap_host(device->context, NULL, 8, &buffer), CLM_INVALID_ARGUMENT);
  assert_null(buffer);
  int word;
  buffer = (clm_buffer *)(void *)&buffer;
  assert_int_equal(clm_buffer_wrap_host(device->context, &word, 0, &buffer), CLM_INVALID_ARGUMENT);
  assert_null(buffer);
  for (int shift = 50; shift < 63; shift += 6) {
    buffer = (clm_buffer *)(void *)&buffer;
    assert_int_equal(clm_buffer_create(device->context, (size_t)1 << shift, &buffer), CLM_OUT_OF_MEMORY);
    assert_null(buffer);
    assert_string_not_equal(clm_context_error(device->context), "");
  }
}

static void test_accounting(const test_device *device, const void *data) {
  (void)data;
  uint64_t before, now, peak;
  clm_context_memory(device->context, &before, NULL);
  clm_buffer *a, *b;
  assert_int_equal(clm_buffer_create(device->context, 1000000, &a), CLM_OK);
  assert_int_equal(clm_buffer_create(device->context, 500000, &b), CLM_OK);
  clm_context_memory(device->context, &now, &peak);
  assert_int_equal(now - before, 1500000);
  assert_true(peak >= now);
  clm_buffer_destroy(&a);
  clm_context_memory(device->context, &now, NULL);
  assert_int_equal(now - before, 500000);
  clm_buffer_destroy(&b);
  clm_context_memory(device->context, &now, &peak);
  assert_int_equal(now, before);
  assert_true(peak >= before + 1500000);
  clm_context_memory(device->context, NULL, NULL);
}

static void add(void) {
  static const struct {
    test_body body;
    const char *name;
  } tests[] = {{test_ranges, "ranges"},
               {test_map, "map"},
               {test_wrapped, "wrapped host memory"},
               {test_misaligned, "misaligned host memory"},
               {test_map_twice, "mapped twice"},
               {test_refused, "refused"},
               {test_accounting, "accounting"}};
  for (size_t d = 0; d < test_device_count; d++)
    for (size_t i = 0; i < TEST_COUNT(tests); i++)
      test_add(&test_devices[d], tests[i].body, NULL, "%s", tests[i].name);
}

int main(void) { return test_main("buffer", add); }
