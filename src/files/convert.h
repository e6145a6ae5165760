/* Numbers as a file stores them to numbers as a model holds them. */
#ifndef CLM_FILES_CONVERT_H
#define CLM_FILES_CONVERT_H

#include "files/source.h"

typedef struct conversion {
  source_dtype from; /* not SOURCE_OTHER */
  clm_dtype to;      /* f32, f16 or bf16 */
  bool is_A;         /* A is stored, log(-A) is held */
} conversion;

/* `elements` are whole blocks of `from`; `in` may be unaligned. How many values are not finite as they are stored. */
size_t convert(const conversion *c, const void *in, size_t elements, void *out);

/* A row as integers from -127 to 127; returns the scale that belongs to them, the largest magnitude over 127. To
 * nearest, ties to even. Of a row with a value that is not finite the scale is not a number: no result hides it. */
float quantize_row(const float *row, size_t n, int8_t *out);

#endif
