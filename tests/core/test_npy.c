/* .npy files: every dtype, order and version; what is damaged or hostile gets a sentence. */
#include "cmocka_all.h"
#include "devices.h"
#include "files/npy.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/tmp/clmamba-test-XXXXXX";
static char error[NPY_ERROR_BYTES];

static void write_bytes(const void *data, size_t bytes) {
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(data, 1, bytes, f), bytes);
  assert_int_equal(fclose(f), 0);
}

/* A file of version 1 to 3 with this header; returns its bytes in `file`. */
static size_t assemble(char *file, int version, const char *header, const void *data, size_t bytes) {
  size_t length = strlen(header), at = version == 1 ? 10 : 12;
  memcpy(file, "\x93NUMPY", 6);
  file[6] = (char)version;
  file[7] = 0;
  for (size_t i = 8; i < at; i++) file[i] = (char)(unsigned char)(length >> (8 * (i - 8)) & 255);
  memcpy(file + at, header, length);
  if (bytes) memcpy(file + at + length, data, bytes);
  return at + length + bytes;
}

typedef struct hostile {
  const char *why, *header;
  size_t data_bytes;
  clm_status status;
  const char *sentence;
} hostile;

#define NPY(descr, order, shape) "{'descr': " descr ", 'fortran_order': " order ", 'shape': " shape ", }\n"
static const hostile hostiles[] = {
    {"no dictionary", "hello", 0, CLM_BAD_FORMAT, "not a dictionary"},
    {"empty", "", 0, CLM_BAD_FORMAT, "not a dictionary"},
    {"cut dictionary", "{'descr': '<f4'", 0, CLM_BAD_FORMAT, "not a dictionary"},
    {"cut text", "{'descr': '<f4", 0, CLM_BAD_FORMAT, "cut off"},
    {"long text", NPY("'<f4<f4<f4<f4<f4<f4<f4<f4<f4<f4<f4<f4<f4<f4<f4'", "False", "(1,)"), 4, CLM_BAD_FORMAT,
     "too long"},
    {"no shape", "{'descr': '<f4', 'fortran_order': False, }", 4, CLM_BAD_FORMAT, "lacks"},
    {"a key twice", "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}", 4, CLM_BAD_FORMAT,
     "other keys"},
    {"another key", "{'descr': '<f4', 'colour': 'red', 'fortran_order': False, 'shape': ()}", 4, CLM_BAD_FORMAT,
     "other keys"},
    {"something behind", "{'descr': '<f4', 'fortran_order': False, 'shape': ()} and", 4, CLM_BAD_FORMAT, "follows"},
    {"big endian", NPY("'>f4'", "False", "(1,)"), 4, CLM_UNSUPPORTED, "\">f4\""},
    {"text", NPY("'<U8'", "False", "(1,)"), 4, CLM_UNSUPPORTED, "\"<U8\""},
    {"objects", NPY("'|O'", "False", "(1,)"), 4, CLM_UNSUPPORTED, "\"|O\""},
    {"records", NPY("[('x', '<f4')]", "False", "(1,)"), 4, CLM_UNSUPPORTED, "records"},
    {"order", NPY("'<f4'", "Maybe", "(1,)"), 4, CLM_BAD_FORMAT, "neither True nor False"},
    {"no tuple", NPY("'<f4'", "False", "(1)"), 4, CLM_BAD_FORMAT, "not a tuple"},
    {"a list", NPY("'<f4'", "False", "[1]"), 4, CLM_BAD_FORMAT, "not a tuple"},
    {"negative", NPY("'<f4'", "False", "(-1,)"), 4, CLM_BAD_FORMAT, "not a tuple"},
    {"open tuple", "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2", 4, CLM_BAD_FORMAT, "not a tuple"},
    {"nine dimensions", NPY("'<f4'", "False", "(1, 1, 1, 1, 1, 1, 1, 1, 1)"), 4, CLM_BAD_FORMAT, "more than 8"},
    {"too large a number", NPY("'<f4'", "False", "(99999999999999999999,)"), 4, CLM_BAD_FORMAT, "impossible"},
    {"a product that wraps", NPY("'<f4'", "False", "(4294967296, 4294967296)"), 0, CLM_BAD_FORMAT, "impossible"},
    {"2^60 elements", NPY("'<f4'", "False", "(1152921504606846976,)"), 4, CLM_BAD_FORMAT, "4 are there"},
    {"a product that 0 hides", NPY("'<f4'", "False", "(0, 4294967296, 4294967296)"), 0, CLM_BAD_FORMAT, "impossible"},
    {"too few bytes", NPY("'<f8'", "False", "(2,)"), 15, CLM_BAD_FORMAT, "takes 16 bytes, 15 are there"},
    {"too many bytes", NPY("'<i4'", "False", "(2,)"), 9, CLM_BAD_FORMAT, "takes 8 bytes, 9 are there"},
};

static void expect_message(clm_status want, const char *part) {
  npy_array a;
  error[0] = '\0';
  clm_status got = npy_open(path, &a, error);
  if (got != want || !strstr(error, part))
    fail_msg("got %s: \"%s\", expected %s and \"%s\"", clm_status_string(got), error, clm_status_string(want), part);
  assert_null(a.file);
}

static void test_hostile(const test_device *device, const void *data) {
  (void)device;
  const hostile *h = data;
  char file[1000];
  const double zeros[4] = {0};
  write_bytes(file, assemble(file, 1, h->header, zeros, h->data_bytes));
  expect_message(h->status, h->sentence);
}

/* Cut at every byte: never anything but a sentence. */
static void test_cut(const test_device *device, const void *data) {
  (void)device, (void)data;
  char file[NPY_HEADER_BYTES + 8] = {0};
  size_t bytes = npy_header(NPY_I4, 1, (int64_t[]){2}, file) + 8;
  for (size_t cut = 0; cut < bytes; cut++) {
    write_bytes(file, cut);
    expect_message(CLM_BAD_FORMAT, "is not a valid .npy file");
  }
  file[6] = 4;
  write_bytes(file, bytes);
  expect_message(CLM_UNSUPPORTED, "version 4.0");
  unlink(path);
  expect_message(CLM_IO_ERROR, "No such file");
}

static void test_dtypes(const test_device *device, const void *data) {
  (void)device, (void)data;
  static const uint16_t f2[] = {0x3c00, 0xc000, 0x0001, 0x83ff, 0x7bff, 0x7c00};
  static const float f2_values[] = {1, -2, 0x1p-24f, -0x1.ff8p-15f, 65504, INFINITY};
  static const float f4[] = {1.5f, -3, 0x1p-140f};
  static const double f8[] = {1.5, -3, 0x1.000001p0};
  static const float f8_values[] = {1.5f, -3, 1};
  static const int32_t i4[] = {7, -7, INT32_MAX};
  static const float i4_values[] = {7, -7, 0x1p31f};
  static const int64_t i8[] = {7, INT32_MIN, 0};
  static const float i8_values[] = {7, -0x1p31f, 0};
  static const uint8_t b1[] = {1, 0, 1}, u1[] = {0, 127, 255};
  static const int8_t i1[] = {0, 127, -128};
  static const int16_t i2[] = {0, 255, -32768};
  static const uint16_t u2[] = {0, 255, 65535};
  static const uint32_t u4[] = {0, 1, UINT32_MAX};
  static const uint64_t u8[] = {0, 1, UINT64_MAX};
  static const float b1_values[] = {1, 0, 1}, u1_values[] = {0, 127, 255}, i1_values[] = {0, 127, -128};
  static const float i2_values[] = {0, 255, -32768}, u2_values[] = {0, 255, 65535};
  static const float u4_values[] = {0, 1, 0x1p32f}, u8_values[] = {0, 1, 0x1p64f};
  const struct {
    const char *header;
    const void *data;
    size_t bytes, count;
    const float *want;
  } rows[] = {{"{\"descr\": \"<f2\", \"shape\": (6,), \"fortran_order\": False}", f2, sizeof f2, 6, f2_values},
              {NPY("'<f4'", "False", "(3,)"), f4, sizeof f4, 3, f4},
              {NPY("'<f8'", "True", "(1, 3)"), f8, sizeof f8, 3, f8_values},
              {NPY("'<i4'", "False", "(3, 1, 1)"), i4, sizeof i4, 3, i4_values},
              {NPY("'<i8'", "False", "(3,)"), i8, sizeof i8, 3, i8_values},
              {NPY("'|b1'", "False", "(3,)"), b1, sizeof b1, 3, b1_values},
              {NPY("'|i1'", "False", "(3,)"), i1, sizeof i1, 3, i1_values},
              {NPY("'<i2'", "False", "(3,)"), i2, sizeof i2, 3, i2_values},
              {NPY("'|u1'", "False", "(3,)"), u1, sizeof u1, 3, u1_values},
              {NPY("'<u2'", "False", "(3,)"), u2, sizeof u2, 3, u2_values},
              {NPY("'<u4'", "False", "(3,)"), u4, sizeof u4, 3, u4_values},
              {NPY("'<u8'", "False", "(3,)"), u8, sizeof u8, 3, u8_values},
              {NPY("'<f4'", "False", "()"), f4, 4, 1, f4},
              {NPY("'<f4'", "False", "(5, 0)"), f4, 0, 0, f4}};
  for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
    for (int version = 1; version <= 3; version++) {
      char file[1000];
      float got[6];
      npy_array a;
      write_bytes(file, assemble(file, version, rows[r].header, rows[r].data, rows[r].bytes));
      if (npy_open(path, &a, error)) fail_msg("%s", error);
      assert_int_equal(a.count, rows[r].count);
      npy_read_f32(&a, 0, a.count, got);
      assert_memory_equal(got, rows[r].want, a.count * sizeof *got);
      npy_close(&a);
    }
}

static void test_whole_numbers(const test_device *device, const void *data) {
  (void)device, (void)data;
  static const int64_t i8[] = {5, (int64_t)1 << 31, -1};
  char file[1000];
  int32_t got[3];
  npy_array a;
  write_bytes(file, assemble(file, 1, NPY("'<i8'", "False", "(3,)"), i8, sizeof i8));
  assert_int_equal(npy_open(path, &a, error), CLM_OK);
  assert_int_equal(npy_read_i32(&a, path, 2, 1, got, error), CLM_OK);
  assert_int_equal(got[0], -1);
  assert_int_equal(npy_read_i32(&a, path, 0, 3, got, error), CLM_BAD_FORMAT);
  assert_non_null(strstr(error, "element 1 is 2147483648"));
  npy_close(&a);
  static const uint64_t u8[] = {3, UINT64_MAX};
  write_bytes(file, assemble(file, 1, NPY("'<u8'", "False", "(2,)"), u8, sizeof u8));
  assert_int_equal(npy_open(path, &a, error), CLM_OK);
  assert_int_equal(npy_read_i32(&a, path, 0, 1, got, error), CLM_OK);
  assert_int_equal(got[0], 3);
  assert_int_equal(npy_read_i32(&a, path, 0, 2, got, error), CLM_BAD_FORMAT);
  npy_close(&a);
  static const uint8_t b1[] = {1, 0, 7}; /* any byte but 0 is true, as NumPy has it */
  write_bytes(file, assemble(file, 1, NPY("'|b1'", "False", "(3,)"), b1, sizeof b1));
  assert_int_equal(npy_open(path, &a, error), CLM_OK);
  assert_int_equal(npy_read_i32(&a, path, 0, 3, got, error), CLM_OK);
  assert_memory_equal(got, ((int32_t[]){1, 0, 1}), sizeof got);
  npy_close(&a);
  write_bytes(file, assemble(file, 1, NPY("'<f4'", "False", "(3,)"), i8, 12));
  assert_int_equal(npy_open(path, &a, error), CLM_OK);
  assert_int_equal(npy_read_i32(&a, path, 0, 3, got, error), CLM_UNSUPPORTED);
  npy_close(&a);
}

/* The same matrix in both orders reads the same, whole and in parts; what npy_header writes is read. */
static void test_orders(const test_device *device, const void *data) {
  (void)device, (void)data;
  const float rows[] = {0, 1, 2, 3, 4, 5}, columns[] = {0, 3, 1, 4, 2, 5};
  char file[1000];
  for (int fortran = 0; fortran < 2; fortran++) {
    size_t bytes;
    if (fortran) bytes = assemble(file, 1, NPY("'<f4'", "True", "(2, 3)"), columns, sizeof columns);
    else {
      bytes = npy_header(NPY_F4, 2, (int64_t[]){2, 3}, file);
      assert_int_equal(bytes % 64, 0);
      memcpy(file + bytes, rows, sizeof rows);
      bytes += sizeof rows;
    }
    npy_array a;
    write_bytes(file, bytes);
    if (npy_open(path, &a, error)) fail_msg("%s", error);
    assert_int_equal(a.rank, 2);
    assert_int_equal(a.shape[0], 2);
    assert_int_equal(a.shape[1], 3);
    for (size_t begin = 0; begin < 6; begin++) {
      float got[6];
      npy_read_f32(&a, begin, 6 - begin, got);
      assert_memory_equal(got, rows + begin, (6 - begin) * sizeof *got);
    }
    npy_close(&a);
  }
}

/* Headers of every rank are read as they were written. */
static void test_headers(const test_device *device, const void *data) {
  (void)device, (void)data;
  const int64_t shape[NPY_MAX_RANK] = {1, 2, 1, 3, 1, 1, 2, 1};
  for (int rank = 0; rank <= NPY_MAX_RANK; rank++) {
    char file[1000] = {0};
    npy_array a;
    size_t count = 1;
    for (int i = 0; i < rank; i++) count *= (size_t)shape[i];
    write_bytes(file, npy_header(NPY_I8, rank, shape, file) + count * 8);
    if (npy_open(path, &a, error)) fail_msg("%s", error);
    assert_int_equal(a.rank, rank);
    assert_int_equal(a.dtype, NPY_I8);
    assert_memory_equal(a.shape, shape, (size_t)rank * sizeof *shape);
    npy_close(&a);
  }
}

static void add(void) {
  for (size_t i = 0; i < TEST_COUNT(hostiles); i++) test_add(NULL, test_hostile, &hostiles[i], "%s", hostiles[i].why);
  test_add(NULL, test_cut, NULL, "cut at every byte");
  test_add(NULL, test_dtypes, NULL, "dtypes");
  test_add(NULL, test_whole_numbers, NULL, "whole numbers");
  test_add(NULL, test_orders, NULL, "orders");
  test_add(NULL, test_headers, NULL, "headers");
}

int main(void) {
  if (mkstemp(path) < 0) return EXIT_FAILURE;
  int status = test_main_reference("npy", add);
  unlink(path);
  return status;
}
