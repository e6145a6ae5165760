/* NumPy's file format (.npy): a header that says dtype, order and shape, then the elements.
 *
 * Files are read whole and checked in full when they are opened. Nothing here knows a context, so that the tools have
 * it too: the message of a failure goes to `error` of NPY_ERROR_BYTES. */
#ifndef CLM_FILES_NPY_H
#define CLM_FILES_NPY_H

#include <clmamba/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NPY_MAX_RANK = 8, NPY_ERROR_BYTES = 400, NPY_HEADER_BYTES = 256 };

/* All little endian; NPY_B1 is NumPy's bool. */
typedef enum npy_dtype {
  NPY_F2,
  NPY_F4,
  NPY_F8,
  NPY_B1,
  NPY_I1,
  NPY_I2,
  NPY_I4,
  NPY_I8,
  NPY_U1,
  NPY_U2,
  NPY_U4,
  NPY_U8
} npy_dtype;

/* Whole numbers, bool included. */
bool npy_is_whole(npy_dtype dtype);

typedef struct npy_array {
  char *file; /* all of it */
  size_t bytes;
  npy_dtype dtype;
  int rank; /* 0: one number */
  int64_t shape[NPY_MAX_RANK];
  int64_t stride[NPY_MAX_RANK]; /* in elements: row-major, or what NumPy calls Fortran order */
  size_t count;                 /* elements, may be 0 */
  const char *data;             /* may be unaligned   */
} npy_array;

clm_status npy_open(const char *path, npy_array *array, char error[NPY_ERROR_BYTES]);
void npy_close(npy_array *array);

/* Elements [begin, begin + count) in row-major order, which must be there: as f32 from any dtype; as i32 from whole
 * numbers that fit (`path` is for the message if not). */
void npy_read_f32(const npy_array *array, size_t begin, size_t count, float *out);
clm_status npy_read_i32(const npy_array *array, const char *path, size_t begin, size_t count, int32_t *out,
                        char error[NPY_ERROR_BYTES]);

/* The bytes before the elements of a row-major array; returns how many. */
size_t npy_header(npy_dtype dtype, int rank, const int64_t *shape, char header[NPY_HEADER_BYTES]);

#endif
