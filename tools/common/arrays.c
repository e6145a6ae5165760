#include "common/arrays.h"
#include "common/tool.h"
#include "files/npy.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool check_tokens(const char *path, int64_t vocab_size, const npy_array *a, const token_rows *rows) {
  for (size_t i = 0; i < a->count; i++)
    if (rows->ids[i] < 0 || rows->ids[i] >= vocab_size)
      return tool_fail("%s: token %zu is %d, the model knows 0 to %lld", path, i, (int)rows->ids[i],
                       (long long)vocab_size - 1),
             false;
  return true;
}

static bool take_tokens(const char *path, int64_t vocab_size, const npy_array *a, token_rows *rows) {
  char error[NPY_ERROR_BYTES];
  if (a->rank < 1 || a->rank > 2 || a->count == 0)
    return tool_fail("%s has %d dimensions and %zu numbers, expected (length) or (batch, length), not empty", path,
                     a->rank, a->count),
           false;
  *rows = (token_rows){.ids = malloc(a->count * sizeof *rows->ids),
                       .batch = a->rank == 2 ? a->shape[0] : 1,
                       .length = a->shape[a->rank - 1]};
  if (!rows->ids) return tool_fail("out of memory for %s", path), false;
  if (npy_read_i32(a, path, 0, a->count, rows->ids, error)) return tool_fail("%s", error), false;
  return check_tokens(path, vocab_size, a, rows);
}

bool tokens_read(const char *path, int64_t vocab_size, token_rows *rows) {
  char error[NPY_ERROR_BYTES];
  npy_array a;
  *rows = (token_rows){0};
  if (npy_open(path, &a, error)) return tool_fail("%s", error), false;
  bool ok = take_tokens(path, vocab_size, &a, rows);
  npy_close(&a);
  if (ok) return true;
  free(rows->ids);
  *rows = (token_rows){0};
  return false;
}

bool tokens_write(const char *path, const token_rows *rows) {
  output o;
  char header[NPY_HEADER_BYTES];
  size_t bytes = npy_header(NPY_I4, 2, (int64_t[]){rows->batch, rows->length}, header);
  if (!output_open(&o, path)) return false;
  fwrite(header, 1, bytes, o.stream);
  fwrite(rows->ids, sizeof *rows->ids, (size_t)(rows->batch * rows->length), o.stream);
  return output_close(&o, true);
}

static bool ends_with(const char *path, const char *ending) {
  size_t length = strlen(path), tail = strlen(ending);
  return length > tail && strcmp(path + length - tail, ending) == 0;
}

bool array_is_csv(const char *path) { return ends_with(path, ".csv"); }

bool array_open(array_file *a, const char *path, int rank, const int64_t *shape) {
  *a = (array_file){.width = array_is_csv(path) ? shape[rank - 1] : 0};
  if (a->width && rank > 2)
    return tool_fail("%s: an array of %d dimensions has no lines, give it the ending .npy", path, rank), false;
  if (!output_open(&a->output, path)) return false;
  if (!ends_with(path, ".npy")) return true;
  char header[NPY_HEADER_BYTES];
  size_t bytes = npy_header(NPY_F4, rank, shape, header);
  a->begin = (long)bytes;
  fwrite(header, 1, bytes, a->output.stream);
  return true;
}

bool array_write(array_file *a, int64_t place, const float *values, int64_t count) {
  FILE *f = a->output.stream;
  if (a->width) {
    for (int64_t i = 0; i < count; i++)
      fprintf(f, "%.9g%c", (double)values[i], (place + i + 1) % a->width ? ',' : '\n');
    return !ferror(f);
  }
  if (place != a->written && fseeko(f, (off_t)a->begin + (off_t)place * (off_t)sizeof *values, SEEK_SET) != 0) {
    a->output.file.error = errno; /* a FIFO, say */
    return false;
  }
  a->written = place + count;
  return fwrite(values, sizeof *values, (size_t)count, f) == (size_t)count;
}

bool array_sync(array_file *a) { return output_sync(&a->output); }

bool array_close(array_file *a, bool keep) { return output_close(&a->output, keep); }
