/* pytorch_model.bin as the test makes it, opcode by opcode: tensors are read, anything else is refused by name. */
#include "cmocka_all.h"
#include "devices.h"
#include "files/pickle.h"
#include "files/pytorch.h"
#include "files/source.h"
#include "folder.h"
#include <stdlib.h>
#include <string.h>
#include <zip.h>

#define NAME "pytorch_model.bin"

/* ---- Writing ---- */

static void op_unicode(bytes *b, const char *text) {
  put_text(b, "X");
  put_number(b, strlen(text), 4);
  put_text(b, text);
}

static void op_int(bytes *b, int64_t number) {
  put_text(b, "J");
  put_number(b, (uint64_t)number, 4);
}

static void op_tuple(bytes *b, const int64_t *numbers, int count) {
  put_text(b, "(");
  for (int i = 0; i < count; i++) op_int(b, numbers[i]);
  put_text(b, "t");
}

typedef struct tensor {
  const char *name, *storage_type, *key;
  int64_t numel, offset;
  int rank;
  int64_t shape[3], stride[3];
} tensor;

/* As torch pickles it, without the memo (which test_memo has). */
static void op_tensor(bytes *b, const tensor *t) {
  put_text(b, "ctorch._utils\n_rebuild_tensor_v2\n(");
  put_text(b, "(");
  op_unicode(b, "storage");
  put_text(b, "ctorch\n");
  put_text(b, t->storage_type);
  put_text(b, "\n");
  op_unicode(b, t->key);
  op_unicode(b, "cpu");
  op_int(b, t->numel);
  put_text(b, "tQ");
  op_int(b, t->offset);
  op_tuple(b, t->shape, t->rank);
  op_tuple(b, t->stride, t->rank);
  put_text(b, "\x89"
              "ccollections\nOrderedDict\n)RtR");
}

static bytes pickle_of(const tensor *tensors, size_t count) {
  bytes b = {0};
  put_text(&b, "\x80\x02"
               "ccollections\nOrderedDict\n)R(");
  for (size_t i = 0; i < count; i++) {
    op_unicode(&b, tensors[i].name);
    op_tensor(&b, &tensors[i]);
  }
  put_text(&b, "u}");
  op_unicode(&b, "_metadata");
  put_text(&b, "}sb.");
  return b;
}

typedef struct entry {
  const char *name;
  const void *data;
  size_t count;
  bool deflate;
} entry;

static void write_zip(const entry *entries, size_t count) {
  int error;
  zip_t *zip = zip_open(in_folder(NAME), ZIP_CREATE | ZIP_TRUNCATE, &error);
  assert_non_null(zip);
  for (size_t i = 0; i < count; i++) {
    zip_int64_t at =
        zip_file_add(zip, entries[i].name, zip_source_buffer(zip, entries[i].data, entries[i].count, 0), 0);
    assert_true(at >= 0);
    assert_int_equal(
        zip_set_file_compression(zip, (zip_uint64_t)at, entries[i].deflate ? ZIP_CM_DEFLATE : ZIP_CM_STORE, 0), 0);
  }
  assert_int_equal(zip_close(zip), 0);
}

static const float numbers[] = {1, 2, 3, 4, 5, 6, 7, 8};
static const uint16_t narrow[] = {0x3c00, 0x4000, 0x4200, 0x4400};
static const tensor good[] = {
    {"whole", "FloatStorage", "0", 8, 0, 2, {2, 4}, {4, 1}},
    {"part", "FloatStorage", "0", 8, 3, 1, {5}, {1}},
    {"half", "HalfStorage", "1", 4, 0, 3, {2, 1, 2}, {2, 7, 1}},
    {"number", "LongStorage", "2", 1, 0, 0, {0}, {0}},
};
#define GOOD (sizeof good / sizeof *good)

/* The four entries that `good` needs, with another pickle. */
static void write_model(const void *code, size_t count) {
  static const int64_t number = 3;
  write_zip((entry[]){{"model/data.pkl", code, count, false},
                      {"model/data/0", numbers, sizeof numbers, false},
                      {"model/data/1", narrow, sizeof narrow, false},
                      {"model/data/2", &number, 8, false}},
            4);
}

static void write_good(void) {
  bytes b = pickle_of(good, GOOD);
  write_model(b.data, b.count);
  bytes_release(&b);
}

/* ---- Reading ---- */

static clm_status open_it(source *file) { return pytorch_open(test_reference, in_folder(NAME), file); }

static clm_status read_it(const source *file, const char *name, size_t begin, size_t count, void *out) {
  const source_tensor *t = source_find(file, name);
  assert_non_null(t);
  return source_read(test_reference, t, begin, count, out);
}

static void test_tensors(const test_device *device, const void *data) {
  (void)device, (void)data;
  source file;
  float got[8];
  write_good();
  if (open_it(&file)) fail_msg("%s", clm_context_error(test_reference));
  assert_int_equal(file.count, GOOD);
  for (size_t i = 0; i < GOOD; i++) {
    const source_tensor *t = source_find(&file, good[i].name);
    assert_int_equal(t->rank, good[i].rank);
    for (int d = 0; d < t->rank; d++) assert_int_equal(t->shape[d], good[i].shape[d]);
  }
  assert_int_equal(source_find(&file, "number")->dtype, SOURCE_OTHER);
  assert_string_equal(source_find(&file, "half")->dtype_name, "F16");
  assert_int_equal(read_it(&file, "whole", 0, 12, got), CLM_OK); /* in pieces, another one in between */
  assert_int_equal(read_it(&file, "whole", 12, 20, got + 3), CLM_OK);
  assert_memory_equal(got, numbers, sizeof numbers);
  assert_int_equal(read_it(&file, "half", 0, 8, got), CLM_OK);
  assert_memory_equal(got, narrow, sizeof narrow);
  assert_int_equal(read_it(&file, "part", 0, 20, got), CLM_OK);
  assert_memory_equal(got, numbers + 3, 20);
  source_close(&file);
}

/* Views that are not contiguous, as a parameter that was transposed, cut or expanded is saved: what torch's
 * tensor.contiguous() holds. */
static const struct strided {
  tensor tensor;
  float want[8];
} strided[] = {
    {{"transposed", "FloatStorage", "0", 8, 0, 2, {4, 2}, {1, 4}}, {1, 5, 2, 6, 3, 7, 4, 8}},
    {{"columns", "FloatStorage", "0", 8, 1, 2, {2, 2}, {4, 1}}, {2, 3, 6, 7}},
    {{"every other", "FloatStorage", "0", 8, 1, 1, {4}, {2}}, {2, 4, 6, 8}},
    {{"expanded", "FloatStorage", "0", 8, 2, 2, {4, 2}, {0, 1}}, {3, 4, 3, 4, 3, 4, 3, 4}},
    {{"permuted", "FloatStorage", "0", 8, 0, 3, {2, 2, 2}, {1, 4, 2}}, {1, 3, 5, 7, 2, 4, 6, 8}},
    {{"one row", "FloatStorage", "0", 8, 4, 2, {1, 4}, {99, 1}}, {5, 6, 7, 8}},
};

static void test_strided(const test_device *device, const void *data) {
  (void)device, (void)data;
  tensor tensors[TEST_COUNT(strided)];
  for (size_t i = 0; i < TEST_COUNT(strided); i++) tensors[i] = strided[i].tensor;
  bytes b = pickle_of(tensors, TEST_COUNT(strided));
  write_model(b.data, b.count);
  bytes_release(&b);
  source file;
  if (open_it(&file)) fail_msg("%s", clm_context_error(test_reference));
  for (size_t i = 0; i < TEST_COUNT(strided); i++)
    for (size_t step = 4; step <= 32; step += 12) { /* whole, and in pieces */
      const source_tensor *t = source_find(&file, tensors[i].name);
      float got[8] = {0};
      for (size_t at = 0, n; at < t->bytes; at += n) {
        n = t->bytes - at < step ? t->bytes - at : step;
        if (source_read(test_reference, t, at, n, (char *)got + at))
          fail_msg("%s", clm_context_error(test_reference));
      }
      assert_int_equal(t->bytes, 4 * (i == 1 || i == 2 || i == 5 ? 4 : 8));
      assert_memory_equal(got, strided[i].want, t->bytes);
    }
  source_close(&file);
}

/* Cut anywhere, or with any byte of an entry changed, the file is refused when it is opened or read. */
static void test_damage(const test_device *device, const void *data) {
  (void)device, (void)data;
  write_good();
  bytes b = read_file(NAME);
  source file;
  for (size_t length = 0; length < b.count; length++) {
    write_file(NAME, b.data, length);
    expect_failure(test_reference, open_it(&file), CLM_BAD_FORMAT, "not a valid file of tensors");
  }
  size_t at = 0; /* of the first number of data/0 */
  while (memcmp(b.data + at, numbers, sizeof numbers) != 0) at++;
  b.data[at + 5] ^= 4;
  write_file(NAME, b.data, b.count);
  assert_int_equal(open_it(&file), CLM_OK);
  float got[8];
  expect_failure(test_reference, read_it(&file, "whole", 0, sizeof got, got), CLM_BAD_FORMAT,
                 "is damaged: CRC error");
  source_close(&file);
  bytes_release(&b);
}

typedef struct bad_tensor {
  const char *why;
  tensor tensor;
  clm_status status;
  const char *message;
} bad_tensor;

static const bad_tensor bad_tensors[] = {
    {"no such storage", {"a", "FloatStorage", "9", 8, 0, 1, {8}, {1}}, CLM_BAD_FORMAT, "no entry \"model/data/9\""},
    {"a path as a key", {"a", "FloatStorage", "../../x", 8, 0, 1, {8}, {1}}, CLM_BAD_FORMAT, "no entry"},
    {"a storage of another size",
     {"a", "FloatStorage", "0", 9, 0, 1, {8}, {1}},
     CLM_BAD_FORMAT,
     "has 32 bytes, expected 9"},
    {"outside the storage", {"a", "FloatStorage", "0", 8, 1, 1, {8}, {1}}, CLM_BAD_FORMAT, "outside its storage"},
    {"a negative offset", {"a", "FloatStorage", "0", 8, -1, 1, {8}, {1}}, CLM_BAD_FORMAT, "not whole numbers"},
    {"a negative size", {"a", "FloatStorage", "0", 8, 0, 1, {-8}, {1}}, CLM_BAD_FORMAT, "not whole numbers"},
    {"an impossible shape",
     {"a", "FloatStorage", "0", 8, 0, 3, {INT32_MAX, INT32_MAX, INT32_MAX}, {0, 0, 0}},
     CLM_BAD_FORMAT,
     "impossible shape"},
    {"strides that lead outside",
     {"a", "FloatStorage", "0", 8, 0, 2, {4, 2}, {2, 3}},
     CLM_BAD_FORMAT,
     "outside its storage"},
    {"a stride far outside",
     {"a", "FloatStorage", "0", 8, 0, 2, {4, 2}, {INT32_MAX, 1}},
     CLM_BAD_FORMAT,
     "outside its storage"},
    {"a storage type that is not read",
     {"a", "QInt8Storage", "0", 8, 0, 1, {8}, {1}},
     CLM_UNSUPPORTED,
     "asks for torch.QInt8Storage"},
};

static void test_bad_tensor(const test_device *device, const void *data) {
  (void)device;
  const bad_tensor *c = data;
  source file;
  bytes b = pickle_of(&c->tensor, 1);
  write_model(b.data, b.count);
  bytes_release(&b);
  expect_failure(test_reference, open_it(&file), c->status, c->message);
}

typedef struct bad_pickle {
  const char *why, *code;
  size_t count;
  clm_status status;
  const char *message;
} bad_pickle;

#define CODE(text) "\x80\x02" text, sizeof("\x80\x02" text) - 1
static const bad_pickle bad_pickles[] = {
    {"a call of the system's", CODE("cos\nsystem\nX\4\0\0\0true\x85R."), CLM_UNSUPPORTED,
     "asks for os.system: only tensors"},
    {"a name that begins as an allowed one", CODE("ccollections\nOrderedDictionary\n)R."), CLM_UNSUPPORTED,
     "asks for"},
    {"an instance", CODE("(icollections\nOrderedDict\n."), CLM_UNSUPPORTED, "opcode INST (0x69)"},
    {"an object", CODE("(ccollections\nOrderedDict\no."), CLM_UNSUPPORTED, "opcode OBJ"},
    {"a new object", CODE("ccollections\nOrderedDict\n)\x81."), CLM_UNSUPPORTED, "opcode NEWOBJ (0x81)"},
    {"an extension", CODE("\x82\1."), CLM_UNSUPPORTED, "opcode EXT1"},
    {"a name from the stack", CODE("X\2\0\0\0osX\6\0\0\0system\x93."), CLM_UNSUPPORTED, "opcode STACK_GLOBAL"},
    {"an unknown opcode", CODE("\xff."), CLM_UNSUPPORTED, "opcode unknown (0xff)"},
    {"another protocol", "\x80\x04}.", 4, CLM_BAD_FORMAT, "not of protocol 2"},
    {"nothing", "", 0, CLM_BAD_FORMAT, "cut off"},
    {"no end", CODE("}"), CLM_BAD_FORMAT, "cut off"},
    {"a list", CODE("]."), CLM_BAD_FORMAT, "not a dictionary of tensors"},
    {"an empty dictionary", CODE("}."), CLM_BAD_FORMAT, "no tensors by name"},
    {"a dictionary of numbers", CODE("}X\1\0\0\0aK\1s."), CLM_BAD_FORMAT, "no tensors by name"},
    {"an end on an empty stack", CODE("."), CLM_BAD_FORMAT, "empty stack"},
    {"a mark for a value", CODE("(."), CLM_BAD_FORMAT, "mark for a value"},
    {"no mark", CODE("t."), CLM_BAD_FORMAT, "lacks a mark"},
    {"a key without a value", CODE("}(K\1u."), CLM_BAD_FORMAT, "key without a value"},
    {"items of a number", CODE("K\1(K\1K\1u."), CLM_BAD_FORMAT, "not a dictionary"},
    {"items of a list", CODE("}(K\1e."), CLM_BAD_FORMAT, "not a list"},
    {"a value that was never kept", CODE("h\7."), CLM_BAD_FORMAT, "does not have"},
    {"a value of a wild number", CODE("}r\xff\xff\xff\xff."), CLM_BAD_FORMAT, "one after another"},
    {"a text of 2^32 - 1 bytes", CODE("X\xff\xff\xff\xff."), CLM_BAD_FORMAT, "cut off"},
    {"a text with a zero byte", CODE("X\2\0\0\0a\0."), CLM_BAD_FORMAT, "zero byte"},
    {"a number of 9 bytes",
     CODE("\x8a\x09"
          "123456789."),
     CLM_BAD_FORMAT, "more than 64 bits"},
    {"a call of a number", CODE("K\1)R."), CLM_BAD_FORMAT, "not a name"},
    {"a call of a type", CODE("ctorch\nFloatStorage\n)R."), CLM_BAD_FORMAT, "cannot be called"},
    {"a call without a tuple", CODE("ccollections\nOrderedDict\nK\1R."), CLM_BAD_FORMAT, "without a tuple"},
    {"a tensor of nothing", CODE("ctorch._utils\n_rebuild_tensor_v2\n)R."), CLM_BAD_FORMAT, "lacks its storage"},
    {"a storage of nothing", CODE(")Q."), CLM_BAD_FORMAT, "lacks its type"},
    {"a parameter of nothing", CODE("ctorch._utils\n_rebuild_parameter\n)R."), CLM_BAD_FORMAT, "no tensor"},
    {"a name without an end", CODE("cos"), CLM_BAD_FORMAT, "cut off"},
};

static void test_bad_pickle(const test_device *device, const void *data) {
  (void)device;
  const bad_pickle *c = data;
  source file;
  write_model(c->code, c->count);
  expect_failure(test_reference, open_it(&file), c->status, c->message);
}

/* Every part of a good pickle that is not all of it. */
static void test_cut_pickle(const test_device *device, const void *data) {
  (void)device, (void)data;
  bytes b = pickle_of(good, GOOD);
  pickle p;
  for (size_t count = 0; count < b.count; count++)
    expect_failure(test_reference, pickle_read(test_reference, "it", b.data, count, &p), CLM_BAD_FORMAT,
                   "it is not a valid");
  assert_int_equal(pickle_read(test_reference, "it", b.data, b.count, &p), CLM_OK);
  assert_int_equal(p.count, GOOD);
  pickle_free(&p);
  bytes_release(&b);
}

static void test_archives(const test_device *device, const void *data) {
  (void)device, (void)data;
  source file;
  bytes b = pickle_of(good, 1);
  const entry code = {"model/data.pkl", b.data, b.count, false},
              zero = {"model/data/0", numbers, sizeof numbers, false};
  const struct {
    entry entries[3];
    size_t count;
    clm_status status;
    const char *message;
  } archives[] = {
      {{{"model/other", "x", 1, false}}, 1, CLM_BAD_FORMAT, "no data.pkl"},
      {{{"a/b/data.pkl", "x", 1, false}}, 1, CLM_BAD_FORMAT, "no data.pkl"},
      {{code}, 1, CLM_BAD_FORMAT, "no entry \"model/data/0\""},
      {{code, {"model/data/0", numbers, 4, false}}, 2, CLM_BAD_FORMAT, "has 4 bytes, expected 8 numbers of 4"},
      {{code, {"model/data/0", numbers, sizeof numbers, true}}, 2, CLM_UNSUPPORTED, "is compressed"},
      {{code, zero, {"model/byteorder", "big", 3, false}}, 3, CLM_BAD_FORMAT, "byte order"},
      {{code, zero, {"model/byteorder", "middle", 6, false}}, 3, CLM_BAD_FORMAT, "byte order"},
      {{code, zero, {"model/byteorder", "little", 6, false}}, 3, CLM_OK, ""},
  };
  for (size_t i = 0; i < TEST_COUNT(archives); i++) {
    write_zip(archives[i].entries, archives[i].count);
    clm_status status = open_it(&file);
    expect_failure(test_reference, status, archives[i].status, archives[i].message);
    if (status == CLM_OK) source_close(&file);
  }
  bytes_release(&b);
  folder_empty();
  expect_failure(test_reference, open_it(&file), CLM_IO_ERROR, "No such file");
}

static void add(void) {
  test_add(NULL, test_tensors, NULL, "tensors");
  test_add(NULL, test_strided, NULL, "tensors that are not contiguous");
  test_add(NULL, test_damage, NULL, "cut at any byte, and a wrong number");
  for (size_t i = 0; i < TEST_COUNT(bad_tensors); i++)
    test_add(NULL, test_bad_tensor, &bad_tensors[i], "%s", bad_tensors[i].why);
  for (size_t i = 0; i < TEST_COUNT(bad_pickles); i++)
    test_add(NULL, test_bad_pickle, &bad_pickles[i], "%s", bad_pickles[i].why);
  test_add(NULL, test_cut_pickle, NULL, "every part of a pickle");
  test_add(NULL, test_archives, NULL, "archives");
}

int main(void) {
  if (!folder_make()) return EXIT_FAILURE;
  int status = test_main_reference("pytorch", add);
  return folder_remove() ? status : EXIT_FAILURE;
}
