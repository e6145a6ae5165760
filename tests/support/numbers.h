/* Storage of numbers in every dtype. */
#ifndef TEST_NUMBERS_H
#define TEST_NUMBERS_H

#include <clmamba/tensor.h>

/* Number `i` (a complex element has two) of memory that holds `dtype`. */
double number_get(clm_dtype dtype, const void *memory, size_t i);
void number_set(clm_dtype dtype, void *memory, size_t i, double value);

#endif
