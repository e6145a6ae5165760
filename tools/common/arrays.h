/* Arrays in files, as mamba-eval and mamba-generate read and make them; messages go to stderr. */
#ifndef CLM_TOOLS_ARRAYS_H
#define CLM_TOOLS_ARRAYS_H

#include "common/output.h"
#include <stdint.h>

/* Token numbers, (batch, length). */
typedef struct token_rows {
  int32_t *ids; /* to be freed */
  int64_t batch, length;
} token_rows;

/* From .npy of int32 or int64, (length) or (batch, length); each must be below `vocab_size`. */
bool tokens_read(const char *path, int64_t vocab_size, token_rows *rows);

/* As .npy of int32, (batch, length). */
bool tokens_write(const char *path, const token_rows *rows);

/* A file of floats that grows as they are computed: .npy, .csv (one line for each row; at most two dimensions), or
 * with any other ending the bare numbers, little endian. */
typedef struct array_file {
  output output;
  int64_t width; /* of a line of CSV; 0: not CSV */
  int64_t written;
  long begin; /* of the numbers */
} array_file;

/* Whether a file of that name is CSV. */
bool array_is_csv(const char *path);

bool array_open(array_file *a, const char *path, int rank, const int64_t *shape);

/* `count` numbers from number `place` on; CSV in order only. False when the disk takes no more: array_close says it.
 */
bool array_write(array_file *a, int64_t place, const float *values, int64_t count);

/* As output_sync and output_close. */
bool array_sync(array_file *a);
bool array_close(array_file *a, bool keep);

#endif
