/* Numbers as a file stores them to numbers as a model holds them. */
#ifndef CLM_MODEL_CONVERT_H
#define CLM_MODEL_CONVERT_H

#include "model/source.h"

typedef struct conversion {
  source_dtype from; /* not SOURCE_OTHER */
  clm_dtype to;      /* f32, f16 or bf16 */
  bool is_A;         /* A is stored, log(-A) is held */
} conversion;

/* `elements` are whole blocks of `from`; `in` may be unaligned. How many values are not finite as they are stored. */
size_t convert(const conversion *c, const void *in, size_t elements, void *out);

#endif
