#include "files/npy.h"
#include "core/arith.h"
#include "core/try.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char magic[] = {'\x93', 'N', 'U', 'M', 'P', 'Y'};
enum { VERSION_AT = sizeof magic, LENGTH_AT = sizeof magic + 2, ALIGN = 64 };

static const struct {
  const char *descr;
  size_t bytes;
  bool whole;
} dtypes[] = {[NPY_F2] = {"<f2", 2, false}, [NPY_F4] = {"<f4", 4, false}, [NPY_F8] = {"<f8", 8, false},
              [NPY_B1] = {"|b1", 1, true},  [NPY_I1] = {"|i1", 1, true},  [NPY_I2] = {"<i2", 2, true},
              [NPY_I4] = {"<i4", 4, true},  [NPY_I8] = {"<i8", 8, true},  [NPY_U1] = {"|u1", 1, true},
              [NPY_U2] = {"<u2", 2, true},  [NPY_U4] = {"<u4", 4, true},  [NPY_U8] = {"<u8", 8, true}};
#define DTYPES   (sizeof dtypes / sizeof *dtypes)
#define EXPECTED "one of <f2, <f4, <f8, |b1, |i1, <i2, <i4, <i8, |u1, <u2, <u4, <u8"

static clm_status fail(char error[NPY_ERROR_BYTES], clm_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static clm_status fail(char error[NPY_ERROR_BYTES], clm_status status, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(error, NPY_ERROR_BYTES, format, args);
  va_end(args);
  return status;
}

/* ---- The header: a Python dictionary in a form of which NumPy writes always the same ---- */

typedef struct parser {
  const char *at, *end, *path;
  char *error;
} parser;

static clm_status malformed(const parser *p, const char *what) {
  return fail(p->error, CLM_BAD_FORMAT, "%s is not a valid .npy file: %s", p->path, what);
}

/* Skips blanks, then takes `token` if it comes next. */
static bool take(parser *p, const char *token) {
  size_t length = strlen(token);
  while (p->at < p->end && strchr(" \t\r\n", *p->at) && *p->at) p->at++;
  if ((size_t)(p->end - p->at) < length || memcmp(p->at, token, length) != 0) return false;
  p->at += length;
  return true;
}

enum { TEXT_BYTES = 32 };

static clm_status take_text(parser *p, char text[TEXT_BYTES]) {
  const char *quote = take(p, "'") ? "'" : take(p, "\"") ? "\"" : NULL;
  if (!quote) return malformed(p, "its header has something else where a text is expected");
  size_t length = 0;
  while (p->at + length < p->end && p->at[length] != *quote) length++;
  if (p->at + length == p->end || length >= TEXT_BYTES || memchr(p->at, 0, length))
    return malformed(p, "its header has a text that is cut off or too long");
  memcpy(text, p->at, length);
  text[length] = '\0';
  p->at += length + 1;
  return CLM_OK;
}

static clm_status take_dtype(parser *p, npy_array *a) {
  char text[TEXT_BYTES];
  if (take(p, "[")) return fail(p->error, CLM_UNSUPPORTED, "%s holds records, expected plain numbers", p->path);
  TRY(take_text(p, text));
  for (size_t i = 0; i < DTYPES; i++)
    if (strcmp(text, dtypes[i].descr) == 0) return a->dtype = (npy_dtype)i, CLM_OK;
  return fail(p->error, CLM_UNSUPPORTED, "%s has dtype \"%s\", expected " EXPECTED, p->path, text);
}

static clm_status take_size(parser *p, int64_t *size) {
  const char *begin = p->at;
  for (*size = 0; p->at < p->end && *p->at >= '0' && *p->at <= '9'; p->at++)
    if (__builtin_mul_overflow(*size, 10, size) || __builtin_add_overflow(*size, *p->at - '0', size))
      return malformed(p, "its shape is impossible");
  return p->at > begin ? CLM_OK : malformed(p, "its shape is not a tuple of whole numbers");
}

static clm_status take_shape(parser *p, npy_array *a) {
  if (!take(p, "(")) return malformed(p, "its shape is not a tuple of whole numbers");
  while (!take(p, ")")) {
    if (a->rank == NPY_MAX_RANK) return malformed(p, "its shape has more than 8 dimensions");
    TRY(take_size(p, &a->shape[a->rank++]));
    if (!take(p, ",") && (a->rank == 1 || p->at == p->end || *p->at != ')'))
      return malformed(p, "its shape is not a tuple of whole numbers"); /* "(3)" is no tuple */
  }
  return CLM_OK;
}

static clm_status take_header(parser *p, npy_array *a, bool *fortran) {
  enum { DESCR = 1, ORDER = 2, SHAPE = 4 };
  unsigned found = 0;
  if (!take(p, "{")) return malformed(p, "its header is not a dictionary");
  while (!take(p, "}")) {
    char key[TEXT_BYTES];
    TRY(take_text(p, key));
    unsigned bit = strcmp(key, "descr") == 0           ? DESCR
                   : strcmp(key, "fortran_order") == 0 ? ORDER
                   : strcmp(key, "shape") == 0         ? SHAPE
                                                       : 0;
    if (!bit || found & bit || !take(p, ":")) return malformed(p, "its header has other keys than expected");
    found |= bit;
    if (bit == DESCR) TRY(take_dtype(p, a));
    else if (bit == SHAPE) TRY(take_shape(p, a));
    else if (!(*fortran = take(p, "True")) && !take(p, "False"))
      return malformed(p, "fortran_order is neither True nor False");
    if (!take(p, ",") && (p->at == p->end || *p->at != '}')) return malformed(p, "its header is not a dictionary");
  }
  take(p, "");
  if (p->at != p->end) return malformed(p, "something follows the dictionary of its header");
  return found == (DESCR | ORDER | SHAPE) ? CLM_OK : malformed(p, "its header lacks descr, fortran_order or shape");
}

/* ---- The file ---- */

/* count and strides; the bytes that the elements take. */
static clm_status measure(const parser *p, npy_array *a, bool fortran, size_t *bytes) {
  int64_t count = 1;
  for (int i = 0; i < a->rank; i++) {
    int dim = fortran ? i : a->rank - 1 - i;
    a->stride[dim] = count;
    /* A dimension of 0 must not hide others that overflow. */
    if (__builtin_mul_overflow(count, a->shape[dim] ? a->shape[dim] : 1, &count))
      return malformed(p, "its shape is impossible");
  }
  if (__builtin_mul_overflow((size_t)count, dtypes[a->dtype].bytes, bytes))
    return malformed(p, "its shape is impossible");
  a->count = (size_t)count;
  for (int i = 0; i < a->rank; i++)
    if (a->shape[i] == 0) a->count = *bytes = 0;
  return CLM_OK;
}

static clm_status check_file(parser *p, npy_array *a) {
  const unsigned char *file = (const unsigned char *)a->file;
  size_t bytes = a->bytes, wanted = 0;
  if (bytes < LENGTH_AT || memcmp(file, magic, sizeof magic) != 0) return malformed(p, "it does not begin as one");
  unsigned version = file[VERSION_AT];
  if (version < 1 || version > 3 || file[VERSION_AT + 1] != 0)
    return fail(p->error, CLM_UNSUPPORTED, "%s has .npy version %u.%u, expected 1.0, 2.0 or 3.0", p->path, version,
                file[VERSION_AT + 1]);
  size_t begin = LENGTH_AT + (version == 1 ? 2 : 4), length = 0;
  if (bytes < begin) return malformed(p, "its header is cut off");
  for (size_t i = begin; i-- > LENGTH_AT;) length = length << 8 | file[i];
  if (length > bytes - begin) return malformed(p, "its header is cut off");
  p->at = (const char *)file + begin;
  p->end = p->at + length;
  a->data = p->end;
  bool fortran = false;
  TRY(take_header(p, a, &fortran));
  TRY(measure(p, a, fortran, &wanted));
  size_t there = bytes - begin - length;
  if (there != wanted)
    return fail(p->error, CLM_BAD_FORMAT, "%s is not a valid .npy file: its shape takes %zu bytes, %zu are there",
                p->path, wanted, there);
  return CLM_OK;
}

/* Reads what fstat says is there: a mapped file that another program cuts short would kill the process. */
static clm_status read_bytes(int fd, size_t bytes, const char *path, npy_array *a, char *error) {
  a->file = malloc(bytes ? bytes : 1);
  if (!a->file) return fail(error, CLM_OUT_OF_MEMORY, "out of memory for the %zu bytes of %s", bytes, path);
  for (ssize_t got; a->bytes < bytes; a->bytes += (size_t)got) {
    got = pread(fd, a->file + a->bytes, bytes - a->bytes, (off_t)a->bytes);
    if (got < 0 && errno == EINTR) got = 0;
    else if (got < 0) return fail(error, CLM_IO_ERROR, "cannot read %s: %s", path, strerror(errno));
    else if (got == 0) return fail(error, CLM_IO_ERROR, "cannot read %s: it became shorter", path);
  }
  return CLM_OK;
}

static clm_status read_file(const char *path, npy_array *a, char *error) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), problem = errno; /* no wait for the writer of a FIFO */
  if (fd < 0) return fail(error, CLM_IO_ERROR, "cannot read %s: %s", path, strerror(problem));
  struct stat about;
  clm_status status = CLM_OK;
  if (fstat(fd, &about) != 0) status = fail(error, CLM_IO_ERROR, "cannot read %s: %s", path, strerror(errno));
  else if (!S_ISREG(about.st_mode))
    status = fail(error, CLM_IO_ERROR, "cannot read %s: it is not a regular file", path);
  else status = read_bytes(fd, (size_t)about.st_size, path, a, error);
  close(fd);
  return status;
}

clm_status npy_open(const char *path, npy_array *a, char error[NPY_ERROR_BYTES]) {
  *a = (npy_array){0};
  parser p = {.path = path, .error = error};
  clm_status status = read_file(path, a, error);
  if (status == CLM_OK) status = check_file(&p, a);
  if (status) npy_close(a);
  return status;
}

void npy_close(npy_array *a) {
  free(a->file);
  *a = (npy_array){0};
}

/* ---- Elements ---- */

typedef union number {
  uint16_t f2;
  float f4;
  double f8;
  int8_t i1;
  int16_t i2;
  int32_t i4;
  int64_t i8;
  uint8_t u1; /* b1 too */
  uint16_t u2;
  uint32_t u4;
  uint64_t u8;
} number;

static float half_to_float(uint16_t half) {
  uint32_t exponent = (half >> 10) & 31u, fraction = half & 0x3ffu, bits = (uint32_t)(half & 0x8000u) << 16;
  float value = (float)fraction * 0x1p-24f; /* subnormal */
  if (exponent == 0) return bits ? -value : value;
  bits |= (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static float as_float(npy_dtype dtype, number n) {
  switch (dtype) {
  case NPY_F2: return half_to_float(n.f2);
  case NPY_F4: return n.f4;
  case NPY_F8: return (float)n.f8;
  case NPY_B1: return n.u1 ? 1 : 0;
  case NPY_I1: return (float)n.i1;
  case NPY_I2: return (float)n.i2;
  case NPY_I4: return (float)n.i4;
  case NPY_I8: return (float)n.i8;
  case NPY_U1: return (float)n.u1;
  case NPY_U2: return (float)n.u2;
  case NPY_U4: return (float)n.u4;
  case NPY_U8: return (float)n.u8;
  }
  return 0;
}

/* Of a whole dtype; what is larger than the largest i64 comes out as that. */
static int64_t as_whole(npy_dtype dtype, number n) {
  switch (dtype) {
  case NPY_B1: return n.u1 ? 1 : 0;
  case NPY_I1: return n.i1;
  case NPY_I2: return n.i2;
  case NPY_I4: return n.i4;
  case NPY_I8: return n.i8;
  case NPY_U1: return n.u1;
  case NPY_U2: return n.u2;
  case NPY_U4: return n.u4;
  case NPY_U8: return n.u8 > INT64_MAX ? INT64_MAX : (int64_t)n.u8;
  case NPY_F2:
  case NPY_F4:
  case NPY_F8: break;
  }
  return 0;
}

/* The element at row-major place `i`. */
static const char *element(const npy_array *a, size_t i) {
  size_t at = 0;
  for (int dim = a->rank - 1; dim >= 0; dim--) {
    at += i % (size_t)a->shape[dim] * (size_t)a->stride[dim];
    i /= (size_t)a->shape[dim];
  }
  return a->data + at * dtypes[a->dtype].bytes;
}

static number number_at(const npy_array *a, size_t i) {
  number n;
  memcpy(&n, element(a, i), dtypes[a->dtype].bytes);
  return n;
}

bool npy_is_whole(npy_dtype dtype) { return dtypes[dtype].whole; }

void npy_read_f32(const npy_array *a, size_t begin, size_t count, float *out) {
  for (size_t i = 0; i < count; i++) out[i] = as_float(a->dtype, number_at(a, begin + i));
}

clm_status npy_read_i32(const npy_array *a, const char *path, size_t begin, size_t count, int32_t *out,
                        char error[NPY_ERROR_BYTES]) {
  if (!npy_is_whole(a->dtype))
    return fail(error, CLM_UNSUPPORTED, "%s has dtype \"%s\", expected whole numbers, such as <i4", path,
                dtypes[a->dtype].descr);
  for (size_t i = 0; i < count; i++) {
    int64_t value = as_whole(a->dtype, number_at(a, begin + i));
    if (value < INT32_MIN || value > INT32_MAX)
      return fail(error, CLM_BAD_FORMAT, "%s: element %zu is %lld, expected a number of 32 bits", path, begin + i,
                  (long long)value);
    out[i] = (int32_t)value;
  }
  return CLM_OK;
}

size_t npy_header(npy_dtype dtype, int rank, const int64_t *shape, char header[NPY_HEADER_BYTES]) {
  char tuple[NPY_MAX_RANK * 22 + 1] = "";
  int at = 0;
  for (int i = 0; i < rank; i++)
    at += snprintf(tuple + at, sizeof tuple - (size_t)at, i ? " %lld," : "%lld,", (long long)shape[i]);
  if (rank > 1) tuple[at - 1] = '\0'; /* (3,) but (3, 4) */
  const size_t begin = LENGTH_AT + 2;
  memset(header, ' ', NPY_HEADER_BYTES);
  memcpy(header, magic, sizeof magic);
  int length = snprintf(header + begin, NPY_HEADER_BYTES - begin,
                        "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", dtypes[dtype].descr, tuple);
  size_t end = (size_t)round_up((int64_t)begin + length + 1, ALIGN);
  header[begin + (size_t)length] = ' ';
  header[end - 1] = '\n';
  header[VERSION_AT] = 1;
  header[VERSION_AT + 1] = 0;
  header[LENGTH_AT] = (char)(unsigned char)((end - begin) & 255);
  header[LENGTH_AT + 1] = (char)(unsigned char)((end - begin) >> 8);
  return end;
}
